"""Small pictures inside the page, as data: of the image, of its heat map, and the outline of its mask."""

import base64
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sowa.data.images import read_image, read_mask, read_reduced
from sowa.errors import DataError
from sowa.report.rows import Row
from sowa.types import Sample

__all__ = ["MOST_BYTES", "Album", "Picture", "encoded"]

SIDE, QUALITY = 360, 82
"""Longest side in pixels: sharp at the width of half a card on screen and paper."""
MOST_DRAWN = 1600
"""Longer side of the picture inside an overlay that `sowa predict` draws."""
MOST_BYTES = 12 << 20
"""Of all pictures of a page together."""
TRUTH = (86, 212, 221)
"""Colour of a mask's outline: not among those of the heat map."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What can be shown of one row; empty text where it cannot."""

    image: str
    overlay: str
    size: tuple[int, int]
    """Of the original, for boxes laid over it; (0, 0) where it is not known."""
    masked: bool
    missing: str
    """Why there is no image."""


@dataclass(slots=True)
class Album:
    """Reads pictures as long as the page may grow."""

    folder: Path
    """Of the predictions; overlays outside of it are not read."""
    root: Path | None = None
    """Where images are that are named relative to a data set."""
    spent: int = 0
    _known: dict[tuple[str, ...], Picture] = field(default_factory=dict)

    def picture(self, row: Row) -> Picture:
        """The image, its heat map and the truth, read anew; a row that is shown twice is read once."""
        if self.spent >= MOST_BYTES:
            return Picture("", "", (0, 0), False, "left out to keep this file small")
        key = (row.path, row.name, row.overlay, row.mask)
        if key not in self._known:
            self._known[key] = self._read(row)
        picture = self._known[key]
        self.spent += len(picture.image) + len(picture.overlay)
        return picture

    def _read(self, row: Row) -> Picture:
        image, size, masked, missing = "", (0, 0), False, "the image is not where it was"
        for place in filter(_is_file, self._places(row)):
            try:
                small, size = _small(place)
            except DataError:
                missing = "the image cannot be read any more"
                continue
            small, masked = _outlined(small, row, size, self.folder)
            image = encoded(small)
            break
        return Picture(image, self._overlay(row), size, masked, "" if image else missing)

    def _places(self, row: Row) -> list[Path]:
        """Where the image may be, likeliest first: a name may be a path from here, a path one from its own folder."""
        roots = ([] if self.root is None else [self.root]) + [Path(), self.folder]
        given = [text for text in dict.fromkeys((row.path, row.name)) if text]
        return [root / text for root in roots for text in given]

    def _overlay(self, row: Row) -> str:
        if not row.overlay:
            return ""
        try:
            path, home = (self.folder / row.overlay).resolve(), self.folder.resolve()
            if not path.is_relative_to(home) or not path.is_file():
                return ""
            return encoded(_drawing(path, row.size))
        except (DataError, OSError, ValueError, RuntimeError):
            return ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the system will not even look at
        return False


def encoded(small: Image.Image) -> str:
    """A picture as the address that holds it."""
    out = BytesIO()
    small.save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _drawing(path: Path, size: tuple[int, int]) -> Image.Image:
    """An overlay at most `SIDE` long: of a drawing with words below or beside the picture, the picture alone.

    size: of the original; a large one was drawn smaller, `MOST_DRAWN` long.
    """
    image = read_image(path)
    scale = min(1.0, MOST_DRAWN / max(1, *size))
    inside = tuple(max(1, round(side * scale)) for side in size)
    if min(size) > 0 and inside[0] <= image.width and inside[1] <= image.height:
        image = image.crop((0, 0, *inside))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _small(path: Path) -> tuple[Image.Image, tuple[int, int]]:
    """The image at most `SIDE` long, and the size it has."""
    try:
        image, size = read_reduced(path, side=SIDE)
    except OSError as trouble:
        raise DataError(f"{path}: {trouble.strerror}") from None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image, size


def _outlined(small: Image.Image, row: Row, size: tuple[int, int], folder: Path) -> tuple[Image.Image, bool]:
    """With the outline of the mask, where there is one that fits."""
    if not row.mask:
        return small, False
    place = next((path for path in (Path(row.mask), folder / row.mask) if _is_file(path)), None)
    if place is None:
        return small, False
    try:
        mask = read_mask(Sample(row.name, Path(row.path), "", "test", 1, masks=(place,)), size)
    except (DataError, OSError):
        return small, False
    inside = np.asarray(Image.fromarray(mask * 255).resize(small.size, Image.Resampling.BOX)) > 0
    padded = np.pad(inside, 1)
    kernel = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels = np.array(small)
    pixels[inside & ~kernel] = TRUTH
    return Image.fromarray(pixels), bool(inside.any())
