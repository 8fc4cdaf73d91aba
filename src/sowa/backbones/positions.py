"""Trained positions at another grid."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resample_positions"]


def resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """[1 + L, D] -> [1 + rows * columns, D]: the class row is kept, the square grid is resampled (bicubic)."""
    head_1D, body_LD = positions[:1], positions[1:]
    side = round(len(body_LD) ** 0.5)
    if (side, side) == tuple(grid):
        return positions
    planes = body_LD.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([head_1D, planes.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)])
