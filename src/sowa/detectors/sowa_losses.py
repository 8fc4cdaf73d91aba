"""Losses of SOWA's maps, one level after the other: what a level keeps for its gradient is gone before the next.

B images, V levels, L tokens, D token width, E joint width, S states, H W pixels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sowa.nn.bank import unit
from sowa.nn.by_part import sum_by_part
from sowa.nn.cosine import projected_cosine
from sowa.nn.map_losses import map_losses
from sowa.nn.maps import to_grid
from sowa.types import ABNORMAL, NORMAL, Tokens

if TYPE_CHECKING:
    from sowa.detectors.sowa import Sowa

__all__ = ["LevelLosses"]


class LevelLosses:
    """Focal and dice over the levels of a detector. Keeps the square of the frozen projection, made once."""

    def __init__(self) -> None:
        self._square: tuple[Tensor, Tensor] | None = None

    def __call__(self, detector: "Sowa", tokens: Tokens, prototypes_BSE: Tensor, masks_BHW: Tensor) -> Tensor:
        """[2] focal and dice, summed over levels; gradients reach the adapters and the prototypes."""
        leaves = [prototypes_BSE, *(one for one in detector.adapters.parameters() if one.requires_grad)]
        matrix_DE = detector.backbone.joint_matrix()
        square_DD = None if matrix_DE is None else self._square_of(matrix_DE)

        def levels(own: Sequence[Tensor]) -> list[Callable[[], Tensor]]:
            one = partial(_of_level, detector, tokens, own[0], masks_BHW, square_DD)
            return [partial(one, level) for level in range(len(detector.taps))]

        return sum_by_part(levels, leaves)

    def _square_of(self, matrix_DE: Tensor) -> Tensor:
        if self._square is None or self._square[0] is not matrix_DE:
            with torch.no_grad(), torch.autocast(matrix_DE.device.type, enabled=False):
                self._square = (matrix_DE, matrix_DE.detach() @ matrix_DE.detach().T)
        return self._square[1]


def _of_level(
    detector: "Sowa", tokens: Tokens, prototypes_BSE: Tensor, masks_BHW: Tensor, square_DD: Tensor | None, level: int
) -> Tensor:
    adapted_BLD, backbone = detector.adapt_level(level, tokens.levels[level]), detector.backbone
    if square_DD is None:
        cosine_BSL = torch.einsum("ble,bse->bsl", unit(backbone.project(adapted_BLD)), prototypes_BSE)
    else:
        cosine_BSL = projected_cosine(adapted_BLD, prototypes_BSE, backbone.joint_matrix(), square_DD)
    logits_BShw = to_grid(cosine_BSL, tokens.grid) / detector.pixel_temperature
    difference_B1hw = logits_BShw[:, ABNORMAL, None] - logits_BShw[:, NORMAL, None]
    return torch.cat(map_losses(difference_B1hw, masks_BHW))
