"""Between an image's own pixels and the square that a model sees: in by squash or letterbox, back with a map."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sowa.data.images import MaskRule, resample_mask
from sowa.data.intake import Fit
from sowa.errors import ConfigError

__all__ = ["PADDING", "Fit", "Frame", "mask_to_model", "squash", "to_model"]

PADDING = (124, 116, 104)
"""Colour beside a letterboxed picture: the mean of ImageNet, near zero once a backbone has normalised it. A constant:
a picture's surroundings never depend on its content or on other pictures."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a picture of `width` x `height` pixels lies in the model's square of `size`."""

    width: int
    height: int
    size: int
    fit: Fit = "squash"

    def __post_init__(self):
        if self.fit not in get_args(Fit):
            raise ConfigError(f"fit '{self.fit}': choose one of {', '.join(get_args(Fit))}")
        if min(self.width, self.height, self.size) < 1:
            raise ConfigError(f"a picture of {self.width} x {self.height} pixels has no place in {self.size} pixels")

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the picture in the square, at least one pixel each way."""
        if self.fit == "squash":
            return 0, 0, self.size, self.size
        longer = max(self.width, self.height)
        width, height = (max(1, round(side * self.size / longer)) for side in (self.width, self.height))
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return top, left, top + height, left + width

    def restore(self, map_HW: Tensor) -> Tensor:
        """[size, size] map of the square (or any [h, w] map of it) -> [height, width] of the picture.

        Bilinear without aligned corners, as images are resized; what lies beside the picture is cut away.
        """
        rows, columns = map_HW.shape
        top, left, bottom, right = self.inside
        scale_y, scale_x = rows / self.size, columns / self.size
        own = map_HW[
            int(top * scale_y) : max(round(bottom * scale_y), int(top * scale_y) + 1),
            int(left * scale_x) : max(round(right * scale_x), int(left * scale_x) + 1),
        ]
        if own.shape == (self.height, self.width):
            return own
        return F.interpolate(own[None, None].float(), (self.height, self.width), mode="bilinear")[0, 0]


def to_model(
    image: Image.Image, size: int, fit: Fit = "squash", *, full_wh: tuple[int, int] | None = None
) -> tuple[Tensor, Frame]:
    """[3, size, size] uint8 of an RGB picture, bicubic with antialiasing, and the way back.

    `full_wh`: size of the picture in its file, where it was decoded at a fraction of that; the frame is of that size.
    """
    frame = Frame(*(full_wh or image.size), size, fit)
    top, left, bottom, right = frame.inside
    wanted = (right - left, bottom - top)
    small = image if image.size == wanted else image.resize(wanted, Image.Resampling.BICUBIC)
    if wanted != (size, size):
        square = Image.new("RGB", (size, size), PADDING)
        square.paste(small, (left, top))
        small = square
    return torch.from_numpy(np.array(small, dtype=np.uint8)).permute(2, 0, 1).contiguous(), frame


def squash(image: Image.Image, size: int) -> Tensor:
    """[3, size, size] uint8: `to_model` for those who need no way back.

    Equals torchvision's `Resize((size, size), BICUBIC)` on a PIL image.
    """
    return to_model(image, size)[0]


def mask_to_model(
    mask: NDArray[np.uint8], size: int, rule: MaskRule = "nearest", fit: Fit = "squash"
) -> NDArray[np.uint8]:
    """[size, size] in {0, 1} from a mask [h, w] in {0, 1}, laid where the picture lies; 0 beside it.

    `rule`: see `MaskRule`.
    """
    top, left, bottom, right = Frame(mask.shape[1], mask.shape[0], size, fit).inside
    square = np.zeros((size, size), dtype=np.uint8)
    square[top:bottom, left:right] = resample_mask(mask, (right - left, bottom - top), rule)
    return square
