"""From the scores of good pictures to a detector's calibration, and what it means in words."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from statistics import median
from typing import NamedTuple

from sowa.calibration import (
    CONFIDENCE,
    Cut,
    choose_cut,
    false_alarm_bound,
    normals_needed,
    odd_ones,
    recall_interval,
)
from sowa.errors import ConfigError
from sowa.predictor.content import Calibration, Content
from sowa.predictor.learn import Evidence

__all__ = [
    "DEFAULT_TARGET",
    "Known",
    "check_threshold",
    "fixed",
    "from_evidence",
    "from_held_out",
    "percent",
    "promise_of",
    "source_of",
    "with_user",
]

DEFAULT_TARGET = 0.02
"""False-alarm rate that a fit aims at where none is asked for."""
ZERO_SHOT_THRESHOLD, ZERO_SHOT_MIDDLE = 0.5, 0.25
LEAST_PIXEL = 1e-6
"""Heat of pictures that are all the same must not be divided by zero."""
LEVELS = 2.0
WANTED = 0.05
SAME_LOT = "That is of parts made and photographed as these were: calibrate again for another lot or another camera."
UNLIKE = 2.0
"""How many times further from the middle than moved copies other good pictures are taken to lie. Chosen on the
development part of benchmarks/false_alarms.py, see docs/CALIBRATION.md."""


class Known(NamedTuple):
    """What a method says of its own scale."""

    expected: float | None
    """Spread of normal scores to expect, see `Detector.expected_spread`."""
    level: float | None
    """Heat of the shots' own most unusual spots, where the method tells."""


def from_evidence(evidence: Evidence, held_out: Evidence, *, shots: int, target: float, known: Known) -> Calibration:
    """The calibration of a fit. Pictures held out decide where there are as many as are remembered, else all do."""
    few = len(held_out.scores) < max(1, shots)
    scores = (*(evidence.scores if few else ()), *held_out.scores)
    peaks = (*(evidence.peaks if few else ()), *held_out.peaks)
    images = len(held_out.scores) + (shots if few else 0)
    # A single picture may have nothing to be compared with but copies of itself: the strangest of them stands for it.
    scores = scores or (max(evidence.copy_scores),)
    moved, lit = evidence.copy_scores[: evidence.moved], evidence.copy_scores[evidence.moved :]
    if images == 1 and known.expected is not None and moved:
        cut = _single_cut(scores, moved, target, known.expected)
        threshold = max((cut.threshold, *lit))
    else:
        cut = choose_cut(scores, target=target, images=images, expected=known.expected)
        threshold = max((cut.threshold, *evidence.copy_scores))
    return Calibration(
        threshold=threshold,
        middle=cut.middle,
        pixel_threshold=_pixel(peaks, evidence.copy_peaks, known, target),
        kind="left out" if few else "held out",
        normals=images,
        exceeding=min(images, len(odd_ones(scores, threshold))),
        ranked=cut.ranked,
        target=target,
        scores=scores,
        peaks=peaks,
    )


def _single_cut(scores: Sequence[float], moved: Sequence[float], target: float, expected: float) -> Cut:
    """Of a single picture, on a scale that it has set itself: its own parts are more alike than two pictures are.

    Where other good pictures lie is taken to be `UNLIKE` times as far from the middle as moved copies of it do, so
    that nothing is paid for an uncertain middle; their spread is `expected`, as nobody knows it.
    """
    cut = choose_cut(scores, target=target, images=1, expected=expected)
    further = UNLIKE * max(0.0, median(moved) - cut.middle)
    paid = (cut.threshold - cut.middle) / sqrt(2)
    return replace(cut, threshold=cut.middle + further + paid)


def from_held_out(normals: Evidence, defect_scores: Sequence[float], *, target: float, known: Known) -> Calibration:
    """The calibration that good pictures set which the detector has not learnt from; defects are only judged by it."""
    cut = choose_cut(normals.scores, target=target, largest=True, expected=known.expected)
    found = sum(score > cut.threshold for score in defect_scores)
    return Calibration(
        threshold=cut.threshold,
        middle=cut.middle,
        pixel_threshold=_pixel(normals.peaks, (), known._replace(level=None), target, largest=True),
        kind="held out",
        normals=cut.normals,
        exceeding=cut.exceeding,
        ranked=cut.ranked,
        target=target,
        defects=len(defect_scores),
        found=found,
        suggestion=_suggestion(normals.scores, defect_scores) if len(defect_scores) else None,
        scores=normals.scores,
        peaks=normals.peaks,
    )


def fixed(pixel_threshold: float | None) -> Calibration:
    """Without a single good picture: half of the scale 0..1 that the methods' zero-shot scores are on."""
    return Calibration(
        threshold=ZERO_SHOT_THRESHOLD,
        middle=ZERO_SHOT_MIDDLE,
        pixel_threshold=pixel_threshold,
        kind="fixed",
        normals=0,
        exceeding=0,
        ranked=False,
        target=None,
    )


def with_user(old: Calibration, value: float) -> Calibration:
    """The user's threshold; the heat map's scale stays."""
    exceeding = len(odd_ones(old.scores, value))
    return replace(
        old,
        threshold=float(value),
        kind="user",
        exceeding=min(exceeding, old.normals),
        ranked=False,
        target=None,
        defects=0,
        found=0,
        suggestion=None,
    )


def _pixel(
    peaks: Sequence[float], copy_peaks: Sequence[float], known: Known, target: float, *, largest: bool = False
) -> float | None:
    """The raw map value that becomes heat 1: never below what a copy of a good picture shows, and

    - twice the method's own word for the heat of its shots' most unusual spots, which is a mean over such spots;
    - by the rule for scores from the peaks of maps of good pictures, unless a reference of fewer shots puts them on
      another scale.
    """
    found = [*copy_peaks, *([] if known.level is None else [LEVELS * known.level])]
    if not peaks and not found:
        return None
    if known.level is None or (peaks and known.expected is None):
        found.append(choose_cut(peaks or (max(copy_peaks),), target=target, largest=largest).threshold)
    return max((*found, LEAST_PIXEL))


def _suggestion(normal_scores: Sequence[float], defect_scores: Sequence[float]) -> float:
    """Middle between the two neighbouring scores that part good from defective with the fewest errors of both kinds,
    each kind counted as a share of its own; the highest such place."""
    values = sorted({*normal_scores, *defect_scores})
    places = [values[0] - 1e-9, *((a + b) / 2 for a, b in pairwise(values)), values[-1]]

    def errors(place: float) -> float:
        alarms = sum(score > place for score in normal_scores) / len(normal_scores)
        return alarms + sum(score <= place for score in defect_scores) / len(defect_scores)

    return min(reversed(places), key=errors)


# --------------------------------------------------------------------------------------------------------------- words


def source_of(scale: Calibration) -> str:
    """Where the threshold comes from, in a few words."""
    if scale.kind == "user":
        return "set by the user"
    if scale.kind == "fixed":
        return "fixed at half of the scale: no good picture was given"
    how = "not learnt from"
    if scale.kind == "left out":
        how = "left out in turn" if scale.normals > 1 else "and copies of it, moved and lit"
    rule = "by rank" if scale.ranked else "estimated"
    return f"{count(scale.normals, 'good picture')} {how}; {rule} for {percent(scale.target or 0)} false alarms"


def promise_of(content: Content, *, words_trained: bool) -> list[str]:
    """What was learnt and what cannot be promised, one sentence each; `words_trained`: the backbone knows words."""
    scale = content.calibration
    learnt = [normal for normal in content.normals if normal.use == "reference"]
    lines = [_learnt(content, len(learnt))]
    if content.copies:
        lines.append(f"{count(content.copies, 'picture')} of those given showed the same as another and counted once.")
    lines.append(f"A picture is called defective above a score of {scale.threshold:.4g} ({source_of(scale)}).")
    if scale.kind == "fixed":
        lines.append("This threshold is not calibrated: expect many false alarms or misses; give a few good pictures.")
    if not learnt and not words_trained:
        lines.append(
            f"The words of {content.recipe.backbone} are random: without good pictures its scores mean nothing."
        )
    if scale.kind == "fixed":
        return lines
    lines += [_known(scale), SAME_LOT]
    if scale.kind == "left out" and scale.exceeding:
        names = _odd_names(content)
        lines.append(f"Unlike the others and worth a look, in case it is no good part: {names}.")
    if scale.defects:
        lines += _judged(scale)
    return lines


def percent(rate: float) -> str:
    """Two figures: 53 %, 5 %, 0.5 %."""
    return f"{float(f'{100 * rate:.2g}'):g} %"


def count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _learnt(content: Content, learnt: int) -> str:
    on = f"{content.recipe.model} on {content.recipe.backbone}"
    if not learnt:
        return f"{content.name}: nothing was learnt; {on} judges by what it knew before."
    return f"{content.name}: {on} remembers {count(learnt, 'good picture')}."


def _known(scale: Calibration) -> str:
    bound, sure = false_alarm_bound(scale.exceeding, scale.normals), percent(CONFIDENCE)
    seen = "none" if not scale.exceeding else str(scale.exceeding)
    with_n = f"With {count(scale.normals, 'good picture')}, {seen} of them above it"
    sentence = f"{with_n}, the false-alarm rate is known only to be below {percent(bound)} with {sure} confidence"
    if scale.exceeding >= scale.normals:
        sentence = f"{with_n}, nothing is known of the false-alarm rate"
    more = f"; {_wanted(scale)} for {percent(WANTED)}." if bound > WANTED else "."
    if scale.ranked and scale.kind == "held out":
        on_average = f" On average over such sets of pictures it is at most {percent(scale.target or 0)}."
        return f"{sentence}{more}{on_average}"
    return sentence + more


def _wanted(scale: Calibration) -> str:
    """How many good pictures would show a false-alarm rate below `WANTED`."""
    enough = normals_needed(WANTED)
    if not scale.exceeding:
        return f"give {enough}"
    while false_alarm_bound(scale.exceeding, enough) > WANTED:
        enough += 1
    return f"give {enough} with no more than {scale.exceeding} above it"


def _odd_names(content: Content) -> str:
    """The remembered pictures above the threshold; scores of a fit stand in the order of the pictures."""
    learnt = [normal.name for normal in content.normals if normal.use == "reference"]
    odd = odd_ones(content.calibration.scores, content.calibration.threshold)
    names = [learnt[place] for place in odd if place < len(learnt)]
    if len(learnt) == 1 or not names:
        return "the only one" if len(learnt) == 1 else "one of those held out"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _judged(scale: Calibration) -> list[str]:
    low, high = recall_interval(scale.found, scale.defects)
    between = f"{percent(low)} to {percent(high)} with {percent(CONFIDENCE)} confidence"
    lines = [f"It finds {scale.found} of {count(scale.defects, 'defective picture')} (recall {between})."]
    if scale.suggestion is not None and scale.found < scale.defects:
        lines.append(
            f"A threshold of {scale.suggestion:.4g} would part these good and defective pictures best; it is a"
            " suggestion, chosen by looking at the defects, and is not set by itself."
        )
    return lines


def check_threshold(value: float) -> float:
    """A usable threshold of the user's."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ConfigError(f"threshold {value!r} is no number: give a score as `predict` shows them")
    return float(value)
