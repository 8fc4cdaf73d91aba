"""Ink: words, emblems, bar codes, drawn once flat and then laid on parts of any shape."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import map_coordinates

from sowa.data.drawn.fields import Field

__all__ = ["bars", "decal", "emblem", "font", "word"]

_CONSONANTS, _VOWELS = "BDFGKLMNPRSTVZ", "AEIOU"


@lru_cache(maxsize=32)
def font(height: int):
    """Pillow's own typeface at about `height` pixels: no font files of the machine are used."""
    return ImageFont.load_default(max(height, 6))


def word(rng: np.random.Generator, syllables: int) -> str:
    """A pronounceable word that means nothing."""
    return "".join(str(rng.choice(list(_CONSONANTS))) + str(rng.choice(list(_VOWELS))) for _ in range(syllables))


def decal(art_ab: Field, u: Field, v: Field) -> Field:
    """`art_ab`, a square picture 0..1 that spans -1..1, seen at the points u, v; 0 outside."""
    side = art_ab.shape[0]
    place = np.stack([(v + 1) * np.float32(side / 2) - 0.5, (u + 1) * np.float32(side / 2) - 0.5])
    return map_coordinates(art_ab, place, order=1, mode="constant", cval=0.0)


def emblem(rng: np.random.Generator, *, side: int) -> Field:
    """A round trade mark: a ring or two, a star or a triangle or bars, a short word. [side, side] 0..1."""
    large = side * 2
    sheet = Image.new("L", (large, large))
    pen, middle = ImageDraw.Draw(sheet), large / 2
    for radius in (0.97, 0.84)[: int(rng.integers(1, 3))]:
        r = radius * middle
        pen.ellipse([middle - r, middle - r, middle + r, middle + r], outline=255, width=round(0.035 * large))
    points, spin, sharp = int(rng.integers(3, 8)), rng.uniform(0, np.pi), float(rng.uniform(0.35, 0.6))
    angles = spin + np.arange(2 * points) * np.pi / points
    reach = np.where(np.arange(2 * points) % 2 == 0, 0.4, 0.4 * sharp) * middle
    top = middle * 0.68
    pen.polygon([(middle + r * np.cos(a), top + r * np.sin(a)) for r, a in zip(reach, angles, strict=True)], fill=255)
    pen.text((middle, middle * 1.34), word(rng, 2), font=font(round(0.17 * large)), fill=255, anchor="mm")
    return np.asarray(sheet.reduce(2), np.float32) / np.float32(255)


def bars(pen: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, float, float, float], ink: int) -> None:
    """A bar code that fills `box` (left, top, right, bottom)."""
    left, top, right, bottom = box
    step = (right - left) / 62
    at = left
    while at < right - step:
        thick = step * float(rng.integers(1, 4))
        pen.rectangle([at, top, min(at + thick - 1, right), bottom], fill=ink)
        at += thick + step * float(rng.integers(1, 3))
