"""How a picture is looked at: whole or in tiles, squashed or letterboxed, everywhere or inside a mask.

A view is one model input. Without tiles a picture is one view. With `tile=0.5` each view covers half of the picture's
width and height, and neighbours share `overlap` of that; the number of views is the same for every picture.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sowa.data.frames import Frame, mask_to_model, to_model
from sowa.data.intake import Fit, intake_of
from sowa.errors import ConfigError, DataError
from sowa.predictor.pictures import as_picture

__all__ = ["Looked", "View", "inside_mask"]

LEAST_TILE, MOST_OVERLAP = 0.05, 0.8
MASK_SIDE = 1024
"""Longer side of a stored mask; a finer one is thinned out."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture as the model sees it, and the way back."""

    views_T3SS: Tensor
    """uint8."""
    boxes: tuple[Box, ...]
    """left, top, right, bottom of each view in the picture."""
    frames: tuple[Frame, ...]
    inside_TSS: Tensor
    """bool: what of each view counts; beside a letterboxed picture and outside of the mask nothing does."""
    size: tuple[int, int]
    """Width and height of the picture."""
    inside_hw: NDArray[np.bool_] | None
    """The mask at the picture's size; None without one."""


@dataclass(frozen=True, slots=True)
class View:
    """size: side of the model's input in pixels. mask: [h, w] bool of any size, laid over the whole picture; True where
    defects count; None: everywhere."""

    size: int
    fit: Fit = "squash"
    tile: float | None = None
    overlap: float = 0.25
    mask: NDArray[np.bool_] | None = field(default=None, compare=False)

    def __post_init__(self):
        intake_of("standard", self.fit)
        if self.tile is not None and not (_is_number(self.tile) and LEAST_TILE <= self.tile < 1):
            raise ConfigError(f"tile={self.tile} is no share of a side: give {LEAST_TILE} to below 1, or none")
        if not (_is_number(self.overlap) and 0 <= self.overlap <= MOST_OVERLAP):
            raise ConfigError(f"overlap={self.overlap} cannot be used: give 0 to {MOST_OVERLAP} of a tile's side")

    @property
    def starts(self) -> tuple[float, ...]:
        """Where views begin along a side, as shares of it."""
        if self.tile is None:
            return (0.0,)
        steps = math.ceil((1 - self.tile) / (self.tile * (1 - self.overlap)) - 1e-9)
        return tuple((1 - self.tile) * step / steps for step in range(steps + 1))

    @property
    def count(self) -> int:
        """Views of a picture."""
        return len(self.starts) ** 2

    def look(self, picture: Image.Image) -> Looked:
        """The views of an RGB picture; DataError if nothing of it lies inside the mask."""
        width, height = picture.size
        boxes = self._boxes(width, height)
        whole = None if self.mask is None else _resized(self.mask, picture.size)
        seen = [to_model(picture if self.tile is None else picture.crop(box), self.size, self.fit) for box in boxes]
        frames = tuple(frame for _, frame in seen)
        inside = torch.stack([self._inside(box, frame, whole) for box, frame in zip(boxes, frames, strict=True)])
        if not inside.any():
            raise DataError(f"nothing of a picture of {width} x {height} pixels lies inside the mask: draw it larger")
        return Looked(torch.stack([view for view, _ in seen]), boxes, frames, inside, picture.size, whole)

    def _boxes(self, width: int, height: int) -> tuple[Box, ...]:
        share = self.tile or 1.0
        # Up with the sizes and down with the starts: rounding never leaves a gap between two tiles.
        across, down = math.ceil(share * width), math.ceil(share * height)
        lefts = [min(int(start * width + 1e-9), width - across) for start in self.starts[:-1]] + [width - across]
        tops = [min(int(start * height + 1e-9), height - down) for start in self.starts[:-1]] + [height - down]
        return tuple((left, top, left + across, top + down) for top in tops for left in lefts)

    def _inside(self, box: Box, frame: Frame, whole_hw: NDArray[np.bool_] | None) -> Tensor:
        if whole_hw is not None:
            left, top, right, bottom = box
            own = np.ascontiguousarray(whole_hw[top:bottom, left:right], dtype=np.uint8)
            return torch.from_numpy(mask_to_model(own, self.size, "nearest", self.fit)).bool()
        inside = torch.zeros(self.size, self.size, dtype=torch.bool)
        top, left, bottom, right = frame.inside
        inside[top:bottom, left:right] = True
        return inside


def inside_mask(roi: Any, ignore: Any) -> NDArray[np.bool_] | None:
    """[h, w] True where defects count: inside `roi` and outside `ignore`, each a path, PIL image or array.

    Pixels above 0 in any channel are marked. A mask that leaves nothing out is no mask: None.
    """
    parts = [_marked(given, word) for given, word in ((roi, "roi"), (ignore, "ignore")) if given is not None]
    if not parts:
        return None
    scale = min(1.0, MASK_SIDE / max(parts[0].shape))
    size = tuple(max(1, round(side * scale)) for side in reversed(parts[0].shape))
    parts = [_resized(part, size) for part in parts]
    inside = parts[0] if roi is not None else ~parts[0]
    if len(parts) == 2:
        inside = inside & ~parts[1]
    if not inside.any():
        raise ConfigError("roi and ignore leave nothing to look at: white (above 0) is what each of them marks")
    return None if inside.all() else inside


def _marked(given: Any, word: str) -> NDArray[np.bool_]:
    if isinstance(given, np.ndarray) and given.dtype == np.bool_:
        given = given.astype(np.uint8)
    try:
        return np.asarray(as_picture(given, word)).any(axis=-1)
    except DataError as error:
        raise ConfigError(f"{word} mask cannot be used: {error}") from None


def _resized(mask_hw: NDArray[np.bool_], size_wh: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask_hw.shape == (size_wh[1], size_wh[0]):
        return mask_hw
    return np.asarray(Image.fromarray(mask_hw.astype(np.uint8)).resize(tuple(size_wh), Image.Resampling.NEAREST)) > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
