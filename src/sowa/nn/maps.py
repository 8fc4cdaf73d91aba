"""From the token grid to pixels: upsampling, smoothing, and statistics of score maps.

Shapes: B images, h w grid, H W pixels.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Border",
    "aligned_matrix",
    "enlarge",
    "enlarging_matrix",
    "gaussian_smooth",
    "to_grid",
    "top_mean",
    "upsample",
    "upsample_nearest",
]

Border = Literal["symmetric", "reflect"]
"""What lies beyond the edge of a map: its mirror about the edge of the first sample, or about its centre."""


def to_grid(values_BL: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, ..., L] row-major token values -> [B, ..., h, w]."""
    return values_BL.unflatten(-1, grid)


def upsample(maps_BChw: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bilinear upsampling of [B, C, h, w] (or [B, h, w]) to `size` pixels.

    The papers differ: SOWA and April-GAN align the corners, the other methods do not.
    """
    flat = maps_BChw.dim() == 3
    maps = maps_BChw.unsqueeze(1) if flat else maps_BChw
    out = F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
    return out.squeeze(1) if flat else out


def upsample_nearest(maps_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] (or [B, h, w]) enlarged by repeating values: a pixel takes that of floor(place * h / H)."""
    flat = maps_BChw.dim() == 3
    out = F.interpolate(maps_BChw.unsqueeze(1) if flat else maps_BChw, size=size, mode="nearest")
    return out.squeeze(1) if flat else out


@lru_cache(maxsize=32)
def _smoothing_matrix(length: int, sigma: float, border: Border) -> Tensor:
    """[length, length] matrix of a 1-D Gaussian with the kernel radius of `scipy.ndimage.gaussian_filter`.

    For any length, also one shorter than the kernel. Built in float64 on the CPU.
    """
    radius = int(4.0 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    period, fold = (2 * length, 1) if border == "symmetric" else (max(2 * length - 2, 1), 2)
    source = (torch.arange(length)[:, None] + offsets.long()[None, :]) % period
    source = torch.where(source < length, source, 2 * length - fold - source)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, source, kernel.expand(length, -1).contiguous())


def gaussian_smooth(maps_BHW: Tensor, sigma: float, border: Border = "symmetric") -> Tensor:
    """Gaussian smoothing of [..., H, W] in pixels, equal to SciPy's `gaussian_filter` with its default border.

    `sigma` <= 0 returns the maps unchanged. `border="reflect"` is the rule of torch, kornia and anomalib.
    """
    if not sigma > 0:
        return maps_BHW
    height, width = maps_BHW.shape[-2:]
    rows = _smoothing_matrix(height, float(sigma), border).to(maps_BHW)
    columns = rows if height == width else _smoothing_matrix(width, float(sigma), border).to(maps_BHW)
    return rows @ maps_BHW @ columns.T


@lru_cache(maxsize=32)
def enlarging_matrix(grid: int, size: int, sigma: float, border: Border = "symmetric") -> Tensor:
    """[size, grid] float32 for one side of `enlarge`: bilinear without aligned corners, then the Gaussian."""
    bilinear_hH = F.interpolate(torch.eye(grid, dtype=torch.float64)[None], size=size, mode="linear")[0]
    smooth_HH = _smoothing_matrix(size, sigma, border) if sigma > 0 else torch.eye(size, dtype=torch.float64)
    return (smooth_HH @ bilinear_hH.T).float()


@lru_cache(maxsize=32)
def aligned_matrix(grid: int, size: int) -> Tensor:
    """[size, grid] float64 for one side of `upsample` with aligned corners."""
    eye = torch.eye(grid, dtype=torch.float64)[None]
    return F.interpolate(eye, size=size, mode="linear", align_corners=True)[0].T.contiguous()


def enlarge(grid_Bhw: Tensor, size: tuple[int, int], sigma: float, border: Border = "symmetric") -> Tensor:
    """[..., h, w] -> [..., H, W]: `upsample` without aligned corners and `gaussian_smooth`, which are one matrix along
    each side; some forty times as fast from 32 x 32 to 448 x 448."""
    sides = zip(grid_Bhw.shape[-2:], size, strict=True)
    rows_Hh, columns_Ww = (enlarging_matrix(*side, float(sigma), border).to(grid_Bhw) for side in sides)
    return rows_Hh @ grid_Bhw @ columns_Ww.T


def top_mean(values_BN: Tensor, fraction: float) -> Tensor:
    """[B, ...] -> [B]: mean of the largest `fraction` of an image's values, at least one value."""
    flat = values_BN.flatten(1)
    count = max(1, math.ceil(fraction * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(dim=1)
