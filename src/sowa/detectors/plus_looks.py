"""The sizes at which SOWA Plus looks at an image."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.errors import ConfigError
from sowa.nn.bank import unit

__all__ = ["LEAST_GRID", "description", "shrunk", "smaller_towers", "tapped"]

LEAST_GRID = 14
"""A half-size grid with fewer rows than this is left out, and with it the quarter."""


def smaller_towers(
    backbone: Backbone, half: bool | Literal["auto"], quarter: bool | Literal["auto"]
) -> tuple[Backbone, ...]:
    """The backbone at half and at a quarter of its image size, as far as they are wanted; weights are shared.

    ConfigError for a quarter without a half, or of fewer than two rows of tokens.
    """
    for name, value in {"half": half, "quarter": quarter}.items():
        if value not in (True, False, "auto"):
            raise ConfigError(f"{name}={value} cannot be used: choose true, false or auto")
    rows = backbone.grid[0]
    fine = rows // 2 >= LEAST_GRID
    wanted = [rows // 2] if half is True or (half == "auto" and fine) else []
    if quarter is True and not (wanted and rows // 4 >= 2):
        raise ConfigError(
            f"quarter=true needs a look at half size and 8 rows of tokens; half={half}, {rows} rows at"
            f" {backbone.image_size} px: choose quarter=auto"
        )
    if wanted and (quarter is True or (quarter == "auto" and fine)):
        wanted.append(rows // 4)
    return tuple(backbone.at_size(own * backbone.patch) for own in wanted)


def shrunk(images_B3HW: Tensor, size: int) -> Tensor:
    """The images at a tower's size: bicubic with antialiasing, from the full size."""
    if images_B3HW.shape[-1] == size:
        return images_B3HW
    small = F.interpolate(images_B3HW, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(0, 1)


def tapped(tower: Backbone, images_B3HW: Tensor, taps: Iterable[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Block -> (class token [B, D], patch tokens [B, L, D]) after the tower's final norm, of the images at its size."""
    wanted = sorted({*taps})
    return dict(zip(wanted, tower.encode_normed(shrunk(images_B3HW, tower.image_size), wanted), strict=True))


def description(cls_BD: Tensor, patches_BLD: Tensor) -> Tensor:
    """[B, 2D] of whole images: mean patch token and class token, each of unit length."""
    return torch.cat((unit(patches_BLD.float().mean(dim=1)), unit(cls_BD.float())), dim=1)
