"""One Gaussian per place of the grid, from a few images (PaDiM section 3.2).

Shapes: K shots, B images, L tokens, D token width, R = min(K - 1, D) directions in which K images can differ.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Gaussian", "fit_gaussian", "mahalanobis"]

NOTHING = 1e-14
"""Share of the largest squared length below which a direction is rounding."""


class Gaussian(NamedTuple):
    """Mean and sample covariance (divisor K - 1) of every place; the covariance by directions, never as a matrix."""

    mean_LD: Tensor
    axes_LRD: Tensor
    """Orthonormal rows; the covariance is zero across them."""
    variance_LR: Tensor


def fit_gaussian(tokens_KLD: Tensor) -> Gaussian:
    """Computed in float64; the result has the tokens' type. One image has no covariance: R is 0."""
    shots, _, width = tokens_KLD.shape
    exact = tokens_KLD.double()
    mean_LD = exact.mean(dim=0)
    axes_LRD, spread_LR = _principal((exact - mean_LD).transpose(0, 1), min(shots - 1, width))
    variance_LR = spread_LR / max(shots - 1, 1)
    return Gaussian(*(part.to(tokens_KLD.dtype).contiguous() for part in (mean_LD, axes_LRD, variance_LR)))


def _principal(rows_LKD: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """([L, R, D] orthonormal axes, [L, R] squared lengths along them), largest first; an axis without length is zero.

    By the K x K products of the rows, which is a hundred times faster than thousands of decompositions of K x D. What
    that loses in orthogonality where lengths differ much, one Cholesky step restores.
    """
    _, mixing_LKK = torch.linalg.eigh(rows_LKD @ rows_LKD.mT)
    along_LRD = (mixing_LKK.flip(-1).mT @ rows_LKD)[:, :rank]
    square_LR = along_LRD.square().sum(dim=-1)
    real_LR = square_LR > NOTHING * square_LR.amax(dim=-1, keepdim=True) if rank else square_LR > 0
    unit_LRD = (
        along_LRD * torch.where(real_LR, square_LR.clamp(min=torch.finfo(square_LR.dtype).tiny).rsqrt(), 0.0)[..., None]
    )
    product_LRR = unit_LRD @ unit_LRD.mT + torch.diag_embed((~real_LR).to(unit_LRD.dtype))
    axes_LRD = torch.linalg.solve_triangular(torch.linalg.cholesky(product_LRR), unit_LRD, upper=False)
    return axes_LRD, square_LR


def mahalanobis(tokens_BLD: Tensor, gaussian: Gaussian, eps: float) -> Tensor:
    """[B, L] sqrt(d^T (S + eps I)^-1 d) of the distance d to the mean, without a D x D matrix.

    With S = sum of v_r a_r a_r^T the square is sum of (a_r d)^2 / (v_r + eps) plus |rest of d|^2 / eps: the Woodbury
    identity without its difference of two large numbers. With R = 0 it is the Euclidean distance over sqrt(eps).
    """
    delta_BLD = tokens_BLD - gaussian.mean_LD
    along_BLR = torch.einsum("bld,lrd->blr", delta_BLD, gaussian.axes_LRD)
    rest_BLD = delta_BLD - torch.einsum("blr,lrd->bld", along_BLR, gaussian.axes_LRD)
    square_BL = (along_BLR.square() / (gaussian.variance_LR + eps)).sum(dim=-1) + rest_BLD.square().sum(dim=-1) / eps
    return square_BL.sqrt()
