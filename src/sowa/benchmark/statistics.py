"""Is one method better than another on the same cells? Paired differences with bootstrap intervals.

C categories, S seeds, B resamples, P anomalous and N normal images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "compare", "holm"]

RESAMPLES = 2000
CHUNK = 250
"""Resamples at a time, for memory."""

Cells = Mapping[tuple[str, int], Mapping[str, Any]]
"""(category, seed) -> cell."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How `method` differs from `reference` on the cells that both have."""

    method: str
    reference: str
    metric: str
    cells: int
    mean: float
    """Mean over categories of the mean over seeds of method - reference."""
    low: float
    high: float
    """95 % interval of the mean."""
    p: float
    """Two-sided: how often the resampled mean has the other sign, doubled; at least 1 / resamples."""
    resampled: str
    """What was drawn anew: `images and draws`, or `categories and draws`."""

    def words(self, adjusted: float | None = None) -> str:
        """better, worse or not distinguishable, at 5 %; `adjusted`: the p of `holm`."""
        if (self.p if adjusted is None else adjusted) >= 0.05:
            return "not distinguishable"
        return "better" if self.mean > 0 else "worse"


def compare(
    cells: Cells, reference: Cells, *, metric: str = "image_auroc", names: tuple[str, str] = ("method", "reference")
) -> Comparison | None:
    """Paired comparison on the (category, seed) pairs where both have a value; None if there are none.

    For `image_auroc` with scores in the cells, images are resampled within each category and label (the same ones for
    both methods and all seeds), and seeds within each category: the benchmark's categories stand as they are. For other
    metrics categories and seeds are resampled, which needs several categories to mean much.
    """
    shared = sorted(
        key
        for key in cells.keys() & reference.keys()
        if None not in (_value(cells[key], metric), _value(reference[key], metric))
    )
    if not shared:
        return None
    by_category: dict[str, list[tuple[str, int]]] = {}
    for key in shared:
        by_category.setdefault(key[0], []).append(key)
    gaps = [
        [_value(cells[key], metric) - _value(reference[key], metric) for key in keys] for keys in by_category.values()
    ]
    mean = float(np.mean([np.mean(row) for row in gaps]))
    generator = np.random.default_rng(0)
    means = None
    if metric == "image_auroc":
        means = _by_images(cells, reference, list(by_category.values()), generator)
    resampled = "images and draws" if means is not None else "categories and draws"
    if means is None:
        means = _by_cells(gaps, generator)
    low, high = np.quantile(means, (0.025, 0.975))
    other = min(np.mean(means <= 0), np.mean(means >= 0))
    p = float(min(1.0, max(2 * other, 1 / RESAMPLES)))
    return Comparison(*names, metric, len(shared), mean, float(low), float(high), p, resampled)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the chance of one false claim among all stays below each."""
    order = np.argsort(ps, kind="stable")
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def _value(cell: Mapping[str, Any], metric: str) -> float | None:
    value = cell["metrics"].get(metric)
    return None if value is None or np.isnan(value) else float(value)


def _by_cells(gaps: list[list[float]], generator: np.random.Generator) -> NDArray[np.float64]:
    """[B] means over resampled categories of means over resampled seeds."""
    rows = []
    for values in gaps:
        drawn = generator.integers(len(values), size=(RESAMPLES, len(values)))
        rows.append(np.asarray(values)[drawn].mean(axis=1))
    means_CB = np.stack(rows)
    chosen = generator.integers(len(gaps), size=(len(gaps), RESAMPLES))
    return np.take_along_axis(means_CB, chosen, axis=0).mean(axis=0)


def _by_images(
    cells: Cells, reference: Cells, categories: list[list[tuple[str, int]]], generator: np.random.Generator
) -> NDArray[np.float64] | None:
    """[B] means over the categories; None where cells do not hold the scores of the same images."""
    total = np.zeros(RESAMPLES)
    for keys in categories:
        pairs = [_paired_scores(cells[key], reference[key]) for key in keys]
        if any(pair is None for pair in pairs) or len({pair[0].tobytes() for pair in pairs}) > 1:
            return None
        total += _category_gaps(pairs, generator)
    return total / len(categories)


def _paired_scores(cell: Mapping[str, Any], other: Mapping[str, Any]) -> "tuple[NDArray, NDArray, NDArray] | None":
    """Labels and both methods' scores of the same images in the same order."""
    rows = {one["image"]: one for one in cell.get("scores", ())}
    others = {one["image"]: one for one in other.get("scores", ())}
    if not rows or rows.keys() != others.keys():
        return None
    names = sorted(rows)
    labels = np.array([int(rows[name]["label"]) for name in names])
    return labels, *(np.array([float(table[name]["score"]) for name in names]) for table in (rows, others))


def _category_gaps(pairs: list[Any], generator: np.random.Generator) -> NDArray[np.float64]:
    """[B] differences of AUROC, mean over resampled seeds, on resampled images."""
    labels = pairs[0][0]
    wins_SPN = np.stack([_wins(own, labels) - _wins(other, labels) for _, own, other in pairs])
    seeds, positive, negative = wins_SPN.shape
    gaps = []
    for start in range(0, RESAMPLES, CHUNK):
        size = min(CHUNK, RESAMPLES - start)
        weight_BP = generator.multinomial(positive, np.full(positive, 1 / positive), size=size)
        weight_BN = generator.multinomial(negative, np.full(negative, 1 / negative), size=size)
        gap_BS = np.einsum("bp,spn,bn->bs", weight_BP, wins_SPN, weight_BN, optimize=True) / (positive * negative)
        drawn_BS = generator.integers(seeds, size=(size, seeds))
        gaps.append(np.take_along_axis(gap_BS, drawn_BS, axis=1).mean(axis=1))
    return np.concatenate(gaps)


def _wins(scores: NDArray, labels: NDArray) -> NDArray[np.float64]:
    """[P, N] 1 where the anomalous image scores higher, 1/2 where equal: its mean is the AUROC."""
    high, low = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return (high > low) + 0.5 * (high == low)
