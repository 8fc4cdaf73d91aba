"""Resampling and smoothing as matrices: rows @ image @ columns.T says the same in every runtime.

Resize operators differ between runtimes in corners, borders and antialiasing; a product of two small matrices does not.
Each matrix is read off torch's own operator, applied to the unit vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.nn.maps import Border, gaussian_smooth

__all__ = ["apart", "enlarging", "shrinking", "smoothing"]


def shrinking(size: int, wanted: int) -> Tensor:
    """[wanted, size]: bicubic with antialiasing, as pictures are brought to a smaller tower."""
    return _columns(size, wanted, mode="bicubic", antialias=True, align_corners=False)


def enlarging(size: int, wanted: int, *, nearest: bool = False) -> Tensor:
    """[wanted, size]: bilinear without aligned corners, or by repetition."""
    if nearest:
        return _columns(size, wanted, mode="nearest")
    return _columns(size, wanted, mode="bilinear", align_corners=False)


def smoothing(size: int, sigma: float, border: Border = "symmetric") -> Tensor:
    """[size, size]: the Gaussian of score maps along one side; the unit matrix where sigma is 0."""
    if not sigma > 0:
        return torch.eye(size)
    columns_NH1 = torch.eye(size, dtype=torch.float64)[:, :, None]  # along a side of one pixel nothing is smoothed
    return gaussian_smooth(columns_NH1, sigma, border)[:, :, 0].T.float().contiguous()


def apart(rows_Hh: Tensor, columns_Ww: Tensor, maps_Bhw: Tensor) -> Tensor:
    """[..., h, w] -> [..., H, W]: one matrix along each side."""
    return rows_Hh @ maps_Bhw @ columns_Ww.T


def _columns(size: int, wanted: int, **options) -> Tensor:
    """Column j is what becomes of the j-th unit vector; along the other side, which keeps its size, nothing changes."""
    units_11ss = torch.eye(size)[None, None]
    return F.interpolate(units_11ss, (wanted, size), **options)[0, 0].contiguous()
