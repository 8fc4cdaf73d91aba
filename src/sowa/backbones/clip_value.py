"""The value-value path: patch tokens that gather from patches alike in value, beside the ordinary pass.

With h the ordinary residual stream, a second stream starts at the same embedding and takes one step per block,
x <- x + out(softmax(V V^T / sqrt(head width)) V), where V is the block's value projection (with its bias) of its own
first norm of h. No MLP acts on it. Source: PromptAD, after CLIP Surgery.

B images, L tokens, D token width, E joint width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.errors import ConfigError
from sowa.types import Tokens

__all__ = ["Step", "ValueTokens", "encode_values", "value_attention", "walk_blocks"]


@dataclass(frozen=True, slots=True)
class ValueTokens(Tokens):
    """Tokens of an ordinary pass with those of the value-value path."""

    values: Tensor
    """[B, L, E] patch tokens of the value-value path after the final norm and the projection."""

    def rows(self, rows: slice) -> "ValueTokens":
        """Tokens of some of the images."""
        levels = tuple(level[rows] for level in self.levels)
        return ValueTokens(self.cls[rows], levels, self.grid, self.values[rows])

    @staticmethod
    def join(parts: "Sequence[ValueTokens]") -> "ValueTokens":
        """Tokens of several batches as one batch."""
        plain = Tokens.join(parts)
        return ValueTokens(plain.cls, plain.levels, plain.grid, torch.cat([part.values for part in parts]))


class Step(NamedTuple):
    """Both residual streams after one block, each [B, 1 + L, D] with the class token first."""

    stream: Tensor
    """The ordinary stream."""
    attended: Tensor
    """The ordinary stream inside the block: its attention is added, its MLP is not."""
    values: Tensor
    """The value-value stream."""


class _Norms(NamedTuple):
    """Where a library keeps the two halves of a block."""

    attention: str
    attention_scale: str
    mlp: str
    mlp_scale: str


OPEN_CLIP, TIMM = _Norms("ln_1", "ls_1", "ln_2", "ls_2"), _Norms("norm1", "ls1", "norm2", "ls2")


def encode_values(
    backbone: Backbone, images: Tensor, taps: Sequence[int], *, next_attention: bool = False
) -> ValueTokens:
    """`Backbone.encode_image` with the tokens of the value-value path, in one pass.

    images, taps: as there. next_attention: a level is the stream after its block plus the attention of the following
    block, before that one's MLP (what PromptAD's published code reads; the last block has no successor and stays as it
    is). ConfigError for a backbone that is not a vision transformer.
    """
    visual = _transformer_of(backbone)
    taps = backbone._checked_taps(taps)
    if not len(images):
        plain = backbone.encode_image(images, taps)
        none_BLE = plain.cls.new_empty(0, backbone.grid[0] * backbone.grid[1], backbone.joint)
        return ValueTokens(plain.cls, plain.levels, plain.grid, none_BLE)
    found: dict[int, Tensor] = {}
    for number, step in enumerate(walk_blocks(backbone, images), start=1):
        if next_attention and number - 1 in taps:
            found[number - 1] = step.attended[:, 1:]
        if number in taps:
            found[number] = step.stream[:, 1:]
    last, local = step.stream, step.values
    if hasattr(visual, "ln_post"):
        cls_BE, values = visual._pool(last)[0] @ visual.proj, visual.ln_post(local)[:, 1:] @ visual.proj
    else:
        cls_BE, values = visual.norm(last)[:, 0], visual.norm(local)[:, 1:]
    return ValueTokens(cls_BE.float(), tuple(found[tap].float() for tap in taps), backbone.grid, values.float())


def walk_blocks(backbone: Backbone, images: Tensor) -> Iterator[Step]:
    """One `Step` per block for [B, 3, H, W] images, B > 0; ConfigError unless the backbone is a vision transformer."""
    visual, pixels = _transformer_of(backbone), backbone._normalised(images)
    if hasattr(visual, "transformer"):
        stream = visual._embeds(pixels.to(visual.conv1.weight.dtype))
        blocks, names = visual.transformer.resblocks, OPEN_CLIP
    else:
        stream = visual.norm_pre(visual._pos_embed(visual.patch_embed(pixels.to(visual.cls_token.dtype))))
        blocks, names = visual.blocks, TIMM
    values = stream
    for block in blocks:
        attended, gathered = _attend(block, stream, names)
        scale, norm = getattr(block, names.mlp_scale), getattr(block, names.mlp)
        stream, values = attended + scale(block.mlp(norm(attended))), values + gathered
        yield Step(stream, attended, values)


def value_attention(value_BLD: Tensor, heads: int) -> Tensor:
    """[B, L, D] -> [B, L, D]: per head softmax(V V^T / sqrt(D / heads)) V; each row of weights sums to one."""
    split = value_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(split, split, split).transpose(1, 2).flatten(2)


def _attend(block: nn.Module, stream: Tensor, names: _Norms) -> tuple[Tensor, Tensor]:
    """(stream with the block's ordinary attention added, what the value-value stream gathers in this block)."""
    scale, normed = getattr(block, names.attention_scale), getattr(block, names.attention)(stream)
    attention = block.attn
    if names is OPEN_CLIP:
        ordinary, out = block.attention(normed), attention.out_proj
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
    else:
        ordinary, out = attention(normed), attention.proj
        weight, bias = attention.qkv.weight, attention.qkv.bias
    value = F.linear(normed, weight.chunk(3)[2], None if bias is None else bias.chunk(3)[2])
    return stream + scale(ordinary), scale(out(value_attention(value, attention.num_heads)))


def _transformer_of(backbone: Backbone) -> nn.Module:
    visual = getattr(backbone, "visual", None)
    if hasattr(visual, "transformer") or hasattr(visual, "_pos_embed"):
        return visual
    raise ConfigError(f"backbone '{backbone.name}' has no value-value path: use a vision transformer such as clip")
