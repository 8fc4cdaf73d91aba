"""Window self-attention that reuses the frozen attention weights of a backbone block.

Source: SOWA section 4.1; scaled cosine attention and the log-spaced continuous position bias are those of Swin v2.
Shapes: N = window * window tokens of a window, D token width, heads of width D / heads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FrozenWindowAttention", "Share", "dropout_pattern", "partition", "region_mask", "reverse", "shared_dropout"]

MAX_LOG_SCALE = math.log(100.0)
OTHER_REGION = -100.0  # Swin's value: tokens that the cyclic shift brought together from different sides
PADDING = -1e4  # underflows to an exact zero after softmax, and unlike -inf leaves a row of padding finite


@dataclass(frozen=True, slots=True)
class Share:
    """Which images of a batch a device has: every `world`-th of `images`, from number `rank` on."""

    images: int
    rank: int
    world: int

    def __len__(self) -> int:
        return len(range(self.rank, self.images, self.world))


def shared_dropout(values: Tensor, rate: float, share: Share | None = None) -> Tensor:
    """Dropout of [B, ...] by torch's global generator.

    With a `share` the whole batch's pattern is drawn and this device's images take their part of it: devices that begin
    with the same state of their generators drop what one device with all images would. Where the images are not as many
    as the share says (some could not be read), the pattern is drawn for them alone.
    """
    if share is None or share.world == 1 or len(share) != len(values):
        return values * dropout_pattern(values.shape, rate, values)
    whole = dropout_pattern((share.images, *values.shape[1:]), rate, values)
    return values * whole[share.rank :: share.world]


def dropout_pattern(shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    """Of the type and on the device of `like`: 0 with the probability `rate`, else what keeps the mean at 1.

    On a processor four entries share one 64-bit number, which is four times as quick as torch's own draw, one entry
    after the other; the rate is that of 16 bits then, within 1e-5 of the one given, and the mean is exact.
    """
    if like.device.type != "cpu":
        return F.dropout(like.new_ones(shape), rate)
    count, cut = math.prod(shape), round(rate * 2**16)
    if cut == 2**16:
        return like.new_zeros(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[:count].view(shape) >= cut - 2**15
    return kept.to(like.dtype).mul_(2**16 / (2**16 - cut))


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
        if self.value_only:
            query = key = F.normalize(value, dim=-1)
        else:
            query = F.normalize(self._split(_in_its_type(windows_BnND, query_weight)), dim=-1)
            key = F.normalize(self._split(_in_its_type(windows_BnND, key_weight)), dim=-1)
        logits = query @ key.transpose(-2, -1) * self.log_scale.clamp(max=MAX_LOG_SCALE).exp() + self.position_bias()
        if mask_nNN is not None:
            logits = logits + mask_nNN.to(logits)[:, None]
        weights = logits.softmax(dim=-1)
        if self.training and self.dropout:
            weights = shared_dropout(weights, self.dropout, self.share)
        return _in_its_type((weights @ value).transpose(2, 3).flatten(3), out_weight, out_bias)

    def _split(self, values_BnND: Tensor) -> Tensor:
        return values_BnND.unflatten(-1, (self.heads, -1)).transpose(2, 3)
