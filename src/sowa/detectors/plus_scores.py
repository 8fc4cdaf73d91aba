"""From what the levels of SOWA Plus say of an image to one score. B images, V levels, L tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sowa.detectors.plus_memory import quarters
from sowa.nn.maps import top_mean

__all__ = ["fused", "level_score", "quarter_scores", "spread_of"]


def level_score(distance_BL: Tensor, fractions: Sequence[float], *, parts: int = 1) -> Tensor:
    """[B] of one level: mean of the largest `fractions` of an image's tokens; of a part of an image as many tokens as
    of a whole one."""
    return torch.stack([top_mean(distance_BL, min(1.0, parts * share)) for share in fractions]).mean(dim=0)


def quarter_scores(own_1L: Tensor, grid: tuple[int, int], fractions: Sequence[float]) -> Tensor:
    """[4] scores of the quarters of a single image, as if each were one: its only hint of a spread."""
    parts = quarters(grid, own_1L.device)
    return torch.stack([level_score(own_1L[:, quarter_L], fractions, parts=4)[0] for quarter_L in parts])


def spread_of(parts_KV: Tensor) -> Tensor:
    """[V, 2] mean and spread of raw scores of normal images that were not seen; a single one has no spread."""
    spread = parts_KV.std(dim=0) if len(parts_KV) > 1 else torch.zeros_like(parts_KV[0])
    return torch.stack((parts_KV.mean(dim=0), spread), dim=1)


def fused(
    scores_BV: Tensor,
    distances_B: Tensor,
    scale: Tensor,
    weights: Sequence[float],
    *,
    floor: float,
    global_weight: float,
) -> Tensor:
    """[B]: weighted sum over the levels, plus the global term where it has a scale; each in spreads of the normal
    images, `floor` of their mean added to each spread. scale: [V + 1, 2] of the levels and of the global term."""
    standard_BV = (scores_BV - scale[:-1, 0]) / (scale[:-1, 1] + floor * scale[:-1, 0]).clamp(min=1e-12)
    score_B = (standard_BV * standard_BV.new_tensor(weights)).sum(dim=1)
    middle, spread = scale[-1]
    if global_weight and middle > 0:
        score_B = score_B + global_weight * (distances_B - middle) / (spread + floor * middle)
    return score_B
