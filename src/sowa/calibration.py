"""From raw scores of a few normal images to a threshold. No anomalous image is needed or used."""

from torch import Tensor

__all__ = ["SPREADS", "support_threshold"]

SPREADS = 3.0
"""How many spreads of the support's own scores a score must exceed their mean to be called anomalous."""

SPREAD_FLOOR = 0.02
"""Smallest spread that is believed: a handful of shots can agree by chance."""


def support_threshold(support_scores_K: Tensor) -> float:
    """Score above which an image is called anomalous, from what K normal images score when left out in turn.

    Median plus `SPREADS` spreads; the spread is the median distance from the median, scaled to the standard deviation
    of a Gaussian, at least `SPREAD_FLOOR`. Medians, because one shot of another lot looks odd once it is left out. Four
    shots cannot promise a false-alarm rate: this is a rule of thumb until more normal images are at hand.
    """
    scores = support_scores_K.double()
    middle = scores.quantile(0.5)
    spread = 1.4826 * (scores - middle).abs().quantile(0.5).item()
    return middle.item() + SPREADS * max(spread, SPREAD_FLOOR)
