"""Tokens whose levels have grids of their own, and one view of all tokens as maps.

B images, V levels, L tokens, D token width, h w grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sowa.backbones.base import Backbone, spread_taps
from sowa.errors import ConfigError
from sowa.types import Tokens

__all__ = ["PyramidTokens", "level_maps", "quarter_taps"]


@dataclass(frozen=True, slots=True)
class PyramidTokens(Tokens):
    """What a convolutional network says: `cls` is its pooled vector, each level has its own L, D and grid.

    `grid` is the finest of `grids`.
    """

    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of each level, in the order of the taps."""

    def rows(self, rows: slice) -> "PyramidTokens":
        """Tokens of some of the images."""
        return PyramidTokens(self.cls[rows], tuple(level[rows] for level in self.levels), self.grid, self.grids)

    def pick(self, places: "Sequence[int]") -> "PyramidTokens":
        """Some of the levels, by their place."""
        grids = tuple(self.grids[place] for place in places)
        finest = max(grids, key=lambda grid: grid[0] * grid[1], default=self.grid)
        return PyramidTokens(self.cls, tuple(self.levels[place] for place in places), finest, grids)

    @staticmethod
    def join(parts: "Sequence[PyramidTokens]") -> "PyramidTokens":
        """Tokens of several batches as one batch."""
        levels = tuple(torch.cat(same) for same in zip(*(part.levels for part in parts), strict=True))
        return PyramidTokens(torch.cat([part.cls for part in parts]), levels, parts[0].grid, parts[0].grids)

    @staticmethod
    def of_maps(pooled_BE: Tensor, maps: Sequence[Tensor]) -> "PyramidTokens":
        """From a network's own [B, D, h, w] maps; nothing is copied."""
        grids = tuple((one.shape[-2], one.shape[-1]) for one in maps)
        levels = tuple(one.flatten(2).transpose(1, 2) for one in maps)
        return PyramidTokens(pooled_BE, levels, max(grids, key=lambda grid: grid[0] * grid[1]), grids)


def level_maps(tokens: Tokens) -> list[Tensor]:
    """One [B, D, h, w] per level, float32 at least; levels of plain tokens share one grid."""
    grids = tokens.grids if isinstance(tokens, PyramidTokens) else (tokens.grid,) * len(tokens.levels)
    return [
        level_BLD.to(torch.promote_types(level_BLD.dtype, torch.float32)).transpose(1, 2).unflatten(2, grid)
        for level_BLD, grid in zip(tokens.levels, grids, strict=True)
    ]


def quarter_taps(backbone: Backbone, taps: Sequence[int] | None, quarters: slice) -> tuple[int, ...]:
    """The taps asked for, else those at some quarters of the tower's depth.

    The methods for convolutional networks name layers 1 to 4, which are their taps. In a transformer of 12 blocks the
    same quarters are blocks 3, 6, 9 and 12.
    """
    if taps is not None:
        if not len(taps):
            raise ConfigError(
                "taps=[] reads nothing of the backbone: give at least one tap, or null for the method's own"
            )
        return tuple(taps)
    spread = spread_taps(backbone.depth)
    return spread[quarters] or spread
