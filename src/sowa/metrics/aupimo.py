"""AUPIMO (arXiv 2401.01984): one overlap score per anomalous image, at false positive rates set by normal images."""

import math
from typing import Any

import numpy as np
import torch

from sowa.errors import ConfigError
from sowa.metrics.curve import map_pairs

__all__ = ["aupimo"]


def aupimo(maps: Any, masks: Any, bounds: tuple[float, float] = (1e-5, 1e-4), thresholds: int = 5000) -> np.ndarray:
    """Recall inside each image's mask, averaged over the logarithm of the false positive rate between two bounds.

    maps, masks: [N, H, W] or lists of [h, w]; a mask's defect is where it is > 0. The rate at a threshold is the mean
    over images with an empty mask of their share of pixels with score >= threshold, so the anomalous images cannot
    choose where they are judged. Returns float64 [N] in 0..1; NaN, meaning undefined, for an image with an empty mask,
    and for all images where there is no normal image or the bounds fall between two neighbouring rates.

    Follows the published implementation: equally spaced thresholds over the scores of the normal images in the dtype
    of the maps, the nearest available rate taken for each bound, trapezoid rule. Thresholds so few that the range
    between the bounds holds a handful of points make it coarse; with small images raise the bounds.
    """
    lower, upper = bounds
    if not 0 < lower < upper <= 1:
        raise ConfigError(f"AUPIMO bounds {lower}, {upper}: give two false positive rates, 0 < lower < upper <= 1")
    if thresholds < 2:
        raise ConfigError(f"AUPIMO with {thresholds} thresholds: give at least 2, such as 5000")
    pairs = list(map_pairs(maps, masks))
    normal = [score_map for score_map, mask in pairs if score_map.size and not mask.any()]
    score_N = np.full(len(pairs), np.nan)
    if not normal:
        return score_N
    threshold_T = _spread(normal, thresholds)
    rate_T = np.mean([_share(score_map, threshold_T) for score_map in normal], axis=0)
    first, last = (int(np.argmin(np.abs(rate_T - bound))) for bound in (upper, lower))
    if first == last:
        return score_N
    part = slice(first, last + 1)  # rates fall along it, and stay above 0: the last threshold is a normal score
    step = -np.diff(np.log(rate_T[part])) / (2 * math.log(upper / lower))
    for index, (score_map, mask) in enumerate(pairs):
        if mask.any():
            recall = _share(score_map[mask], threshold_T)[part]
            score_N[index] = np.clip(np.sum(step * (recall[1:] + recall[:-1])), 0, 1)
    return score_N


def _spread(normal: list[np.ndarray], thresholds: int) -> np.ndarray:
    dtype = torch.from_numpy(np.empty(0, np.result_type(*normal))).dtype
    low, high = min(float(m.min()) for m in normal), max(float(m.max()) for m in normal)
    return torch.linspace(low, high, thresholds, dtype=dtype).numpy()  # its rounding is the published one


def _share(scores: np.ndarray, threshold_T: np.ndarray) -> np.ndarray:
    return (scores.size - np.searchsorted(np.sort(scores, axis=None), threshold_T, side="left")) / scores.size
