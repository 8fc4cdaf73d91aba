"""A data set at a glance: good images beside defective ones, the outline of the mask on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sowa.errors import ConfigError
from sowa.figures.canvas import BAD, GOOD, QUIET, SMALL, outline, save, sheet, short, show, write
from sowa.figures.heat import Pixels, checked, fitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pair", "pair_sheet"]

MOST_PAIRS = 60
_COLUMNS, _SIDE, _GAP, _FOOT, _EDGE, _TOP = 3, 252, 10, 44, 24, 84


@dataclass(frozen=True, slots=True)
class Pair:
    """A good image and a defective one of the same category; either may be absent."""

    good: Pixels | None
    """[H, W, 3] uint8."""
    bad: Pixels | None
    """[H, W, 3] uint8."""
    mask: ArrayLike | None = None
    """[h, w], > 0 where `bad` is defective; None where no pixel truth exists."""
    good_name: str = ""
    bad_name: str = ""
    defect: str = ""


def pair_sheet(pairs: Sequence[Pair], path: Path, *, title: str) -> Path:
    """Write one PNG with three pairs a row: the good image left, the defective one right.

    Raises ConfigError for no pair or more than 60.
    """
    if not 0 < len(pairs) <= MOST_PAIRS:
        raise ConfigError(f"sheet of {len(pairs)} pairs: 1 to {MOST_PAIRS} can be read; choose some")
    columns = min(_COLUMNS, len(pairs))
    lines, block = -(-len(pairs) // columns), 2 * (_SIDE + _GAP) + 16
    width = columns * block + 2 * _EDGE
    figure = sheet(width, _TOP + lines * (_SIDE + _FOOT) + _EDGE)
    write(figure, _EDGE, 20, short(title, (width - 2 * _EDGE) // 11), size=14, weight="bold")
    for column in range(columns):
        write(figure, _EDGE + column * block, _TOP - 24, "good", colour=GOOD)
        write(figure, _EDGE + column * block + _SIDE + _GAP, _TOP - 24, "defective", colour=BAD)
    for number, pair in enumerate(pairs):
        left = _EDGE + (number % columns) * block
        top = _TOP + (number // columns) * (_SIDE + _FOOT)
        _draw(figure, pair, left, top)
    return save(figure, path)


def _draw(figure: "Figure", pair: Pair, left: float, top: float) -> None:
    right, below = left + _SIDE + _GAP, top + _SIDE + 5
    if pair.good is not None:
        show(figure, (left, top, _SIDE, _SIDE), checked(pair.good))
        write(figure, left, below, short(pair.good_name, _SIDE // 7), size=SMALL, colour=QUIET)
    if pair.bad is None:
        return
    axes = show(figure, (right, top, _SIDE, _SIDE), checked(pair.bad))
    words = pair.defect
    if pair.mask is None:
        words += " (no mask)"
    else:
        marked = fitted(np.asarray(pair.mask) > 0, pair.bad.shape[:2], smooth=False) > 0
        if marked.any():
            outline(axes, marked, colour="#ff2bd6")
        else:
            words += " (empty mask)"
    write(figure, right, below, short(words, _SIDE // 7), size=SMALL)
    write(figure, right, below + 15, short(pair.bad_name, _SIDE // 7), size=SMALL, colour=QUIET)
