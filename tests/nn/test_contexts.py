import pytest
import torch

from sowa.nn.bank import unit
from sowa.nn.contexts import GroupFeatures, SharedContexts, prompt_losses, sentence_groups

SIZES = {"normal": 3, "abnormal": 4, "length": 4, "abnormal_length": 1}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def contexts(width: int = 5, templates: int = 2, **changed: int) -> SharedContexts:
    sizes = SIZES | changed
    counts = (sizes["normal"], templates * sizes["normal"], sizes["normal"] * sizes["abnormal"])
    ids = [torch.arange(9).expand(count, -1) for count in counts]
    embeddings = [drawn(count, 9, width, seed=number) for number, count in enumerate(counts)]
    return SharedContexts(
        token_ids=ids, embeddings=embeddings, generator=torch.Generator().manual_seed(0), spread=0.02, **sizes
    )


def test_sentences():
    groups = sentence_groups(
        "metal nut", ["damaged {}", "{} with flaw"], normal=2, abnormal=1, length=3, abnormal_length=2
    )
    assert groups.normal == ["N N N metal nut."] * 2
    assert groups.manual == ["N N N damaged metal nut."] * 2 + ["N N N metal nut with flaw."] * 2
    assert groups.learnt == ["N N N A A metal nut."] * 2


@pytest.mark.parametrize(("normal", "abnormal"), [(3, 4), (1, 4), (2, 5)])
def test_learnt_sentences_cover_all_pairs(normal, abnormal):
    one = contexts(normal=normal, abnormal=abnormal)
    embeddings, _ = one()
    learnt = embeddings.split(one.counts)[2]
    pairs = set()
    for row in learnt:
        pairs.add((_which(row[1:5], one.normal), _which(row[5:6], one.abnormal)))
    assert pairs == {(i, j) for i in range(normal) for j in range(abnormal)}


def _which(found, known) -> int:
    return [i for i, context in enumerate(known) if torch.equal(found, context)].pop()


def test_contexts_stand_between_start_and_words():
    one = contexts()
    embeddings, ids = one()
    assert embeddings.shape == (3 + 6 + 12, 9, 5) and ids.shape == (21, 9)
    frozen = one.embeddings.split(one.counts)
    for number, (group, given) in enumerate(zip(embeddings.split(one.counts), frozen, strict=True)):
        words = 6 if number == 2 else 5
        assert torch.equal(group[:, :1], given[:, :1]) and torch.equal(group[:, words:], given[:, words:])
        for i, row in enumerate(group):
            assert torch.equal(row[1:5], one.normal[i % 3])
    embeddings.sum().backward()
    assert one.normal.grad is not None and one.abnormal.grad is not None


def test_number_of_trained_scalars():
    count = lambda one: sum(value.numel() for value in one.parameters())  # noqa: E731
    assert count(contexts(width=640)) == 3 * 4 * 640 + 4 * 640
    assert count(contexts(width=640, normal=1)) == 640 * 8


def test_drawing_does_not_touch_the_global_generator():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    one, other = contexts(), contexts()
    assert torch.equal(torch.rand(1), want)
    assert torch.equal(one.normal, other.normal) and one.normal.std() < 0.05


def features(normal, abnormal) -> GroupFeatures:
    return GroupFeatures(normal[None], abnormal[None], abnormal[None])


def test_margin_is_zero_where_normal_is_nearer():
    axis = torch.eye(4)
    text = features(axis[0], axis[1])
    near, far = torch.stack([axis[0], unit(axis[0] + 0.5 * axis[1])]), axis[1:2]
    assert prompt_losses(near, text, scale=4.0)["margin"] == 0
    # |f - normal|^2 - |f - abnormal|^2 = 2 (cos abnormal - cos normal)
    assert prompt_losses(far, text, scale=4.0)["margin"].item() == pytest.approx(2.0)
    assert prompt_losses(near, text, scale=4.0, margin=3.0)["margin"] > 0


def test_contrast_counts_every_abnormal_prompt():
    axis = torch.eye(4)
    text = GroupFeatures(axis[:1], axis[1:2], axis[2:4])
    got = prompt_losses(axis[:1], text, scale=2.0)["contrast"].item()
    want = -torch.tensor([2.0, 0.0, 0.0, 0.0]).log_softmax(dim=0)[0].item()
    assert got == pytest.approx(want, rel=1e-5)


def test_align_compares_unit_means():
    axis = torch.eye(4)
    same = GroupFeatures(axis[:1], 5 * axis[1:2], axis[1:2])
    other = GroupFeatures(axis[:1], axis[1:2], axis[2:3])
    assert prompt_losses(axis[:1], same, scale=1.0)["align"] == 0
    assert prompt_losses(axis[:1], other, scale=1.0)["align"].item() == pytest.approx(2.0)


def test_margin_over_tokens_is_another_loss():
    text = features(*unit(drawn(2, 6)))
    tokens = unit(drawn(2, 9, 6, seed=1))
    one, other = (prompt_losses(tokens, text, scale=1.0, over_tokens=quirk)["margin"] for quirk in (False, True))
    near, far = (((tokens - w) ** 2).sum(dim=1) for w in text.prototypes())
    assert other.item() == pytest.approx((near - far).clamp(min=0).mean().item(), rel=1e-5)
    assert abs(one - other) > 1e-3


def test_prototypes_are_unit_means_of_raw_features():
    text = GroupFeatures(drawn(3, 6), drawn(4, 6, seed=1), drawn(2, 6, seed=2))
    normal, abnormal = text.prototypes()
    torch.testing.assert_close(normal, unit(text.normal.mean(dim=0)))
    torch.testing.assert_close(abnormal, unit((text.manual.sum(dim=0) + text.learnt.sum(dim=0)) / 6))
