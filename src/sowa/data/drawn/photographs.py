"""Surfaces photographed by others: the brick, gravel and grass that the scikit-image wheel carries (512 px, CC0).

A picture takes its own window of the photograph, turned and mirrored, with the colour and contrast of its lot.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image
from skimage import data as photographs

from sowa.data.drawn.fields import Field, fractal
from sowa.data.drawn.scene import Image3, Order, Scene, blend, hsv

__all__ = ["brick", "gravel", "lawn"]


@lru_cache(maxsize=3)
def _photograph(name: str) -> Image.Image:
    """The grey photograph as a float image 0..1."""
    return Image.fromarray(np.asarray(getattr(photographs, name)(), np.float32) / np.float32(255))


def _window(order: Order, name: str, *, zoom: float, turn: float) -> Field:
    """A window inside the photograph: `zoom` of its pixels a canvas pixel at 256 px, turned by `turn` degrees."""
    sheet, item, size = _photograph(name), order.item, order.size
    angle, flip = np.deg2rad(turn + item.normal(0, 1.5)), float(item.choice([-1.0, 1.0]))
    spread = (abs(np.cos(angle)) + abs(np.sin(angle))) / 2 + 1e-3
    side = min(zoom * 256, (sheet.width - 4) / (2 * spread))
    step = side / size
    free = max(sheet.width / 2 - 2 - side * spread, 0.0)
    middle = sheet.width / 2 + item.uniform(-free, free, 2)
    a, b, d, e = np.cos(angle) * step * flip, -np.sin(angle) * step, np.sin(angle) * step * flip, np.cos(angle) * step
    offset = middle - np.array([a + b, d + e]) * size / 2
    matrix = (a, b, offset[0], d, e, offset[1])
    return np.asarray(sheet.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))


def _ramp(field: Field, dark: Image3, middle: Image3, light: Image3) -> Image3:
    """Brightness 0..1 to colour through three stops, so that shadows and highlights differ in hue."""
    low, high = np.clip(field * 2, 0, 1), np.clip(field * 2 - 1, 0, 1)
    base = blend(np.broadcast_to(dark, (*field.shape, 3)).astype(np.float32), middle, low)
    return blend(base, light, high)


def _scene(order: Order, name: str, *, zoom: float, turn: float, hue: Callable[[], tuple[Image3, Image3, Image3]]):
    field = _window(order, name, zoom=zoom, turn=turn)
    spread = float(order.lot.uniform(0.85, 1.25))
    field = (field - field.mean()) * np.float32(spread * 0.8 / (3 * field.std() + 0.1)) + np.float32(0.48)
    patchy = 1 + np.float32(0.06) * fractal(order.item, order.size, 2, octaves=2)
    image = _ramp(np.clip(field, 0, 1), *hue()) * patchy[..., None]
    return Scene(image, np.ones((order.size, order.size), np.float32))


def brick(order: Order) -> Scene:
    """A brick wall, courses level."""
    lot = order.lot

    def stops():
        hue, depth = float(lot.uniform(0.0, 0.1)), float(lot.uniform(0.1, 0.6))
        return hsv(hue, depth, 0.2), hsv(hue, depth, float(lot.uniform(0.45, 0.65))), hsv(hue + 0.03, depth / 2, 0.95)

    return _scene(order, "brick", zoom=float(lot.uniform(0.8, 1.4)), turn=0.0, hue=stops)


def gravel(order: Order) -> Scene:
    """Loose gravel from above, any way round."""
    lot = order.lot

    def stops():
        hue, depth = float(lot.random()), float(lot.uniform(0.0, 0.3))
        return hsv(hue, depth, 0.1), hsv(hue, depth, float(lot.uniform(0.4, 0.6))), hsv(hue + 0.05, depth / 2, 0.95)

    return _scene(order, "gravel", zoom=float(lot.uniform(0.7, 1.3)), turn=float(lot.uniform(0, 360)), hue=stops)


def lawn(order: Order) -> Scene:
    """Artificial lawn: the photograph of grass in the colours of dyed fibre."""
    lot = order.lot

    def stops():
        hue, depth = float(lot.uniform(0.22, 0.34)), float(lot.uniform(0.45, 0.65))
        return hsv(hue + 0.05, depth, 0.1), hsv(hue, depth, float(lot.uniform(0.4, 0.55))), hsv(hue - 0.05, 0.35, 0.92)

    return _scene(order, "grass", zoom=float(lot.uniform(0.9, 1.2)), turn=float(order.item.choice([0, 180])), hue=stops)
