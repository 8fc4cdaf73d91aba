"""Scores as colours over an image, on a scale that the caller fixes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sowa.errors import ConfigError, DataError

__all__ = ["Pixels", "checked", "fitted", "overlay", "tint"]

Pixels = NDArray[np.uint8]

_COLOURS = "inferno"  # perceptually even, and its order survives greyscale and colour blindness


def overlay(image_HW3: Pixels, score_map: ArrayLike, *, low: float, high: float, alpha: float = 0.75) -> Pixels:
    """Heat map over an image, [H, W, 3] uint8.

    `low` and below is transparent: such pixels are those of the image, bit for bit. `high` and above has the last
    colour at opacity `alpha`. A map of another size is enlarged bilinearly. Raises ConfigError if `low` is not below
    `high` or `alpha` is outside 0..1, DataError for an image or a map of a wrong form or a map that is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ConfigError(f"heat map scale {low}..{high}: low must be a number below high; give both")
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"heat map alpha {alpha}: opacity is 0 to 1; choose one")
    image = checked(image_HW3)
    heat_HW = fitted(score_map, image.shape[:2])
    part_HW = np.clip((heat_HW - low) / (high - low), 0.0, 1.0)
    # Opacity rises faster than colour, so that what is half-way up can be seen at all.
    opacity_HW1 = (alpha * part_HW**0.7)[..., None]
    blended = image * (1 - opacity_HW1) + tint(part_HW) * 255.0 * opacity_HW1
    return (blended + 0.5).astype(np.uint8)


def checked(image_HW3: Pixels) -> Pixels:
    image = np.asarray(image_HW3)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"image {image.dtype} {list(image.shape)}: figures need uint8 [H, W, 3]; convert it first")
    return image


def fitted(values: ArrayLike, shape: tuple[int, int], *, smooth: bool = True) -> NDArray[np.float32]:
    """A map as float32 [H, W] of the given shape."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or not array.size:
        raise DataError(f"map {list(array.shape)}: figures need [H, W]; choose one image of the batch")
    if not np.isfinite(array).all():
        raise DataError(f"map {list(array.shape)} holds values that are not finite: it cannot be drawn")
    if array.shape == shape:
        return array
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).resize((shape[1], shape[0]), how))


def tint(part: NDArray[Any]) -> NDArray[np.float64]:
    """Colours [..., 3] in 0..1 of values in 0..1."""
    from matplotlib import colormaps

    return colormaps[_COLOURS](part)[..., :3]
