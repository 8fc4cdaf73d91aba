"""A white sheet on which everything is placed in pixels from the upper left corner."""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sowa.errors import ConfigError
from sowa.figures.heat import Pixels, fitted, overlay, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BAD",
    "GOOD",
    "INK",
    "NORMAL",
    "QUIET",
    "SMALL",
    "WIDEST",
    "Box",
    "bar",
    "count",
    "note",
    "outline",
    "save",
    "sheet",
    "short",
    "show",
    "truth",
    "write",
]

WIDEST = 1800
"""No figure is wider than this, in pixels."""
NORMAL, SMALL = 9.5, 8.5
"""Sizes of type, in points."""
INK, QUIET, GOOD, BAD = "#1b1f24", "#6a737d", "#1a7f4b", "#c0362c"
_DPI, _MOST_ROWS = 110, 60

Box = tuple[float, float, float, float]
"""Left, top, width, height in pixels."""


def count(rows: Sequence[object]) -> None:
    """ConfigError unless there are as many rows as one can read on one sheet."""
    if not 0 < len(rows) <= _MOST_ROWS:
        raise ConfigError(f"figure of {len(rows)} rows: 1 to {_MOST_ROWS} can be read; choose some")


def sheet(width: int, height: int) -> "Figure":
    """An empty sheet of that many pixels."""
    from matplotlib.figure import Figure  # draws with Agg; no display and no state of pyplot is touched

    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")


def _axes(figure: "Figure", box: Box) -> "Axes":
    """Bare axes on (left, top, width, height) in pixels from the upper left corner."""
    width, height = figure.get_size_inches() * _DPI
    left, top, wide, tall = box
    axes = figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#d0d7de", linewidth=0.8)
    return axes


def write(
    figure: "Figure", left: float, top: float, text: str, *, size: float = NORMAL, align: str = "left", **look: Any
) -> None:
    """Text whose upper left corner (or middle, by `align`) is at that pixel; `look` is passed on to matplotlib."""
    width, height = figure.get_size_inches() * _DPI
    # Names of files and categories are not formulas: without this a pair of $ would be set as mathematics.
    look = {"color": look.pop("colour", INK), "parse_math": False, **look}
    figure.text(left / width, 1 - top / height, text, fontsize=size, ha=align, va="top", **look)


def show(figure: "Figure", box: Box, picture: NDArray[Any]) -> "Axes":
    """A picture fitted into a box without distortion, on light ground."""
    axes = _axes(figure, box)
    axes.set_facecolor("#f6f8fa")
    small = Image.fromarray(picture)
    small.thumbnail((2 * int(box[2]), 2 * int(box[3])), Image.Resampling.BOX)  # large images would be slow to draw
    height, width = picture.shape[:2]
    axes.imshow(np.asarray(small), extent=(0, width, height, 0), interpolation="antialiased")
    spare = abs(width - height) / 2
    across, down = (0.0, spare) if width > height else (spare, 0.0)
    axes.set_xlim(-across, width + across)
    axes.set_ylim(height + down, -down)
    return axes


def note(figure: "Figure", box: Box, text: str) -> None:
    """Words in place of a picture."""
    axes = _axes(figure, box)
    axes.set_facecolor("#f6f8fa")
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=SMALL, color=QUIET, transform=axes.transAxes)


def outline(axes: "Axes", mask_HW: NDArray[Any], *, colour: str) -> None:
    """The outline of a mask [H, W] on axes that show an image of that size."""
    edged = np.pad(mask_HW > 0, 1)
    height, width = edged.shape
    x, y = np.arange(width) - 0.5, np.arange(height) - 0.5
    axes.contour(x, y, edged, levels=[0.5], colors=[colour], linewidths=1.1)


def truth(figure: "Figure", box: Box, image: Pixels, mask: Any, *, label: int | None):
    """The mask as a shape on the dimmed image, or words where there is none."""
    if label == 0 or (mask is not None and not np.any(mask)):
        return note(figure, box, "good")
    if mask is None:
        return note(figure, box, "no mask" if label is None else "defective,\nno mask")
    mask_HW = fitted(mask, image.shape[:2], smooth=False) > 0
    grey = image.mean(axis=-1, keepdims=True) * 0.3 + 10
    shape = np.where(mask_HW[..., None], 245, np.broadcast_to(grey, image.shape)).astype(np.uint8)
    show(figure, box, shape)
    return None


def bar(figure: "Figure", box: Box, *, low: float, high: float, solid: bool = False) -> None:
    """The fixed scale: the colours as they are laid over an image (or `solid`), with its two ends in numbers."""
    left, top, wide, tall = box
    part = np.tile(np.linspace(0, 1, 256), (4, 1))
    ground = np.full((4, 256, 3), 245, np.uint8)
    colours = (tint(part) * 255).astype(np.uint8) if solid else overlay(ground, part, low=0.0, high=1.0)
    _axes(figure, box).imshow(colours, aspect="auto")
    for at, value, align in ((left, low, "left"), (left + wide, high, "right")):
        number = 0.0 if abs(value) < 1e-3 * (high - low) else value
        write(figure, at, top + tall + 4, f"{number:.3g}", size=SMALL, align=align, colour=QUIET)
    if not solid:
        words = "score per pixel, same scale in every picture"
        write(figure, left + wide / 2, top + tall + 4, words, size=SMALL, align="center", colour=QUIET)


def short(text: str, most: int) -> str:
    """`text`, its middle replaced by an ellipsis where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return text[:head] + "…" + text[len(text) - (most - 1 - head) :]


def save(figure: "Figure", path: Path) -> Path:
    """Write the sheet as PNG beside `path`, then give it its name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, metadata={"Software": None})
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(picture.getvalue())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
