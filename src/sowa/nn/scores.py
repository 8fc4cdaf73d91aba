"""Small score kernels that several papers share. B images, L tokens, E joint width, S states, V levels, M bank rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sowa.nn.bank import nearest_distance, unit
from sowa.types import ABNORMAL, NORMAL

__all__ = ["abnormal_probability", "level_distances", "parallel"]


def abnormal_probability(features: Tensor, prototypes_SE: Tensor, scale: float) -> Tensor:
    """[..., E] -> [...] in 0..1: softmax over the two states of scale * cosine, abnormal component.

    Prototypes may also be [..., S, E], one pair per feature. Neither side needs unit length.
    """
    cosines = (unit(features).unsqueeze(-2) * unit(prototypes_SE)).sum(dim=-1)
    return torch.sigmoid(scale * (cosines[..., ABNORMAL] - cosines[..., NORMAL]))


def level_distances(levels: Sequence[Tensor], bank_VMD: Sequence[Tensor] | Tensor) -> Tensor:
    """[B, V, L] halved cosine distance (1 - max cosine) / 2 of each level's tokens to its own bank, in 0..1."""
    pairs = zip(levels, bank_VMD, strict=True)
    return torch.stack([nearest_distance(level, bank).clamp(0, 2) / 2 for level, bank in pairs], dim=1)


def parallel(one: Tensor, other: Tensor) -> Tensor:
    """1 / (1 / a + 1 / b) of two tensors >= 0, as of resistors in parallel: at most the smaller, 0 where either is."""
    return one * other / (one + other).clamp(min=torch.finfo(one.dtype).tiny)
