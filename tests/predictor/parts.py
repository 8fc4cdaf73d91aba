"""Drawn parts and quickly fitted detectors for the tests of this room."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from sowa.predictor.predictor import DEFAULT_MODEL, Predictor

SIZE = (150, 110)
"""Width and height, not square and not the model's."""


def part(seed: int, *, size: tuple[int, int] = SIZE, defect: bool = False) -> Image.Image:
    """A grey disc on a darker ground with a little noise, moved by a pixel or two; a checkered patch is its defect."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = Image.new("RGB", size, (60, 62, 64))
    draw = ImageDraw.Draw(picture)
    dx, dy = rng.integers(-2, 3, 2)
    box = (width * 0.2 + dx, height * 0.15 + dy, width * 0.8 + dx, height * 0.85 + dy)
    draw.ellipse(box, fill=(180, 175, 170))
    pixels = np.asarray(picture).astype(np.int16) + rng.integers(-6, 7, (height, width, 3))
    if defect:
        top, left, side = height // 3, width // 3, height // 4
        checks = np.add.outer(np.arange(side) // 3, np.arange(side) // 3) % 2 * 255
        pixels[top : top + side, left : left + side] = checks[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def parts(count: int, first: int = 0, **options) -> list[Image.Image]:
    return [part(seed, **options) for seed in range(first, first + count)]


@cache
def fitted(model: str = DEFAULT_MODEL, k: int = 3, **options) -> Predictor:
    """One detector for all tests that only read it."""
    return Predictor.fit(parts(k), name="disc", model=model, backbone="random_tiny", **options)
