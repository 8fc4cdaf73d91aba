"""How a score comes about: the maps of the levels, of text and memory, and their fusion, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sowa.figures.canvas import WIDEST, Box, bar, count, note, save, sheet, short, show, truth, write
from sowa.figures.heat import Pixels, checked, fitted, tint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MechanismRow", "mechanism_figure"]


@dataclass(frozen=True, slots=True)
class MechanismRow:
    """One image with the maps its score was made of; maps are [h, w] of any size."""

    image: Pixels
    category: str
    levels: Sequence[ArrayLike]
    """H1..Hn in the order of the taps."""
    score_map: ArrayLike
    """The fusion."""
    mask: ArrayLike | None = None
    text_map: ArrayLike | None = None
    memory_map: ArrayLike | None = None


def mechanism_figure(rows: Sequence[MechanismRow], path: Path) -> Path:
    """Write the paper's figure of the mechanism: per row the image, its truth, H1..Hn, text, memory and fusion.

    Each column of maps has one scale over all rows, the smallest to the largest value in it, printed below. A column
    that no row can fill is left out. Raises ConfigError for no rows or more than 60.
    """
    count(rows)
    columns = _columns(rows)
    cells, left, top, gap = len(columns) + 2, 152, 56, 8
    side = int(min(188, (WIDEST - left - 24) / cells - gap))
    figure = sheet(left + cells * (side + gap) + 24, top + len(rows) * (side + gap) + 62)
    for place, head in enumerate(["image", "truth", *columns]):
        write(figure, left + place * (side + gap) + side / 2, top - 26, head, weight="bold", align="center")
    for line, row in enumerate(rows):
        upper = top + line * (side + gap)
        write(figure, 20, upper + side / 2 - 8, short(row.category, 15), weight="bold")
        image = checked(row.image)
        show(figure, (left, upper, side, side), image)
        truth(figure, (left + side + gap, upper, side, side), image, row.mask, label=None)
    for place, (maps, low, high) in enumerate(columns.values(), start=2):
        at = left + place * (side + gap)
        for line, heat in enumerate(maps):
            _heat_cell(figure, (at, top + line * (side + gap), side, side), heat, low=low, high=high)
        bar(figure, (at, top + len(rows) * (side + gap) + 8, side, 10), low=low, high=high, solid=True)
    return save(figure, path)


def _columns(rows: Sequence[MechanismRow]) -> dict[str, tuple[list[ArrayLike | None], float, float]]:
    """Title -> (the map of each row, smallest value, largest value), without columns that are empty in all rows."""
    depth = max(len(row.levels) for row in rows)
    found: dict[str, list[ArrayLike | None]] = {
        f"H{level + 1}": [row.levels[level] if level < len(row.levels) else None for row in rows]
        for level in range(depth)
    }
    found["text"] = [row.text_map for row in rows]
    found["memory"] = [row.memory_map for row in rows]
    found["fusion"] = [row.score_map for row in rows]
    columns = {}
    for title, maps in found.items():
        there = [np.asarray(one, dtype=np.float32) for one in maps if one is not None]
        if there:
            low, high = min(float(one.min()) for one in there), max(float(one.max()) for one in there)
            columns[title] = (maps, low, high if high > low else low + 1e-6 + abs(low) * 1e-6)
    return columns


def _heat_cell(figure: "Figure", box: Box, heat: ArrayLike | None, *, low: float, high: float) -> None:
    if heat is None:
        return note(figure, box, "none")
    array = np.asarray(heat, dtype=np.float32)
    values = fitted(array, array.shape[:2])
    part = np.clip((values - low) / (high - low), 0, 1)
    show(figure, box, (tint(part) * 255 + 0.5).astype(np.uint8))
    return None
