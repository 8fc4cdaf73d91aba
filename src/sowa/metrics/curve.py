"""Scores against their truth, reduced once to the operating points that every metric here is read from.

Only thresholds at the score of an anomalous item can change what the metrics say: between two of them the false
positives grow and nothing else. So one sort of all scores and one of the anomalous ones give every metric exactly:
the counts are integers, ties are one point, nothing is binned, and no score is rescaled or squashed.
Time: two sorts. Memory: one copy of the scores, and about 55 bytes for each anomalous pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from sowa.errors import ConfigError, DataError, SowaError

__all__ = [
    "Curve",
    "as_array",
    "check_limit",
    "image_curve",
    "map_pairs",
    "pixel_curve",
    "read_mask",
    "read_scores",
    "regions",
]

EIGHT = np.ones((3, 3), dtype=bool)


def as_array(values: Any) -> np.ndarray:
    """Whatever holds numbers as a NumPy array; a torch tensor without copy if it can be, half precision as float32."""
    if hasattr(values, "detach"):  # a tensor, told without importing torch
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.element_size() == 2 else values).numpy()
    return np.asarray(values)


def read_scores(values: ArrayLike, what: str = "the scores") -> np.ndarray:
    """Raw scores as float32 where that is exact for their type, else float64; NaN and infinity are refused."""
    scores = as_array(values)
    if scores.dtype.kind not in "fiub":
        raise SowaError(f"{what} are of type {scores.dtype}: give real numbers")
    scores = scores.astype(np.result_type(scores.dtype, np.float32), copy=False)
    if not np.isfinite(scores).all():
        raise SowaError(f"{what} hold NaN or infinity: a ranking needs finite scores, find where they became so")
    return scores


def read_mask(values: ArrayLike, what: str = "the mask") -> np.ndarray:
    """A mask as bool: defect where > 0. A float mask must hold 0 and 1 only, so that no soft edge is cut unasked."""
    mask = as_array(values)
    if mask.dtype.kind not in "fiub":
        raise DataError(f"{what} is of type {mask.dtype}: give a mask of bool or of numbers, defect where > 0")
    if mask.dtype.kind == "f" and not ((mask == 0) | (mask == 1)).all():
        raise DataError(f"{what} has values other than 0 and 1: cut a soft mask at a threshold first")
    return mask if mask.dtype == bool else mask > 0


def map_pairs(maps: Any, masks: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each (score map [h, w] float, mask [h, w] bool) of stacked [N, H, W] arrays or of lists whose sizes differ."""
    maps, masks = (as_array(group) if hasattr(group, "ndim") else group for group in (maps, masks))
    if len(maps) != len(masks):
        raise DataError(f"{len(maps)} score maps for {len(masks)} masks: give one mask for each map")
    for index, (score_map, mask) in enumerate(zip(maps, masks, strict=True)):
        score_map = read_scores(score_map, f"the scores of map {index}")
        mask = read_mask(mask, f"mask {index}")
        if score_map.ndim != 2 or score_map.shape != mask.shape:
            shapes = f"{tuple(score_map.shape)} and its mask {tuple(mask.shape)}"
            raise DataError(f"score map {index} has shape {shapes}: both must be [h, w], resize the map to its mask")
        yield score_map, mask


def regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected regions of a bool [h, w] mask, corners touching (8 neighbours): int [h, w] numbered from 1, and R."""
    return ndimage.label(mask, structure=EIGHT)


def check_limit(limit: float) -> None:
    """Refuse what is no false positive rate to stop at."""
    if not 0 < limit <= 1:
        raise ConfigError(f"AUPRO limit {limit}: give a false positive rate above 0 and at most 1, such as 0.3")


@dataclass(frozen=True, slots=True)
class Curve:
    """The T operating points at the distinct scores of the anomalous items, strictest first.

    An item is called anomalous where score >= threshold. Every metric is NaN, meaning *undefined*, where only one
    class is present: nothing anomalous (no region) or nothing normal.
    """

    threshold_T: np.ndarray
    """Descending."""
    true_T: np.ndarray
    """Anomalous items at or above the threshold."""
    false_T: np.ndarray
    """Normal items at or above the threshold."""
    strict_T: np.ndarray
    """Normal items above the threshold; `false_T - strict_T` are tied with it."""
    overlap_T: np.ndarray
    """In 0..1: share of a region at or above the threshold, averaged over regions (items, without regions)."""
    positives: int
    negatives: int

    @property
    def defined(self) -> bool:
        return self.positives > 0 and self.negatives > 0

    def auroc(self) -> float:
        """Chance that an anomalous item outscores a normal one, a tie counting half: one division of exact integers."""
        if not self.defined:
            return float("nan")
        twice_wins = int(np.sum(self._new_T() * (2 * self.negatives - self.false_T - self.strict_T)))
        return twice_wins / (2 * self.positives * self.negatives)

    def average_precision(self) -> float:
        """Sum over thresholds of precision times the recall gained there (no interpolation)."""
        if not self.defined:
            return float("nan")
        return float(np.sum(self._new_T() * (self.true_T / (self.true_T + self.false_T)))) / self.positives

    def f1_max(self) -> tuple[float, float]:
        """(best F1 over all thresholds, the highest threshold that reaches it); call anomalous where score >= it."""
        if not self.defined:
            return float("nan"), float("nan")
        f1_T = 2 * self.true_T / (self.positives + self.true_T + self.false_T)
        best = int(np.argmax(f1_T))
        return float(f1_T[best]), float(self.threshold_T[best])

    def aupro(self, limit: float) -> float:
        """Area under overlap over pooled false positive rate from 0 to `limit`, linear up to the limit, over `limit`.

        The full curve (a threshold at every score) rises on straight lines from `strict_T` to `false_T` and is flat
        up to the next `strict_T`, so these points give its area exactly, the interpolation at the limit included.
        """
        check_limit(limit)
        if not self.defined:
            return float("nan")
        reach = limit * self.negatives
        points = int(np.searchsorted(self.strict_T, reach))
        if points == 0:
            return 0.0
        start, end, after = self.strict_T[:points], self.false_T[:points].astype(float), self.overlap_T[:points].copy()
        before = np.concatenate(([0.0], after[:-1]))
        if end[-1] > reach:  # only the last rise can cross the limit
            after[-1] = before[-1] + (after[-1] - before[-1]) * (reach - start[-1]) / (end[-1] - start[-1])
            end[-1] = reach
        following = np.append(start[1:], reach)
        area = np.sum((end - start) * (before + after)) / 2 + np.sum((following - end) * after)
        return float(area / reach)

    def _new_T(self) -> np.ndarray:
        return np.diff(self.true_T, prepend=0).astype(np.int64)


def image_curve(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Operating points of scores of any shape against labels (0 normal, 1 anomalous) of the same shape."""
    scores, labels = read_scores(scores), as_array(labels)
    if scores.shape != labels.shape:
        raise DataError(f"scores of shape {scores.shape} for labels of shape {labels.shape}: give one label per score")
    anomalous = labels == 1
    if not (anomalous | (labels == 0)).all():
        raise DataError("labels hold values other than 0 and 1: 0 is normal, 1 is anomalous")
    return _curve(np.sort(scores, axis=None), np.sort(scores[anomalous]), None)


def pixel_curve(maps: Any, masks: Any) -> Curve:
    """Operating points of all pixels pooled, with the overlap of 8-connected regions. Shapes as in `map_pairs`."""
    every, *defects = _gather(maps, masks)
    every.sort()
    value, region = _sort_together(defects)
    return _curve(every, value, (1 / np.maximum(np.bincount(region), 1))[region[::-1]].cumsum())


def _gather(maps: Any, masks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score of every pixel, score of every defect pixel, number of the region of every defect pixel), as copies."""
    every, defects, owners = [np.empty(0, np.float32)], [np.empty(0, np.float32)], [np.empty(0, np.int32)]
    found = 0
    for score_map, mask in map_pairs(maps, masks):
        every.append(score_map.ravel())
        if mask.any():
            label, count = regions(mask)
            defects.append(score_map[mask])
            owners.append(label[mask] + np.int32(found - 1))
            found += count
    return np.concatenate(every), np.concatenate(defects), np.concatenate(owners)


def _sort_together(defects: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores in ascending order and the region of each, ascending among ties so that sums over them are the same in
    every dtype. Empties the list [score, region] to free it on the way.

    float32 scores are sorted as the upper halves of integers that carry the region below: five times faster than an
    indirect sort. Adding 0 makes -0.0 and 0.0 the same bits.
    """
    region, score = defects.pop(), defects.pop()
    if score.dtype != np.float32:
        order = np.lexsort((region, score))
        return score[order], region[order]
    packed = (score + np.float32(0)).view(np.int32)
    packed ^= (packed >> 31) & 0x7FFFFFFF
    packed = packed.astype(np.int64)
    packed <<= 32
    packed |= region
    packed.sort()
    score.sort()
    return score, packed.astype(np.int32)


def _curve(every: np.ndarray, value: np.ndarray, mass: np.ndarray | None) -> Curve:
    """Count at each distinct anomalous score.

    every: all scores ascending, normal and anomalous: normal items are all less the anomalous ones.
    value: anomalous scores ascending. mass: what the highest 1, 2, ... of them add to the overlap, in any unit.
    """
    # Sums of three counts must not overflow, so the narrow type is kept well below its limit.
    count: Any = np.int32 if every.size < 2**29 else np.int64
    first = np.flatnonzero(np.append(True, value[1:] != value[:-1])[: value.size]).astype(count)
    level, true = value[first], count(value.size) - first
    below = np.searchsorted(every, level, side="left").astype(count)
    after = below + np.diff(first, append=count(value.size))
    false = count(every.size) - below - true
    strict = false.copy()
    tied = np.flatnonzero(every[np.minimum(after, every.size - 1)] == level)  # most often few: spares a second search
    strict[tied] -= (np.searchsorted(every, level[tied], side="right") - after[tied]).astype(count)
    overlap = true / max(value.size, 1) if mass is None or not mass.size else mass[true - 1] / mass[-1]
    return Curve(
        threshold_T=level[::-1],
        true_T=true[::-1],
        false_T=false[::-1],
        strict_T=strict[::-1],
        overlap_T=overlap[::-1],
        positives=value.size,
        negatives=every.size - value.size,
    )
