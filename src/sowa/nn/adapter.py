"""Adapters: the trainable map of one level's tokens. B images, L tokens, D token width."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sowa.errors import ConfigError
from sowa.nn.attention import FrozenWindowAttention, partition, region_mask, reverse

__all__ = ["FrozenWeights", "LinearAdapter", "WindowAdapter", "plain_layers"]


class FrozenWeights(NamedTuple):
    """Attention weights of the tapped block: in_weight [3D, D], out_weight [D, D], out_bias [D]. Never trained."""

    in_weight: Tensor
    out_weight: Tensor
    out_bias: Tensor


def plain_layers(width: int, hidden: Sequence[int] | None, activation: type[nn.Module]) -> nn.Sequential:
    """Bias-free linear layers width -> hidden... -> width, activation between them; one layer without `hidden`."""
    sizes = [width, *(hidden or ()), width]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=False), activation()]
    return nn.Sequential(*layers[:-1])


def _in_their_type(tokens_BLD: Tensor, layers: nn.Sequential) -> Tensor:
    """The layers in the type of their weights, which may be a half; the result is of the type of the tokens."""
    return layers(tokens_BLD.to(layers[0].weight.dtype)).to(tokens_BLD.dtype)


class WindowBlock(nn.Module):
    """Window attention and a linear map, each with a residual and a LayerNorm after it (SOWA equation 3)."""

    def __init__(
        self,
        *,
        width: int,
        grid: tuple[int, int],
        window: int,
        shift: int,
        heads: int,
        value_only: bool,
        cpb_dim: int,
        dropout: float,
        hidden: Sequence[int] | None,
    ):
        super().__init__()
        whole = min(grid) <= window
        self.window, self.shift = (min(grid), 0) if whole else (window, shift)
        self.grid = grid
        self.padded = tuple(-(-side // self.window) * self.window for side in grid)
        self.attention = FrozenWindowAttention(
            window=self.window, heads=heads, value_only=value_only, cpb_dim=cpb_dim, dropout=dropout
        )
        self.norm_attention = nn.LayerNorm(width)
        self.norm_linear = nn.LayerNorm(width)
        self.linear = plain_layers(width, hidden, nn.GELU)
        self.register_buffer("mask", region_mask(grid, self.padded, self.window, self.shift), persistent=False)

    def forward(self, tokens_BLD: Tensor, frozen: FrozenWeights) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        tokens_BLD = tokens_BLD + self.norm_attention(self._attend(tokens_BLD, frozen))
        return tokens_BLD + self.norm_linear(_in_their_type(tokens_BLD, self.linear))

    def _attend(self, tokens_BLD: Tensor, frozen: FrozenWeights) -> Tensor:
        rows, columns = self.grid
        field = tokens_BLD.unflatten(1, self.grid)
        field = F.pad(field, (0, 0, 0, self.padded[1] - columns, 0, self.padded[0] - rows))
        field = torch.roll(field, shifts=(-self.shift, -self.shift), dims=(1, 2)) if self.shift else field
        windows = self.attention(partition(field, self.window), *frozen, self.mask)
        field = reverse(windows, self.window, *self.padded)
        field = torch.roll(field, shifts=(self.shift, self.shift), dims=(1, 2)) if self.shift else field
        return field[:, :rows, :columns].flatten(1, 2)


class WindowAdapter(nn.Module):
    """`depth` window blocks on one level; every second one shifts its windows by half a window.

    A window larger than the shorter side of the grid becomes that side; a grid that the window does not divide is
    padded, and nobody attends to the padding.
    """

    def __init__(
        self,
        *,
        width: int,
        grid: tuple[int, int],
        window: int,
        depth: int = 1,
        heads: int = 8,
        value_only: bool = True,
        cpb_dim: int = 64,
        dropout: float = 0.1,
        hidden: Sequence[int] | None = None,
    ):
        super().__init__()
        for name, value in (("window", window), ("depth", depth), ("heads", heads)):
            if value < 1:
                raise ConfigError(f"{name}={value} is not usable: give a whole number of at least 1")
        if width % heads:
            raise ConfigError(f"heads={heads} does not divide the token width {width}: choose a divisor of {width}")
        self.blocks = nn.ModuleList(
            WindowBlock(
                width=width,
                grid=grid,
                window=window,
                shift=window // 2 if number % 2 else 0,
                heads=heads,
                value_only=value_only,
                cpb_dim=cpb_dim,
                dropout=dropout,
                hidden=hidden,
            )
            for number in range(depth)
        )

    def forward(self, tokens_BLD: Tensor, frozen: FrozenWeights) -> Tensor:
        """[B, L, D] raw tokens of the tapped block -> [B, L, D] adapted tokens."""
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, frozen)
        return tokens_BLD

    def with_halves(self, dtype: torch.dtype) -> "WindowAdapter":
        """A copy whose linear part multiplies in `dtype`, for scoring; norms and softmax stay as they are."""
        twin = copy.deepcopy(self)
        for block in twin.blocks:
            block.linear.to(dtype)
        return twin


class LinearAdapter(nn.Module):
    """A bias-free linear map per level, without attention and without residual (the paper's ablation)."""

    def __init__(self, *, width: int, hidden: Sequence[int] | None = None):
        super().__init__()
        self.layers = plain_layers(width, hidden, nn.ReLU)

    def forward(self, tokens_BLD: Tensor, frozen: FrozenWeights | None = None) -> Tensor:
        """[B, L, D] -> [B, L, D]; the frozen weights are not used."""
        return _in_their_type(tokens_BLD, self.layers)

    def with_halves(self, dtype: torch.dtype) -> "LinearAdapter":
        """A copy that multiplies in `dtype`, for scoring."""
        twin = copy.deepcopy(self)
        twin.layers.to(dtype)
        return twin
