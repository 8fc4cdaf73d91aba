"""From raw scores of normal images to a threshold, a probability, and what may be promised of them.

No anomalous image is needed or used. Larger scores are more anomalous; an image is called defective if its score is
above the threshold. The statistics are exact for independent images of one production; nothing is assumed of how their
scores are distributed, but for `estimated_threshold`, which says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sowa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CONFIDENCE",
    "SPREADS",
    "Cut",
    "choose_cut",
    "conformal_p",
    "estimated_threshold",
    "false_alarm_bound",
    "logistic_width",
    "normals_needed",
    "odd_ones",
    "probability_above",
    "recall_interval",
    "support_threshold",
]

SPREADS = 3.0
"""How many spreads of the support's own scores a score must exceed their mean to be called anomalous."""

SPREAD_FLOOR = 0.02
"""Smallest spread that is believed: a handful of shots can agree by chance."""

CONFIDENCE = 0.95
"""Of every statement about a rate."""

PRIOR_SPREAD = 0.08
"""Spread of normal scores as a share of their middle, before any has been seen."""
PRIOR_WEIGHT = 8
"""How many scores that expectation counts for."""
ROBUST_FROM = 5
"""From this many scores on one odd image does not set their spread; among fewer nobody knows which is odd."""
CENTRE_PROBABILITY = 0.05
"""Probability given to the middle of the normal scores; that of the threshold is 0.5."""
TINY = 1e-9


def support_threshold(support_scores_K: "Tensor") -> float:
    """Score above which an image is called anomalous, from what K normal images score when left out in turn.

    Median plus `SPREADS` spreads; the spread is the median distance from the median, scaled to the standard deviation
    of a Gaussian, at least `SPREAD_FLOOR`. Medians, because one shot of another lot looks odd once it is left out. Four
    shots cannot promise a false-alarm rate: this is a rule of thumb until more normal images are at hand.
    """
    scores = support_scores_K.double()
    middle = scores.quantile(0.5)
    spread = 1.4826 * (scores - middle).abs().quantile(0.5).item()
    return middle.item() + SPREADS * max(spread, SPREAD_FLOOR)


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold and what is known of it."""

    threshold: float
    middle: float
    """Median of the normal scores, below the threshold."""
    normals: int
    """How many independent normal images it rests on."""
    exceeding: int
    """How many of them lie above it."""
    ranked: bool
    """True: an order statistic, whose false-alarm rate on average is at most the target whatever the distribution.
    False: too few images for that; estimated."""

    @property
    def bound(self) -> float:
        """The false-alarm rate is below this with `CONFIDENCE`."""
        return false_alarm_bound(self.exceeding, self.normals)


def choose_cut(
    normal_scores: Sequence[float],
    *,
    target: float,
    largest: bool = False,
    images: int | None = None,
    expected: float | None = None,
) -> Cut:
    """A threshold for a false-alarm rate of `target` from scores of independent normal images.

    With n images the floor(target * (n + 1)) - 1 largest may lie above it: then a further image of the same production
    does with a probability of at most `target` (split conformal prediction). That needs n >= 1 / target - 1; with fewer
    the threshold is estimated, and with `largest` it is never below any of the scores.

    images: how many independent images the scores come from, if not one each; then it is always estimated.
    expected: see `estimated_threshold`.
    """
    scores = _scores(normal_scores)
    _check_target(target)
    images = len(scores) if images is None else images
    middle = float(np.median(scores))
    above = math.floor(target * (len(scores) + 1) + TINY) - 1 if images == len(scores) else -1
    if above >= 0:
        threshold = float(scores[len(scores) - 1 - above])
        if threshold <= middle:  # all alike: any difference counts, but these do not
            threshold = middle + TINY * max(1.0, abs(middle))
    else:
        threshold = estimated_threshold(scores, target=target, images=images, expected=expected)
        threshold = max(threshold, float(scores[-1])) if largest else threshold
    return Cut(threshold, middle, images, min(images, int((scores > threshold).sum())), above >= 0)


def estimated_threshold(
    normal_scores: Sequence[float] | NDArray[np.float64],
    *,
    target: float,
    images: int | None = None,
    expected: float | None = None,
) -> float:
    """The quantile 1 - `target` of one further normal score, as far as so few can tell; always above their median.

    Scores are taken as Gaussian around their median. Their spread (standard deviation; from `ROBUST_FROM` scores on by
    the median distance) is joined with an expected one of `PRIOR_SPREAD` that counts as `PRIOR_WEIGHT` scores;
    Student's distribution then pays for what is not known. One score is enough.

    images: as in `choose_cut`. expected: the spread to expect, if the scores are on a scale on which their middle says
    nothing about it.
    """
    scores = _scores(normal_scores)
    _check_target(target)
    images = len(scores) if images is None else images
    middle = float(np.median(scores))
    own = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    if len(scores) >= ROBUST_FROM:
        own = 1.4826 * float(np.median(np.abs(scores - middle)))
    expected = max(PRIOR_SPREAD * abs(middle) if expected is None else expected, TINY)
    freedom = PRIOR_WEIGHT + images - 1
    spread = math.sqrt((PRIOR_WEIGHT * expected**2 + (images - 1) * own**2) / freedom)
    return middle + float(special.stdtrit(freedom, 1 - target)) * spread * math.sqrt(1 + 1 / images)


def false_alarm_bound(exceeding: int, normals: int, confidence: float = CONFIDENCE) -> float:
    """Exact upper bound (Clopper-Pearson) of a rate of which `exceeding` in `normals` independent cases were seen.

    With none exceeding it is 1 - (1 - confidence)^(1 / n): 0.53 for 4 images, 0.05 for 59. 1 for no image.
    """
    if exceeding >= normals:
        return 1.0
    return float(special.betaincinv(exceeding + 1, normals - exceeding, confidence))


def normals_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """How many independent normal images, none above the threshold, show that false alarms are below `rate`."""
    _check_target(rate)
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate) - TINY)


def conformal_p(score: float, normal_scores: Sequence[float]) -> float:
    """(1 + how many normal scores are as large) / (n + 1): a good image gets p or less with a chance of at most p."""
    scores = _scores(normal_scores)
    return (1 + int((scores >= score).sum())) / (len(scores) + 1)


def recall_interval(found: int, defects: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a recall of which `found` in `defects` were seen."""
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(found, defects - found + 1, tail)) if found else 0.0
    high = float(special.betaincinv(found + 1, defects - found, 1 - tail)) if found < defects else 1.0
    return low, high


def odd_ones(normal_scores: Sequence[float], threshold: float) -> list[int]:
    """Places of the normal images that the threshold itself would call defective."""
    return [place for place, score in enumerate(normal_scores) if score > threshold]


def probability_above(score: float, *, threshold: float, middle: float) -> float:
    """A logistic curve: 0.5 at the threshold, `CENTRE_PROBABILITY` at the middle of the normal scores, in 0..1.

    A scale to read a score by, not a frequency: how common defects are is known to nobody here.
    """
    width = logistic_width(threshold=threshold, middle=middle)
    at = (score - threshold) / width
    return 1 / (1 + math.exp(-at)) if at >= 0 else (grown := math.exp(max(at, -700.0))) / (1 + grown)


def logistic_width(*, threshold: float, middle: float) -> float:
    """Width of the curve of `probability_above`, in scores. Where the user's threshold lies at or below the middle, the
    curve keeps the smallest width that the scores' own size suggests."""
    narrowest = max(PRIOR_SPREAD * abs(threshold), TINY)
    return (threshold - middle if threshold > middle else narrowest) / math.log(1 / CENTRE_PROBABILITY - 1)


def _scores(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.sort(np.asarray(values, dtype=np.float64))
    if scores.ndim != 1 or not len(scores):
        raise DataError("a threshold needs the score of at least one normal image: give some")
    if not np.isfinite(scores).all():
        raise DataError("scores of normal images are not finite: no threshold can be made of them")
    return scores


def _check_target(target: float) -> None:
    if not 0 < target < 1:
        raise ConfigError(f"a false-alarm rate of {target} cannot be asked for: give a number between 0 and 1")
