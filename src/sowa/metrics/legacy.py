"""The papers' own arithmetic, for numbers comparable with theirs; nothing here is a default anywhere.

`aupro_sowa` and `aupro_april` are the AUPRO of the SOWA and APRIL-GAN reference code. They use 200 equally spaced
thresholds, so they depend on the scale of the scores: a strictly increasing transform changes them, and they miss
whatever lies between the last kept rate and the limit. `sowa.metrics.functional.aupro` does neither.

`minmax_over_set` and `paper_image_score` are *transductive*: the score of an image depends on the other images of its
category's test set. A table that uses them must say so.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sowa.errors import DataError
from sowa.metrics.curve import check_limit, map_pairs, read_scores, regions

__all__ = ["aupro_april", "aupro_sowa", "linear_thresholds", "minmax_over_set", "paper_image_score"]

STEPS = 200


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What each of T thresholds calls anomalous (score > threshold)."""

    false_NT: np.ndarray
    """Normal pixels above the threshold, for each image."""
    normal_N: np.ndarray
    """Normal pixels of each image."""
    overlap_T: np.ndarray
    """Share of a region above the threshold, averaged over all regions; NaN without regions."""


def aupro_sowa(maps: Any, masks: Any, limit: float = 0.3) -> float:
    """Variant A: the false positive rate is the mean over images, normal ones included, of each image's own rate.

    maps, masks: [N, H, W] or lists of [h, w]; maps are read as float32. Only rates strictly below `limit` are kept,
    then stretched to 0..1 before the trapezoid rule: no anchor at (0, 0), no interpolation at the limit.
    NaN, meaning undefined, where the reference fails or divides 0 by 0: no region, an image without a normal pixel,
    a constant map, or fewer than two distinct rates below the limit.
    """
    check_limit(limit)
    sweep = _sweep(maps, masks)
    if sweep.normal_N.size == 0 or not sweep.normal_N.all():
        return float("nan")
    rate_TN = np.ascontiguousarray((sweep.false_NT / sweep.normal_N[:, None]).T)  # adds up as the mean of a list does
    return _stretched_area(rate_TN.mean(axis=1), sweep, limit)


def aupro_april(maps: Any, masks: Any, limit: float = 0.3) -> float:
    """Variant B: as `aupro_sowa`, with the false positive rate pooled over all normal pixels of the set."""
    check_limit(limit)
    sweep = _sweep(maps, masks)
    normal = sweep.normal_N.sum()
    if normal == 0:
        return float("nan")
    return _stretched_area(sweep.false_NT.sum(axis=0) / normal, sweep, limit)


def linear_thresholds(maps: Any) -> np.ndarray:
    """From the lowest score up, in steps of a 200th of the range, the highest excluded: float64 [T], T = 200.

    The ends, the step and the number of steps are computed in float32, as the references' maps make NumPy do; the
    rounding makes T 201 now and then, there as here. A constant map has none.
    """
    maps = [read_scores(score_map).astype(np.float32, copy=False) for score_map in maps]
    maps = [score_map for score_map in maps if score_map.size]
    if not maps:
        return np.empty(0)
    low, high = min(score_map.min() for score_map in maps), max(score_map.max() for score_map in maps)
    with np.errstate(over="ignore"):
        step = (high - low) / np.float32(STEPS)
    return np.arange(low, high, step, dtype=np.float64) if 0 < step < np.inf else np.empty(0)


def minmax_over_set(values: ArrayLike) -> np.ndarray:
    """Transductive: (value - lowest) / (highest - lowest) over one category's test set, float64 [N] in 0..1.

    All 0 where all values are equal (the reference divides 0 by 0 there): no image stands out, so none gains.
    """
    values = read_scores(values).astype(np.float64)
    if values.size == 0:
        return values
    low, span = values.min(), np.ptp(values)
    return (values - low) / span if span > 0 else np.zeros_like(values)


def paper_image_score(q: ArrayLike, map_max: ArrayLike) -> np.ndarray:
    """Transductive image score of SOWA and APRIL-GAN with k > 0: 0.5 * (q + minmax_over_set(map_max)), float64 [N].

    q [N]: probability of the text branch, not rescaled. map_max [N]: largest value of each image's score map. Both over
    all test images of one category.
    """
    q, map_max = read_scores(q, "q").astype(np.float64), read_scores(map_max, "map_max")
    if q.shape != map_max.shape:
        raise DataError(f"q of shape {q.shape} for map_max of shape {map_max.shape}: give both for every test image")
    return 0.5 * (q + minmax_over_set(map_max))


def _sweep(maps: Any, masks: Any) -> _Sweep:
    pairs = list(map_pairs(maps, masks))
    threshold_T = linear_thresholds([score_map for score_map, _ in pairs])
    false_NT, normal_N = np.zeros((len(pairs), threshold_T.size), np.int64), np.zeros(len(pairs), np.int64)
    overlap_T, found = np.zeros(threshold_T.size), 0
    for row, (score_map, mask) in enumerate(pairs):
        # How many thresholds lie below a pixel: a histogram of that, summed from above, counts score > threshold.
        passed = np.searchsorted(threshold_T, score_map.astype(np.float32, copy=False), side="left")
        false_NT[row], normal_N[row] = _from_above(passed[~mask], None, threshold_T.size), (~mask).sum()
        if mask.any():
            label, count = regions(mask)
            share = 1 / np.bincount(label[mask])[label[mask]]
            overlap_T += _from_above(passed[mask], share, threshold_T.size)
            found += count
    return _Sweep(false_NT, normal_N, overlap_T / found if found else np.full(threshold_T.size, np.nan))


def _from_above(passed: np.ndarray, weight: np.ndarray | None, thresholds: int) -> np.ndarray:
    histogram = np.bincount(passed, weight, minlength=thresholds + 1)
    return histogram[:0:-1].cumsum()[::-1]


def _stretched_area(rate_T: np.ndarray, sweep: _Sweep, limit: float) -> float:
    kept = rate_T < limit
    rate, overlap = rate_T[kept][::-1], sweep.overlap_T[kept][::-1]  # rates fall as thresholds rise
    if rate.size < 2 or rate[-1] == rate[0]:
        return float("nan")
    x = (rate - rate[0]) / (rate[-1] - rate[0])
    return float(np.sum(np.diff(x) * (overlap[1:] + overlap[:-1])) / 2)
