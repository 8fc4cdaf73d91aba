"""The memory's map of SOWA Plus. B images, V levels, L tokens, h w grid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sowa.nn.maps import enlarge, to_grid

__all__ = ["HEAT_FRACTION", "heat"]

HEAT_FRACTION = 0.01
"""Of a map's spots, the hottest ones, whose mean says how hot it is."""


def heat(
    tokens_VBL: Sequence[Tensor],
    network_VBL: Sequence[Tensor],
    scale_V2: Tensor,
    grid: tuple[int, int],
    *,
    share: float,
) -> tuple[Tensor, Tensor]:
    """([B, V, h, w] distances of a transformer's tokens, [B, h, w] their mean and `share` of the mean of a network's).

    scale_V2: mean and spread of normal tokens, of the transformer's levels and then of the network's, which have square
    grids of their own; both results are in these spreads.
    """
    spreads = [
        (own_BL - middle) / width.clamp(min=1e-12)
        for own_BL, (middle, width) in zip([*tokens_VBL, *network_VBL], scale_V2, strict=True)
    ]
    count = len(tokens_VBL)
    levels_BVhw = torch.stack([to_grid(own_BL, grid) for own_BL in spreads[:count]], dim=1)
    heat_Bhw = levels_BVhw.mean(dim=1)
    for own_BL in spreads[count:]:
        side = round(own_BL.shape[-1] ** 0.5)
        heat_Bhw = heat_Bhw + share / len(network_VBL) * enlarge(to_grid(own_BL, (side, side)), grid, 0)
    return levels_BVhw, heat_Bhw
