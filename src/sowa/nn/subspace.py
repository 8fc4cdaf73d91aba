"""What normal tokens have in common, as a linear subspace; how far a token lies outside it.

N tokens, B images, L tokens of an image, D token width, R directions kept.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "Subspace", "merged", "moments", "residual", "subspace", "widened", "without"]


class Moments(NamedTuple):
    """Count, sum and sum of outer products of tokens, in float64: they add and subtract exactly enough to leave
    images out one after the other."""

    count: int
    sum_D: Tensor
    outer_DD: Tensor


class Subspace(NamedTuple):
    """Mean and the orthonormal directions of largest variance."""

    mean_D: Tensor
    basis_DR: Tensor
    """After those of largest variance it may have further ones (`widened`)."""
    variance_R: Tensor
    """Along each direction, largest first."""


def moments(tokens_NLD: Tensor) -> Moments:
    """Of all tokens of [..., D]."""
    rows_ND = tokens_NLD.flatten(0, -2).double()
    return Moments(len(rows_ND), rows_ND.sum(dim=0), rows_ND.T @ rows_ND)


def merged(parts: list[Moments]) -> Moments:
    """Of the tokens of all parts together."""
    return Moments(
        sum(part.count for part in parts),
        torch.stack([part.sum_D for part in parts]).sum(dim=0),
        torch.stack([part.outer_DD for part in parts]).sum(dim=0),
    )


def without(whole: Moments, part: Moments) -> Moments:
    """Of the tokens that are not in `part`."""
    return Moments(whole.count - part.count, whole.sum_D - part.sum_D, whole.outer_DD - part.outer_DD)


def subspace(of: Moments, explained: float) -> Subspace:
    """The fewest directions that hold the share `explained` of the variance; float32.

    The sign of a direction is fixed (its largest entry is positive), so that the same tokens give the same bits.
    """
    mean_D = of.sum_D / of.count
    covariance_DD = of.outer_DD / of.count - mean_D[:, None] * mean_D[None, :]
    variance_D, axes_DD = torch.linalg.eigh((covariance_DD + covariance_DD.T) / 2)
    variance_D, axes_DD = variance_D.flip(0).clamp(min=0), axes_DD.flip(1)
    share_D = variance_D.cumsum(0) / variance_D.sum().clamp(min=1e-300)
    rank = min(int((share_D < explained).sum()) + 1, len(variance_D) - 1)
    basis_DR = axes_DD[:, :rank]
    largest_1R = basis_DR.abs().argmax(dim=0, keepdim=True)
    basis_DR = basis_DR * basis_DR.gather(0, largest_1R).sign()
    return Subspace(mean_D.float(), basis_DR.float().contiguous(), variance_D[:rank].float())


def widened(space: Subspace, axes_DN: Tensor) -> Subspace:
    """The subspace with further directions [D, N] in it: `basis_DR` has N more columns, orthonormal to the others, or
    zeros where a direction lay in the subspace already; `variance_R` stays that of the first R."""
    basis_DR = space.basis_DR.double()
    for axis_D in axes_DN.to(basis_DR).unbind(1):
        length = axis_D.norm()
        for _ in range(2):  # once more for what rounding left
            axis_D = axis_D - basis_DR @ (basis_DR.T @ axis_D)
        left = axis_D.norm()
        axis_D = axis_D / left if left > 1e-6 * length else torch.zeros_like(axis_D)
        basis_DR = torch.cat((basis_DR, axis_D[:, None]), dim=1)
    return space._replace(basis_DR=basis_DR.float())


def residual(tokens_BLD: Tensor, space: Subspace) -> Tensor:
    """[B, L] squared distance of each token to the subspace, at least 0."""
    centred = tokens_BLD.float() - space.mean_D
    inside = centred @ space.basis_DR
    return ((centred * centred).sum(dim=-1) - (inside * inside).sum(dim=-1)).clamp(min=0)
