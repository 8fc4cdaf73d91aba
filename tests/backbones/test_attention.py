"""Self-attention by one product: the values of torch.nn, and never a transposed view in bfloat16."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sowa.backbones import build_backbone
from sowa.backbones.attention import FrozenLinear, SelfAttention, with_frozen_layers, with_self_attention

OWN = nn.MultiheadAttention


def pair(width=32, heads=4):
    torch.manual_seed(0)
    plain = OWN(width, heads, batch_first=True).eval()
    ours = OWN(width, heads, batch_first=True).eval()
    ours.load_state_dict(plain.state_dict())
    return plain, with_self_attention(nn.Sequential(ours))[0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_values_are_those_of_torch(masked, autocast):
    plain, ours = pair()
    tokens = torch.randn(2, 7, 32)
    mask = torch.full((7, 7), -torch.inf).triu(1) if masked else None
    assert isinstance(ours, SelfAttention)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        wanted, _ = plain(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
        found, weights = ours(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
    assert weights is None and found.dtype == wanted.dtype
    if autocast:
        torch.testing.assert_close(found.float(), wanted.float(), rtol=0.03, atol=0.03)
    else:
        assert torch.equal(found, wanted)


def test_gradients_pass_in_bfloat16():
    plain, ours = pair()
    grads = []
    for attention in (plain, ours):
        tokens = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            attention(tokens, tokens, tokens, need_weights=False)[0].float().square().sum().backward()
        grads.append(tokens.grad)
    torch.testing.assert_close(*grads, rtol=0.1, atol=0.1)


def test_no_product_in_bfloat16_sees_a_transposed_view(monkeypatch):
    """A tower's images and texts, as training with `bf16-mixed` computes them."""
    seen, linear = [], F.linear

    def watched(tokens, weight, bias=None):
        seen.append(tokens.is_contiguous())
        return linear(tokens, weight, bias)

    monkeypatch.setattr(F, "linear", watched)
    tower = build_backbone("random_tiny")
    with torch.autocast("cpu", torch.bfloat16):
        tower.encode_image(torch.rand(2, 3, tower.image_size, tower.image_size), [1, 2])
        ids = tower.text.tokenize(["a part", "a damaged part"])
        tower.text.encode(tower.text.embed(ids), ids)
    assert len(seen) > 10 and all(seen)


def test_other_uses_are_torchs_own():
    plain, ours = pair()
    one, other = torch.randn(2, 7, 32), torch.randn(2, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        for options in ({"need_weights": True}, {"need_weights": False, "key_padding_mask": torch.zeros(2, 5).bool()}):
            wanted, found = plain(one, other, other, **options), ours(one, other, other, **options)
            assert torch.equal(found[0], wanted[0])


def test_frozen_weights_are_cast_once_and_again_when_they_change():
    torch.manual_seed(0)
    layer = with_frozen_layers(nn.Sequential(nn.Linear(8, 4))).requires_grad_(False)[0]
    tokens = torch.randn(3, 8)
    assert isinstance(layer, FrozenLinear) and list(layer.state_dict()) == ["weight", "bias"]
    for change in (
        lambda: None,
        lambda: layer.weight.mul_(2),
        lambda: layer.load_state_dict(nn.Linear(8, 4).state_dict()),
    ):
        change()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(tokens), F.linear(tokens, layer.weight, layer.bias))
        assert torch.equal(layer(tokens), F.linear(tokens, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        layer(tokens)
        kept = layer._lowered["weight"][2]
        layer(tokens)
    assert layer._lowered["weight"][2] is kept


def test_weights_that_are_trained_are_not_kept():
    layer = with_frozen_layers(nn.Sequential(nn.Linear(8, 4)))[0]
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 8)).sum().backward()
    assert layer.weight.grad is not None and "_lowered" not in layer.__dict__


def test_weights_made_in_inference_mode_are_cast_each_time():
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        layer = with_frozen_layers(nn.Sequential(nn.Linear(8, 4))).requires_grad_(False)[0]
        assert layer(torch.randn(3, 8)).dtype == torch.bfloat16 and "_lowered" not in layer.__dict__
