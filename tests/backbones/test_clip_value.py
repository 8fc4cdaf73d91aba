import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sowa.backbones import build_backbone
from sowa.backbones.base import Backbone
from sowa.backbones.clip_value import ValueTokens, encode_values, value_attention, walk_blocks
from sowa.backbones.vit import VitBackbone
from sowa.errors import ConfigError

TINY = build_backbone("random_tiny")
IMAGES = torch.rand(3, 3, TINY.image_size, TINY.image_size, generator=torch.Generator().manual_seed(0))


def tiny_vit() -> VitBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        visual = VisionTransformer(
            img_size=28, patch_size=7, embed_dim=24, depth=3, num_heads=3, num_classes=0, init_values=0.5
        )
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return VitBackbone(name="v", visual=visual, text=None, mean=zero, std=one, text_trained=False, weights_id="v")


def attention_by_hand(value_BLD, heads):
    rows = []
    for head in value_BLD.chunk(heads, dim=-1):
        weights = (head @ head.transpose(1, 2) / head.shape[-1] ** 0.5).softmax(dim=-1)
        rows.append((weights, weights @ head))
    return rows


def test_attention_among_values():
    value = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))
    by_hand = attention_by_hand(value, 3)
    torch.testing.assert_close(value_attention(value, 3), torch.cat([out for _, out in by_hand], dim=-1))
    for weights, _ in by_hand:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 7))
    # Rows of weights that sum to one leave tokens that are all alike as they are.
    alike = value[:, :1].expand(-1, 7, -1)
    torch.testing.assert_close(value_attention(alike, 3), alike)


def test_the_value_stream_is_the_embedding_and_one_term_per_block():
    blocks = TINY.visual.transformer.resblocks
    stream = total = TINY.visual._embeds(TINY._normalised(IMAGES))
    for block in blocks:
        attention, normed = block.attn, block.ln_1(stream)
        width = normed.shape[-1]
        value = normed @ attention.in_proj_weight[2 * width :].T + attention.in_proj_bias[2 * width :]
        heads = torch.cat([out for _, out in attention_by_hand(value, attention.num_heads)], dim=-1)
        total = total + attention.out_proj(heads)
        stream = block(stream)
    *_, last = walk_blocks(TINY, IMAGES)
    torch.testing.assert_close(last.values, total)
    torch.testing.assert_close(last.stream, stream)
    want = TINY.visual.ln_post(total)[:, 1:] @ TINY.visual.proj
    torch.testing.assert_close(encode_values(TINY, IMAGES, ()).values, want)


@pytest.mark.parametrize("backbone", [TINY, tiny_vit()], ids=["clip", "vit"])
def test_the_ordinary_pass_is_that_of_the_backbone(backbone):
    images = IMAGES[..., : backbone.image_size, : backbone.image_size]
    taps = (3, 1, 3)
    plain, both = backbone.encode_image(images, taps), encode_values(backbone, images, taps)
    torch.testing.assert_close(both.cls, plain.cls)
    assert len(both.levels) == 3 and both.grid == plain.grid
    for one, other in zip(both.levels, plain.levels, strict=True):
        torch.testing.assert_close(one, other)
    assert both.values.shape == (3, backbone.grid[0] * backbone.grid[1], backbone.joint)
    assert not any(module._forward_hooks for module in backbone.modules()), "a hook was left behind"


@pytest.mark.parametrize("backbone", [TINY, tiny_vit()], ids=["clip", "vit"])
def test_a_level_may_include_the_next_attention(backbone):
    images = IMAGES[..., : backbone.image_size, : backbone.image_size]
    steps = list(walk_blocks(backbone, images))
    first, last = encode_values(backbone, images, (1, backbone.depth), next_attention=True).levels
    torch.testing.assert_close(first, steps[1].attended[:, 1:])
    torch.testing.assert_close(last, steps[-1].stream[:, 1:])
    assert not torch.allclose(first, steps[0].stream[:, 1:])


def test_uint8_and_float_agree_and_images_do_not_meet():
    pixels = (IMAGES * 255).to(torch.uint8)
    torch.testing.assert_close(
        encode_values(TINY, pixels, (1,)).values, encode_values(TINY, pixels.float() / 255, (1,)).values
    )
    alone = torch.cat([encode_values(TINY, IMAGES[i : i + 1], (1,)).values for i in range(3)])
    torch.testing.assert_close(encode_values(TINY, IMAGES, (1,)).values, alone)


def test_rows_and_join_keep_the_values():
    tokens = encode_values(TINY, IMAGES, (1, 2))
    again = ValueTokens.join([tokens.rows(slice(0, 1)), tokens.rows(slice(1, 3))])
    assert type(again) is ValueTokens and again.grid == tokens.grid
    assert torch.equal(again.values, tokens.values) and torch.equal(again.cls, tokens.cls)
    assert all(torch.equal(a, b) for a, b in zip(again.levels, tokens.levels, strict=True))


def test_no_images_give_no_tokens():
    tokens = encode_values(TINY, IMAGES[:0], (1, 2))
    assert tokens.values.shape == (0, 64, TINY.joint) and len(tokens.levels) == 2 and len(tokens.cls) == 0


def test_a_backbone_without_blocks_is_refused_in_one_line():
    class Flat(Backbone):
        def __init__(self):
            sizes = {"image_size": 4, "patch": 2, "width": 3, "joint": 3, "depth": 1}
            colours = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
            super().__init__(name="flat", text=None, text_trained=False, weights_id="", **sizes, **colours)
            self.visual = nn.Conv2d(3, 3, 2)

    with pytest.raises(ConfigError, match=r"flat.*vision transformer") as caught:
        encode_values(Flat(), torch.rand(1, 3, 4, 4), (1,))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"choose from 1\.\.4"):
        encode_values(TINY, IMAGES, (5,))
