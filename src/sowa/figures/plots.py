"""Plain sheets of pictures and plain plots of curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sowa.errors import ConfigError
from sowa.figures.canvas import INK, NORMAL, SMALL, WIDEST, save, sheet, short, show, write
from sowa.figures.heat import Pixels, checked

__all__ = ["contact_sheet", "curves"]


def contact_sheet(
    images: Sequence[Pixels], path: Path, *, labels: Sequence[str] | None = None, columns: int = 6, side: int = 192
) -> Path:
    """Write the images, row by row, in one PNG; each is fitted into `side` x `side` pixels with its label below.

    Raises ConfigError for no images, labels of another number, or a sheet wider than 1800 px.
    """
    if not images or columns < 1 or (labels is not None and len(labels) != len(images)):
        given = f"{len(images)} images, {len(labels or images)} labels, {columns} columns"
        raise ConfigError(f"contact sheet of {given}: give at least one image and column, and a label each or none")
    gap, foot = 10, 26 if labels is not None else 0
    columns = min(columns, len(images))
    width, lines = columns * (side + gap) + 38, -(-len(images) // columns)
    if width > WIDEST:
        raise ConfigError(f"contact sheet {width} px wide: at most {WIDEST}; ask for fewer columns or a smaller side")
    figure = sheet(width, lines * (side + gap + foot) + 38)
    for number, image in enumerate(images):
        at = 24 + (number % columns) * (side + gap)
        upper = 24 + (number // columns) * (side + gap + foot)
        show(figure, (at, upper, side, side), checked(image))
        if labels is not None:
            write(figure, at, upper + side + 6, short(labels[number], side // 8), size=SMALL)
    return save(figure, path)


def curves(lines: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path, *, title: str, across: str, up: str) -> Path:
    """Write a plot of curves, name -> (x, y); `across` and `up` name the axes. Raises ConfigError for no curve."""
    if not lines:
        raise ConfigError("curves: nothing to plot; give at least one name with its x and y")
    figure = sheet(880, 560)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.75))
    for name, (x, y) in lines.items():
        axes.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1.8)
    axes.set_xlabel(across, fontsize=NORMAL)
    axes.set_ylabel(up, fontsize=NORMAL)
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", color=INK)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=SMALL, frameon=False)
    return save(figure, path)
