"""What several methods see in the same images: original, truth, one heat map per method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from sowa.errors import ConfigError
from sowa.figures.canvas import QUIET, SMALL, count, note, outline, save, sheet, short, show, truth, write
from sowa.figures.heat import Pixels, checked, fitted, overlay

__all__ = ["GridRow", "method_grid"]

SIDE, GAP, LEFT, TOP = 170, 8, 16, 58


@dataclass(frozen=True, slots=True)
class GridRow:
    """One image with the maps of all methods, in the order of the grid's columns."""

    image: Pixels
    category: str
    name: str
    maps: Sequence[ArrayLike | None]
    """[h, w] each; None where the method has no map."""
    scales: Sequence[tuple[float, float]]
    """(low, high) of each map: what is transparent, what has the last colour."""
    mask: ArrayLike | None = None
    label: int | None = None


def method_grid(rows: Sequence[GridRow], path: Path, *, methods: Sequence[str], note_below: str = "") -> Path:
    """Write one PNG, a row per image. Raises ConfigError for no rows, more than 60, or maps that do not fit heads."""
    count(rows)
    if any(len(row.maps) != len(methods) or len(row.scales) != len(methods) for row in rows):
        raise ConfigError(f"grid of {len(methods)} methods: every row needs {len(methods)} maps and scales")
    side = min(SIDE, (1780 - LEFT) // (len(methods) + 2) - GAP)
    figure = sheet(LEFT + (len(methods) + 2) * (side + GAP) + 8, TOP + len(rows) * (side + GAP + 18) + 34)
    for place, head in enumerate(("image", "truth", *methods)):
        write(figure, LEFT + place * (side + GAP), TOP - 24, short(head, side // 7))
    for number, row in enumerate(rows):
        top = TOP + number * (side + GAP + 18)
        image = checked(row.image)
        show(figure, (LEFT, top, side, side), image)
        truth(figure, (LEFT + side + GAP, top, side, side), image, row.mask, label=row.label)
        for place, (score_map, (low, high)) in enumerate(zip(row.maps, row.scales, strict=True), start=2):
            box = (LEFT + place * (side + GAP), top, side, side)
            if score_map is None:
                note(figure, box, "no map")
                continue
            axes = show(figure, box, overlay(image, score_map, low=low, high=high))
            if row.mask is not None:
                mask = fitted(row.mask, image.shape[:2], smooth=False)
                if (mask > 0).any():
                    outline(axes, mask, colour="#56d4dd")
        write(figure, LEFT, top + side + 2, short(f"{row.category}  {row.name}", 60), size=SMALL, colour=QUIET)
    if note_below:
        write(figure, LEFT, TOP + len(rows) * (side + GAP + 18) + 8, note_below, size=SMALL, colour=QUIET)
    return save(figure, path)
