"""A vision transformer's blocks with their products in 8-bit whole numbers.

The products of a block (query-key-value, output, both of the MLP) multiply bytes and add up exactly: weights are
-127..127 with a scale of each output, what they are multiplied with is 0..255 with one scale. Scales are constants of
the tower, from `Ranges` that were measured once, so an image's tokens depend on nothing but the image. All else, the
residual stream, norms, softmax, attention's own two products, is as in `sowa.backbones.quick`.

What eight bits cost is kept small by exact algebra: each channel's middle and part of its width (`SMOOTHED`) move into
the norm before it or the values it is made of, and out of the weights after it; the hidden channels of widest range
(`APART`) are left out of the bytes and multiplied in bfloat16 beside them.

B images, T tokens, N blocks, D token width, H hidden width.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sowa.backbones.precision import native_int8, working_dtype
from sowa.backbones.quick import (
    ACTIVATIONS,
    ROWS_HINT,
    Norm,
    Parts,
    Products,
    QuickTower,
    attended,
    folded,
    library_parts,
    linear_of,
    norm_of,
    stem_of,
)
from sowa.errors import ConfigError

__all__ = ["Ranges", "byte_linear", "int8_tower", "int8_works", "measured_ranges"]

SMOOTHED = 0.65
"""Exponent of a channel's width in the scale that moves into the weights (SmoothQuant's alpha)."""
APART = 1 / 48
"""Share of the hidden channels that stay out of the bytes."""
MIDDLE = 128
"""The byte that stands for a channel's middle."""


class Ranges(NamedTuple):
    """Least and largest value of each channel, by block: [N, 2, D], and [N, 2, H] of the hidden ones."""

    attention_norm: Tensor
    """After the norm before attention."""
    gathered: Tensor
    """After attention, before its output projection."""
    mlp_norm: Tensor
    hidden: Tensor
    """After the activation."""


class _ByteLinear(NamedTuple):
    """Bytes in; activation of (weight @ (bytes - zero) * scales + bias) out, as `dtype` or as bytes again."""

    weight: Tensor
    """oneDNN's own layout of whole numbers."""
    scale: Tensor
    none: Tensor
    bias: Tensor
    given: tuple[float, int]
    """Scale of the bytes that come, and the byte that means zero."""
    made: tuple[float, int]
    """The same of bytes that are made."""
    dtype: torch.dtype
    activation: str

    def __call__(self, values: Tensor) -> Tensor:
        word = {"silu": "swish"}.get(self.activation, self.activation)
        rule = "none" if word == "gelu" else ""
        return torch.ops.onednn.qlinear_pointwise(
            values, *self.given, self.weight, self.scale, self.none, self.bias, *self.made, self.dtype, word, [], rule
        )

    def add_to(self, stream: Tensor, values: Tensor) -> Tensor:
        """`stream`, float32, plus the product without activation, written into it."""
        return torch.ops.onednn.qlinear_pointwise.binary(
            *(values, *self.given, self.weight, self.scale, self.none, stream, self.bias, 1.0, 0, torch.float32),
            *(1.0, 0, "sum", 1.0, "none", [], ""),
        )


def byte_linear(
    weight: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
    *,
    then: str = "none",
    given: tuple[float, int] = (1.0, MIDDLE),
    made: tuple[float, int] = (1.0, 0),
) -> _ByteLinear:
    """weight [outputs, inputs] for inputs in units of `given`; each output has a scale of its own."""
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    whole = (weight / scale[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(whole, [ROWS_HINT, weight.shape[1]])
    none = torch.zeros(len(weight), dtype=torch.int64)
    return _ByteLinear(packed, scale, none, bias, given, made, dtype, then)


class _ByteBlock(NamedTuple):
    norm_attention: Norm
    """Its results are bytes before rounding, half a byte up."""
    qkv: _ByteLinear
    """Its values are in bytes' units, around 0."""
    out: _ByteLinear
    norm_mlp: Norm
    widen: _ByteLinear
    narrow: _ByteLinear
    widen_apart: _ByteLinear
    narrow_apart: nn.Module
    heads: int

    def __call__(self, stream: Tensor) -> Tensor:
        gathered = attended(self.qkv(_bytes(self.norm_attention(stream))), self.heads)
        stream = self.out.add_to(stream, _bytes(gathered.float().add_(MIDDLE + 0.5)))
        normed = _bytes(self.norm_mlp(stream))
        stream = self.narrow.add_to(stream, self.widen(normed))
        return stream.add_(self.narrow_apart(self.widen_apart(normed)))


def _bytes(values: Tensor) -> Tensor:
    """0..255 by cutting off; in place. By way of 16 bits, since torch turns floats into bytes one by one, in thrice the
    time."""
    return values.clamp_(0, 255).to(torch.int16).to(torch.uint8)


def int8_tower(visual: nn.Module, ranges: Ranges, *, embedded_by: nn.Module) -> QuickTower:
    """As `quick_tower`; `embedded_by` is in `working_dtype("int8")`. ConfigError where it cannot be had."""
    found = library_parts(visual)
    if found is None or not int8_works():
        raise ConfigError("precision=int8 cannot be had with this tower and this torch: choose auto, bf16 or fp32")
    parts, norm = found
    blocks = tuple(_byte_block(part, Ranges(*own)) for part, *own in zip(parts, *ranges, strict=True))
    return QuickTower(stem_of(embedded_by), blocks, norm, working_dtype("int8"))


def _byte_block(parts: Parts, ranges: Ranges) -> _ByteBlock:
    """ranges: of this block, [2, D] and [2, H]."""
    products, dtype, width = folded(parts), working_dtype("int8"), len(parts.norm_attention.weight)
    norm_attention, weight, bias = _normed(parts.norm_attention, ranges.attention_norm, *products.qkv)
    middle, unit = _units(ranges.gathered, products.out[0])
    # Attention's weights add up to 1: what is taken off the values is off what is gathered.
    values = slice(2 * width, None)
    weight[values], bias[values] = weight[values] / unit[:, None], (bias[values] - middle) / unit
    qkv = byte_linear(weight, bias, dtype)
    out = byte_linear(products.out[0] * unit, products.out[1] + products.out[0] @ middle, torch.float32)
    norm_mlp, weight, bias = _normed(parts.norm_mlp, ranges.mlp_norm, *products.widen)
    return _ByteBlock(
        norm_attention, qkv, out, norm_mlp, *_mlp(products, ranges.hidden, weight, bias, dtype), heads=parts.heads
    )


def _mlp(products: Products, hidden_2H: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype):
    """widen, narrow, and both of the channels apart; weight and bias: of `widen`, for bytes."""
    least_H, most_H = hidden_2H
    apart = most_H.topk(max(1, round(APART * len(most_H)))).indices.sort().values
    kept = torch.ones_like(most_H, dtype=torch.bool).index_fill_(0, apart, False)
    low = min(float(least_H.min()), 0.0)
    scale = max(float(most_H[kept].max()) - low, 1e-6) / 255
    made, then = (scale, round(-low / scale)), products.activation
    narrow, narrow_bias = products.narrow
    return (
        byte_linear(weight, bias, torch.uint8, then=then, made=made),
        byte_linear(narrow * kept, narrow_bias, torch.float32, given=made),
        byte_linear(weight[apart], bias[apart], dtype, then=then),
        linear_of(narrow[:, apart], torch.zeros_like(narrow_bias), dtype),
    )


def _normed(norm: nn.LayerNorm, range_2D: Tensor, weight: Tensor, bias: Tensor) -> tuple[Norm, Tensor, Tensor]:
    """The norm whose results are bytes, and the weights after it for them."""
    (middle, unit), plain = _units(range_2D, weight), norm_of(norm)
    shifted = (plain.bias - middle) / unit + (MIDDLE + 0.5)
    return Norm(plain.weight / unit, shifted, plain.eps), weight * unit, bias + weight @ middle


def _units(range_2D: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(middle, unit) of each channel: (value - middle) / unit is -127..127 where it is widest."""
    least, most = range_2D
    half = ((most - least) / 2).clamp(min=1e-6)
    eased = half**SMOOTHED / weight.abs().amax(dim=0).clamp(min=1e-8) ** (1 - SMOOTHED)
    return (least + most) / 2, eased * (half / eased).max() / 127


@torch.no_grad()
def measured_ranges(visual: nn.Module, pixels_B3HW: Tensor) -> Ranges | None:
    """Of a float32 tower on these normalised images; None for one that `int8_tower` would not take."""
    found = library_parts(visual)
    if found is None:
        return None
    rows: list[list[Tensor]] = []
    stream = stem_of(visual)(pixels_B3HW)
    for parts in found[0]:
        products = folded(parts)
        normed = norm_of(parts.norm_attention)(stream)
        gathered = attended(F.linear(normed, *products.qkv), parts.heads)
        stream = stream + F.linear(gathered, *products.out)
        widened = norm_of(parts.norm_mlp)(stream)
        hidden = ACTIVATIONS[products.activation](F.linear(widened, *products.widen))
        stream = stream + F.linear(hidden, *products.narrow)
        rows.append([torch.stack(one.flatten(0, 1).aminmax(dim=0)) for one in (normed, gathered, widened, hidden)])
    return Ranges(*(torch.stack(own) for own in zip(*rows, strict=True)))


@lru_cache(maxsize=1)
def int8_works() -> bool:
    """Whether this processor multiplies bytes into whole 32-bit sums, and this torch does it right.

    The operations are torch's own for its compiler and not a public promise; processors without such sums cut large
    ones off, which the trial would show.
    """
    return native_int8() and all(_exact(activation) for activation in ACTIVATIONS)


def _exact(activation: str, shape: Sequence[int] = (32, 64, 48)) -> bool:
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (rows, inputs), generator=generator).to(torch.uint8)
    weight = torch.randint(-127, 128, (outputs, inputs), generator=generator).float()
    values[0], weight[0] = 255, 127.0
    weight[:, 0] = 127.0  # so that the scale of each output is 1
    bias = torch.full((outputs,), 0.5)
    sums = (values.double() - MIDDLE) @ weight.double().T
    wanted = ACTIVATIONS[activation](0.001 * sums + 0.5).float()
    try:
        with torch.no_grad():
            linear = byte_linear(weight, bias, torch.float32, then=activation, given=(0.001, MIDDLE))
            if not torch.allclose(linear(values), wanted, rtol=1e-4, atol=1e-4):
                return False
            added = wanted + 1 if activation != "none" else linear.add_to(torch.ones_like(wanted), values)
            return torch.allclose(added, wanted + 1, rtol=1e-4, atol=1e-4)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
