"""Window self-attention that reuses the frozen attention weights of a backbone block.

Source: SOWA section 4.1; scaled cosine attention and the log-spaced continuous position bias are those of Swin v2.
Shapes: N = window * window tokens of a window, D token width, heads of width D / heads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["FrozenWindowAttention", "Share", "dropout_pattern", "partition", "region_mask", "reverse", "shared_dropout"]

MAX_LOG_SCALE = math.log(100.0)
OTHER_REGION = -100.0  # Swin's value: tokens that the cyclic shift brought together from different sides
SMALLEST = 1e-12  # as F.normalize
PADDING = -1e4  # underflows to an exact zero after softmax, and unlike -inf leaves a row of padding finite


@dataclass(frozen=True, slots=True)
class Share:
    """Which images of a batch a device has: every `world`-th of `images`, from number `rank` on."""

    images: int
    rank: int
    world: int

    def __len__(self) -> int:
        return len(range(self.rank, self.images, self.world))


def shared_dropout(shape: Sequence[int], rate: float, like: Tensor, share: Share | None = None) -> tuple[Tensor, float]:
    """(what is kept of [B, ...], the factor that keeps the mean), drawn by torch's global generator.

    With a `share` the whole batch's pattern is drawn and this device's images take their part of it: devices that begin
    with the same state of their generators drop what one device with all images would. Where the images are not as many
    as the share says (some could not be read), the pattern is drawn for them alone.
    """
    if share is None or share.world == 1 or len(share) != shape[0]:
        return dropout_pattern(shape, rate, like)
    whole, factor = dropout_pattern((share.images, *shape[1:]), rate, like)
    return whole[share.rank :: share.world], factor


def dropout_pattern(shape: Sequence[int], rate: float, like: Tensor) -> tuple[Tensor, float]:
    """(0 with the probability `rate`, else 1, of the type and on the device of `like`; the factor that keeps the mean).

    On a processor four entries share one 64-bit number, which is four times as quick as torch's own draw, one entry
    after the other; the rate is that of 16 bits then, within 1e-5 of the one given, and the mean is exact.
    """
    if rate >= 1:
        return like.new_zeros(shape), 1.0
    if like.device.type != "cpu":
        return like.new_empty(shape).bernoulli_(1 - rate), 1 / (1 - rate)
    count, cut = math.prod(shape), round(rate * 2**16)
    if cut == 2**16:
        return like.new_zeros(shape), 1.0
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[:count].view(shape) >= cut - 2**15
    return kept.to(like.dtype), 2**16 / (2**16 - cut)


def partition(tokens_BHWD: Tensor, window: int) -> Tensor:
    """[B, H, W, D] with H and W multiples of the window -> [B, windows, N, D], windows and tokens row-major."""
    split = tokens_BHWD.unflatten(1, (-1, window)).unflatten(3, (-1, window))
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def reverse(windows_BnND: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of `partition`."""
    split = windows_BnND.unflatten(1, (height // window, width // window)).unflatten(3, (window, window))
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def region_mask(grid: tuple[int, int], padded: tuple[int, int], window: int, shift: int) -> Tensor | None:
    """[windows, N, N] additive attention mask, or None where every token may see its whole window.

    Tokens of different sides that a cyclic shift put into one window do not see each other (-100, as in Swin); nobody
    sees padding.
    """
    if shift == 0 and grid == padded:
        return None
    regions = torch.zeros(padded)
    bounds = (slice(0, -window), slice(-window, -shift), slice(-shift, None)) if shift else (slice(None),)
    for number, (rows, columns) in enumerate((r, c) for r in bounds for c in bounds):
        regions[rows, columns] = number
    real = torch.zeros(padded)
    real[: grid[0], : grid[1]] = 1
    real = torch.roll(real, shifts=(-shift, -shift), dims=(0, 1))
    region_nN = partition(regions[None, ..., None], window)[0, ..., 0]
    real_nN = partition(real[None, ..., None], window)[0, ..., 0]
    mask = torch.where(region_nN[:, :, None] != region_nN[:, None, :], OTHER_REGION, 0.0)
    return torch.where(real_nN[:, None, :] > 0, mask, torch.tensor(PADDING))


def _relative_offsets(window: int) -> Tensor:
    """[2w-1, 2w-1, 2] (row, column) offsets on a signed log scale: sign(c) log2(|c| + 1) / log2(8), c in -8..8."""
    steps = torch.arange(-(window - 1), window, dtype=torch.float32) / max(window - 1, 1) * 8
    table = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    return table.sign() * (table.abs() + 1).log2() / math.log2(8)


def _pair_index(window: int) -> Tensor:
    """[N, N] row of the offset table that belongs to each pair of tokens of a window."""
    places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offset = places[:, :, None] - places[:, None, :] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def _in_its_type(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product in the type of the frozen weight, which may be a half; the result is of the type of the values."""
    return F.linear(values.to(weight.dtype), weight, bias).to(values.dtype)


class _ValueMix(torch.autograd.Function):
    """Value-value attention inside windows, its gradient by hand: fewer passes over what is as large as the attention.

    value [B, n, h, N, d], scale [h, 1, 1], bias [h, N, N], mask [n, 1, N, N], kept [B, n, h, N, N] of the type `low` in
    which products are made; softmax, sums and the result are of the type of the values.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        scale: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        kept: Tensor | None,
        factor: float,
        low: torch.dtype,
    ) -> Tensor:
        with torch.autocast(value.device.type, enabled=False):
            length = torch.linalg.vector_norm(value, dim=-1, keepdim=True).clamp(min=SMALLEST)
            unit = (value / length).to(low)
            cosine = unit @ unit.transpose(-2, -1)
            logits = cosine * scale.to(value.dtype)
            logits += bias.to(value.dtype)
            if mask is not None:
                logits += mask
            weights = logits.softmax(dim=-1)
            lowered = value.to(low, memory_format=torch.contiguous_format)
            mixed = (_used(weights, kept, low) @ lowered).to(value.dtype) * factor
        ctx.factor, ctx.low = factor, low
        needed = (unit, length) if ctx.needs_input_grad[0] else (None, None)
        ctx.save_for_backward(lowered, weights, cosine, scale, kept, *needed)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mixed: Tensor) -> tuple[Tensor | None, ...]:
        lowered, weights, cosine, scale, kept, unit, length = ctx.saved_tensors
        by_mixed = (by_mixed * ctx.factor).to(ctx.low)
        by_used = by_mixed @ lowered.transpose(-2, -1)
        by_logits = weights * (by_used if kept is None else by_used.mul_(kept))
        by_logits.addcmul_(weights, by_logits.sum(dim=-1, keepdim=True), value=-1)
        by_value = None
        if ctx.needs_input_grad[0]:
            by_cosine, along = (by_logits * scale.to(by_logits.dtype)).to(ctx.low), unit.to(weights.dtype)
            by_unit = (by_cosine @ unit + by_cosine.transpose(-2, -1) @ unit).to(weights.dtype)
            by_value = (by_unit - along * (along * by_unit).sum(dim=-1, keepdim=True)) / length
            by_value += _used(weights, kept, ctx.low).transpose(-2, -1) @ by_mixed
        by_bias = by_logits.sum(dim=(0, 1))
        by_scale = by_logits.mul_(cosine).sum(dim=(0, 1, 3, 4))[:, None, None]
        return by_value, by_scale.to(scale.dtype), by_bias.to(scale.dtype), None, None, None, None


def _used(weights: Tensor, kept: Tensor | None, low: torch.dtype) -> Tensor:
    """The weights in the type of the products, without what is dropped."""
    return weights.to(low) if kept is None else weights.to(low) * kept


class FrozenWindowAttention(nn.Module):
    """Cosine self-attention inside windows; projections frozen, scale and position bias learnt.

    Trainable: `log_scale` [heads, 1, 1] (starts at ln 10, acts clamped at ln 100) and `position`, a small network from
    log-spaced offsets to one bias per head, used as 16 * sigmoid.
    """

    def __init__(self, *, window: int, heads: int, value_only: bool = True, cpb_dim: int = 64, dropout: float = 0.0):
        super().__init__()
        self.window, self.heads, self.value_only, self.dropout = window, heads, value_only, dropout
        self.share: Share | None = None  # of the batch that is being trained on; set by who splits it
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.position = nn.Sequential(nn.Linear(2, cpb_dim), nn.ReLU(), nn.Linear(cpb_dim, heads, bias=False))
        self.register_buffer("offsets", _relative_offsets(window).flatten(0, 1), persistent=False)
        self.register_buffer("pairs", _pair_index(window), persistent=False)

    def position_bias(self) -> Tensor:
        """[heads, N, N], each entry in 0..16."""
        return 16 * self.position(self.offsets)[self.pairs].permute(2, 0, 1).sigmoid()

    def forward(
        self, windows_BnND: Tensor, in_weight: Tensor, out_weight: Tensor, out_bias: Tensor, mask_nNN: Tensor | None
    ) -> Tensor:
        """[B, n, N, D] -> [B, n, N, D].

        `in_weight` [3D, D] stacks the block's query, key and value projections; its bias is left out, as in the paper's
        code. `out_weight` [D, D] and `out_bias` [D] are the block's output projection.
        """
        query_weight, key_weight, value_weight = in_weight.chunk(3)
        value = self._split(_in_its_type(windows_BnND, value_weight))
        if self.value_only and self.training and torch.is_grad_enabled():
            mixed = self._mixed_in_training(value, mask_nNN)
            return _in_its_type(mixed.transpose(2, 3).flatten(3), out_weight, out_bias)
        if self.value_only:
            query = key = F.normalize(value, dim=-1)
        else:
            query = F.normalize(self._split(_in_its_type(windows_BnND, query_weight)), dim=-1)
            key = F.normalize(self._split(_in_its_type(windows_BnND, key_weight)), dim=-1)
        logits = torch.addcmul(self.position_bias(), query @ key.transpose(-2, -1), self._scale())
        if mask_nNN is not None:
            logits = logits + mask_nNN.to(logits)[:, None]
        weights = logits.softmax(dim=-1)
        if self.training and self.dropout:
            kept, factor = shared_dropout(weights.shape, self.dropout, weights, self.share)
            weights = weights * kept * factor
        low = out_weight.dtype  # a half, where the products before and after are: the values were of it already
        mixed = weights.to(low) @ value.to(low)
        return F.linear(mixed.transpose(2, 3).flatten(3), out_weight, out_bias).to(windows_BnND.dtype)

    def _mixed_in_training(self, value: Tensor, mask_nNN: Tensor | None) -> Tensor:
        """What the other path computes, with a gradient of its own."""
        device = value.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
        kept, factor = None, 1.0
        if self.dropout:
            shape = (*value.shape[:-1], value.shape[-2])
            kept, factor = shared_dropout(shape, self.dropout, value.new_empty(0, dtype=low), self.share)
        mask = None if mask_nNN is None else mask_nNN.to(value.dtype)[:, None]
        return _ValueMix.apply(value, self._scale(), self.position_bias(), mask, kept, factor, low)

    def _scale(self) -> Tensor:
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()

    def _split(self, values_BnND: Tensor) -> Tensor:
        return values_BnND.unflatten(-1, (self.heads, -1)).transpose(2, 3).contiguous()
