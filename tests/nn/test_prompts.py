import torch

from sowa.nn.prompts import LearntPrompts, pool_states, prompt_sentences


def test_sentences_are_category_major():
    assert prompt_sentences(["nut", "bolt"], ["{}", "damaged {}"], 2) == [
        "X X nut.",
        "X X damaged nut.",
        "X X bolt.",
        "X X damaged bolt.",
    ]


def test_no_context_leaves_plain_words():
    assert prompt_sentences(["nut"], ["{}"], 0) == ["nut."]


def test_context_stands_between_start_and_words():
    ids = torch.arange(12).reshape(1, 2, 6)
    words = torch.randn(1, 2, 6, 3)
    learnt = LearntPrompts(token_ids_CTN=ids, embeddings_CTNW=words, context_length=2)
    prompts, flat_ids = learnt()
    assert prompts.shape == (2, 6, 3)
    assert torch.equal(prompts[:, 0], words[0, :, 0])
    assert torch.equal(prompts[:, 1:3], learnt.context[0])
    assert torch.equal(prompts[:, 3:], words[0, :, 3:])
    assert torch.equal(flat_ids, ids[0])
    assert [name for name, _ in learnt.named_parameters()] == ["context"]


def test_states_may_have_different_numbers_of_templates():
    normal, abnormal = torch.randn(2, 4), torch.randn(6, 4)
    pooled = pool_states([normal, abnormal], categories=2)
    assert pooled.shape == (2, 2, 4)
    torch.testing.assert_close(pooled[1, 1], abnormal[3:].mean(dim=0))
    torch.testing.assert_close(pooled[0, 0], normal[0])
