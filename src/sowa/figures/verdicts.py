"""What was decided about images: original, truth, heat map and the verdict in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sowa.figures.canvas import (
    BAD,
    GOOD,
    QUIET,
    SMALL,
    Box,
    bar,
    count,
    note,
    outline,
    save,
    sheet,
    short,
    show,
    truth,
    write,
)
from sowa.figures.heat import Pixels, checked, fitted, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["VerdictRow", "verdict_panel", "verdict_sheet"]


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One judged image. Scores are raw or calibrated as the caller likes; larger = more anomalous."""

    image: Pixels
    """[H, W, 3] uint8."""
    score_map: ArrayLike | None
    """[h, w] on the scale of the sheet; None where the method only ranks images."""
    category: str
    name: str
    score: float
    verdict: str
    """In words, `good` or `defective`; any word but `good` is shown as an alarm."""
    mask: ArrayLike | None = None
    """[H, W], > 0 where defective; None where no pixel truth exists."""
    label: int | None = None
    """0 normal, 1 anomalous, None unknown."""
    threshold: float | None = None


def verdict_sheet(rows: Sequence[VerdictRow], path: Path, *, low: float, high: float, title: str) -> Path:
    """Write one PNG with a row per image: original, truth, heat map on the scale `low`..`high`, verdict in words.

    More than four rows stand in two columns. Raises ConfigError for no rows or more than 60.
    """
    count(rows)
    side, words, gap, top = 186, 262, 10, 104
    blocks = 1 if len(rows) <= 4 else 2
    lines = -(-len(rows) // blocks)
    block = 3 * (side + gap) + words
    width, height = blocks * block + (blocks - 1) * 24 + 48, top + lines * (side + 14) + 74
    figure = sheet(width, height)
    write(figure, 24, 22, short(title, (width - 48) // 13), size=14, weight="bold")
    for column in range(blocks):
        for place, head in enumerate(("image", "truth", "heat map")):
            write(figure, 24 + column * (block + 24) + place * (side + gap), top - 24, head, colour=QUIET)
    for number, row in enumerate(rows):
        left = 24 + (number // lines) * (block + 24)
        upper = top + (number % lines) * (side + 14)
        boxes = [(left + place * (side + gap), upper, side, side) for place in range(3)]
        _three(figure, row, boxes, low=low, high=high)
        _words(figure, row, left + 3 * (side + gap) + 4, upper + 4)
    bar(figure, (24, height - 44, 420, 14), low=low, high=high)
    return save(figure, path)


def verdict_panel(row: VerdictRow, path: Path, *, low: float, high: float) -> Path:
    """Write one PNG about one image: original, truth, heat map side by side, and the verdict in words below."""
    side, gap, left, top = 384, 14, 24, 52
    figure = sheet(3 * side + 2 * gap + 2 * left, top + side + 144)
    boxes = [(left + place * (side + gap), top, side, side) for place in range(3)]
    for (at, *_), head in zip(boxes, ("image", "truth", "heat map"), strict=True):
        write(figure, at, top - 24, head, colour=QUIET)
    _three(figure, row, boxes, low=low, high=high)
    _words(figure, row, left, top + side + 14)
    bar(figure, (left + 2 * (side + gap), top + side + 20, side, 14), low=low, high=high)
    return save(figure, path)


def _three(figure: "Figure", row: VerdictRow, boxes: Sequence[Box], *, low: float, high: float) -> None:
    """Original, truth and heat map of a row, the heat map with the outline of the mask."""
    image = checked(row.image)
    show(figure, boxes[0], image)
    truth(figure, boxes[1], image, row.mask, label=row.label)
    if row.score_map is None:
        return note(figure, boxes[2], "no heat map:\nthis method ranks\nwhole images")
    axes = show(figure, boxes[2], overlay(image, row.score_map, low=low, high=high))
    if row.mask is not None and np.any(row.mask):
        outline(axes, fitted(row.mask, image.shape[:2], smooth=False), colour="white")
    return None


def _words(figure: "Figure", row: VerdictRow, left: float, top: float) -> None:
    """Category, file, verdict, score and how it compares with the threshold and the truth."""
    write(figure, left, top, short(row.category, 30), weight="bold")
    write(figure, left, top + 19, short(row.name, 34), size=SMALL, colour=QUIET)
    alarm = row.verdict != "good"
    write(figure, left, top + 44, row.verdict, size=13, weight="bold", colour=BAD if alarm else GOOD)
    limit = "no threshold" if row.threshold is None else f"threshold {row.threshold:.3g}"
    write(figure, left, top + 72, f"score {row.score:.3g}, {limit}", size=SMALL)
    if row.label is None:
        return
    known = "truth: defective" if row.label else "truth: good"
    outcome = ""
    if alarm != bool(row.label):
        outcome = " (missed)" if row.label else " (false alarm)"
    write(figure, left, top + 92, known + outcome, size=SMALL, colour=BAD if outcome else QUIET)
