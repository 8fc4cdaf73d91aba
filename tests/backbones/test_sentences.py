import torch

from sowa.backbones import build_backbone
from sowa.backbones.sentences import encode_sentences

TINY = build_backbone("random_tiny")
SENTENCES = ["a photo of a nut.", "a photo of a damaged nut for visual inspection.", "nut"]


def test_shorter_rows_say_the_same():
    ids = TINY.tokenize(SENTENCES)
    torch.testing.assert_close(encode_sentences(TINY, SENTENCES), TINY.encode_text(TINY.embed_tokens(ids), ids))


def test_parts_say_the_same(monkeypatch):
    whole = encode_sentences(TINY, SENTENCES)
    monkeypatch.setattr("sowa.backbones.sentences.SENTENCES_AT_ONCE", 2)
    torch.testing.assert_close(encode_sentences(TINY, SENTENCES), whole)


def test_features_made_while_inferring_may_be_trained_on():
    with torch.inference_mode():
        features = encode_sentences(TINY, SENTENCES)
    assert not features.is_inference() and not features.requires_grad
