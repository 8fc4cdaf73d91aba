"""Exact metrics of raw scores: pure functions of NumPy arrays or torch tensors.

Larger = more anomalous. Scores of any range are ranked as they are: nothing is squashed, rescaled or binned, so a
strictly increasing transform of the scores changes no value. Ties count as ties. Counts are exact integers; AUROC and
F1-max round once, AP and AUPRO are float64 sums (observed within 1e-14 of the definition).
NaN means *undefined*: only one class is present (no anomalous item or region, or nothing normal). It is never 0.
A NaN or infinite score raises `SowaError`.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from sowa.metrics.curve import Curve, image_curve, pixel_curve

__all__ = [
    "IMAGE_METRICS",
    "METRICS",
    "PIXEL_METRICS",
    "aupro",
    "aupro_at",
    "aupro_key",
    "auroc",
    "average_precision",
    "curve_metrics",
    "f1_max",
    "f1_max_threshold",
    "image_metrics",
    "pixel_metrics",
]

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_aupro_05")
METRICS = IMAGE_METRICS + PIXEL_METRICS
"""Names of the results in the order of tables."""


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous item outscores a normal one, ties counting half."""
    return image_curve(scores, labels).auroc()


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Sum of precision times gained recall over all distinct thresholds, not interpolated."""
    return image_curve(scores, labels).average_precision()


def f1_max(scores: ArrayLike, labels: ArrayLike) -> float:
    """Largest F1 over all thresholds: an oracle's number, since the truth picks the threshold."""
    return image_curve(scores, labels).f1_max()[0]


def f1_max_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Highest threshold that reaches `f1_max`; anomalous where score >= threshold."""
    return image_curve(scores, labels).f1_max()[1]


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """All of `IMAGE_METRICS` from one sort. scores [N], labels [N] with 0 normal and 1 anomalous."""
    return _ranking("image", image_curve(scores, labels))


def aupro(maps: Any, masks: Any, limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to the pooled false positive rate `limit`, divided by `limit`.

    maps, masks: [N, H, W], or lists of [h, w] whose sizes differ; a mask's defect is where it is > 0. Regions are
    8-connected and weigh the same whatever their area; every distinct score is a threshold; the curve starts at (0, 0)
    and is interpolated linearly at the limit. A perfect map has 1, a constant map limit / 2.
    """
    return pixel_curve(maps, masks).aupro(limit)


def aupro_at(maps: Any, masks: Any, limits: Sequence[float]) -> tuple[float, ...]:
    """`aupro` at several limits from one sort."""
    curve = pixel_curve(maps, masks)
    return tuple(curve.aupro(limit) for limit in limits)


def pixel_metrics(maps: Any, masks: Any, limits: Sequence[float] = (0.3, 0.05)) -> dict[str, float]:
    """Pixel AUROC, AP, F1-max and `aupro` at each limit (named by `aupro_key`), all from one sort of all pixels."""
    return curve_metrics(pixel_curve(maps, masks), limits)


def curve_metrics(curve: Curve, limits: Sequence[float]) -> dict[str, float]:
    """What `pixel_metrics` reports, from operating points."""
    return _ranking("pixel", curve) | {aupro_key(limit): curve.aupro(limit) for limit in limits}


def aupro_key(limit: float) -> str:
    """Name of AUPRO at a limit: `pixel_aupro` at 0.3, else with two decimals or more: 0.05 is `pixel_aupro_05`."""
    if limit == 0.3:
        return "pixel_aupro"
    whole, decimals = f"{limit:.6f}".split(".")
    return f"pixel_aupro_{whole.strip('0')}{decimals[:2]}{decimals[2:].rstrip('0')}"


def _ranking(prefix: str, curve: Curve) -> dict[str, float]:
    return {
        f"{prefix}_auroc": curve.auroc(),
        f"{prefix}_ap": curve.average_precision(),
        f"{prefix}_f1_max": curve.f1_max()[0],
    }
