"""What SOWA Plus looks at: one tower at several sizes, a small network beside it, and the tokens of those who judge.

B images, V levels, L tokens, D token width, H W pixels.
"""

import math
from collections.abc import Hashable
from typing import Any

from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.base import Detector
from sowa.detectors.plus_head import TrainedHead
from sowa.detectors.plus_looks import description, shrunk, tapped
from sowa.detectors.plus_network import MAPPED, Network
from sowa.detectors.plus_opinion import Opinion
from sowa.detectors.plus_words import Words
from sowa.types import Tokens

__all__ = ["SowaPlusTowers"]

SPREAD = 0.8
"""Of a score, see `SowaPlusTowers.expected_spread`."""


class SowaPlusTowers(Detector):
    """The tokens of `SowaPlus`; what it learns and says of them is its own."""

    taps: tuple[int, ...]
    global_tap: int
    smaller: tuple[Backbone, ...]
    weights: tuple[float, ...]
    """Of the sizes in the score."""
    trained: TrainedHead | None
    opinion: Opinion | None
    words: Words | None
    network: Network | None
    network_weight: float
    network_map: float

    def _apply(self, *words: Any, **options: Any) -> "SowaPlusTowers":
        """Moved or cast: the smaller towers, no submodules, are made again of the weights where they are now."""
        super()._apply(*words, **options)
        self.__dict__["smaller"] = tuple(self.backbone.at_size(tower.image_size) for tower in self.smaller)
        return self

    def _on(self, backbone: Backbone) -> "SowaPlusTowers":
        twin = super()._on(backbone)
        twin.__dict__["smaller"] = tuple(backbone.at_size(tower.image_size) for tower in self.smaller)
        return twin

    def encoding(self) -> Hashable:
        seen = None if self.network is None else bytes(self.network.id_8.tolist())
        return (type(self), id(self.backbone), self.taps, self.global_tap, self.sizes, self._head_taps, seen)

    @property
    def _head_taps(self) -> tuple[int, ...]:
        return () if self.trained is None else self.trained.taps

    @property
    def sizes(self) -> int:
        """How many image sizes are looked at."""
        return 1 + len(self.smaller)

    @property
    def towers(self) -> tuple[Backbone, ...]:
        """The backbone at its own size, then the smaller ones."""
        return (self.backbone, *self.smaller)

    @property
    def described(self) -> int:
        """Which of `towers` the global term is of: the half size where there is one."""
        return min(1, len(self.smaller))

    def encode(self, images_B3HW: Tensor) -> PyramidTokens:
        """Levels of the full size in the order of the taps, those of the smaller sizes, those of the network, and those
        of the head at each size, and of the words.
        `cls` [B, 2D] is the global description, at half size where there is one: mean patch token and class token of
        the global tap, each of unit length."""
        images = images_B3HW if images_B3HW.is_floating_point() else images_B3HW.float() / 255
        levels, grids, described = [], [], images.new_empty(0)
        heads: list[tuple[Tensor, tuple[int, int]]] = []
        for number, tower in enumerate(self.towers):
            more = [self.global_tap] if number == self.described else []
            found = tapped(tower, images, (*self.taps, *self._head_taps, *more))
            levels += [found[tap][1] for tap in self.taps]
            grids += [tower.grid] * len(self.taps)
            heads += [(found[tap][1], tower.grid) for tap in self._head_taps]
            if number == self.described:
                described = description(*found[self.global_tap])
        if self.network is not None:
            seen = self.network.encode(shrunk(images, Network.size_beside(self.backbone.image_size)))
            levels, grids = [*levels, *(level for level, _ in seen)], [*grids, *(grid for _, grid in seen)]
        if self.words is not None:
            heads += zip(*self.words.encode(images), strict=True)
        levels, grids = [*levels, *(level for level, _ in heads)], [*grids, *(grid for _, grid in heads)]
        return PyramidTokens(described, tuple(levels), self.backbone.grid, tuple(grids))

    @property
    def level_weights(self) -> list[float]:
        """Of each level of the memory in the score."""
        own = [weight / len(self.taps) for weight in self.weights for _ in self.taps]
        return own if self.network is None else own + [self.network_weight / self.network.levels] * self.network.levels

    @property
    def expected_spread(self) -> float:
        """Of good images' scores: `SPREAD` for one look; looks are summed as if each erred by itself."""
        return SPREAD * math.hypot(*self.weights, *([] if self.network is None else [self.network_weight]))

    @property
    def spaces(self) -> int:
        """How many levels the memory is of."""
        return self.sizes * len(self.taps) + (0 if self.network is None else self.network.levels)

    @property
    def mapped(self) -> list[int]:
        """Places of the network's levels that have a share in the map."""
        first = self.sizes * len(self.taps)
        return [first + place for place in MAPPED] if self.network is not None and self.network_map else []

    def _memory_levels(self, tokens: Tokens) -> list[tuple[Tensor, tuple[int, int]]]:
        """Levels and grids that the memory is of."""
        return list(zip(tokens.levels[: self.spaces], tokens.grids[: self.spaces], strict=True))
