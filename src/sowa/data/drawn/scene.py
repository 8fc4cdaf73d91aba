"""What a category hands over, a rendered part before the camera, and the light and colour it is rendered with."""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sowa.data.drawn.fields import Field, cover, fractal, log_uniform, noise, plane, soften, turned

__all__ = [
    "Image3",
    "Order",
    "Scene",
    "backdrop",
    "blend",
    "hsv",
    "lit",
    "luminance",
    "posed",
    "relief",
    "rim",
    "shadow",
    "tinted",
]

Image3 = NDArray[np.float32]
"""[H, W, 3], red green blue, 0..1 for what the camera can hold."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn: one part of one production lot, whole or with a flaw of construction."""

    size: int
    lot: np.random.Generator
    """Decides what all parts of a lot share: colours, proportions, lamps."""
    item: np.random.Generator
    """Decides what is this part's own: where it lies, its grain."""
    slip: np.random.Generator
    """Decides where the flaw is. Apart from the other two, so that a flawed part equals its whole twin elsewhere."""
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered part, before the camera."""

    image: Image3
    part: Field
    """[H, W] 0..1: where there is product, hence where surface defects may lie."""
    behind: Image3 | None = None
    """The same scene without the part, for what breaks off; None where the product fills the picture."""


def hsv(hue: float, saturation: float, value: float) -> Image3:
    """One colour [3]; hue 0..1 and round again."""
    return np.asarray(colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1)), np.float32)


def luminance(image: Image3) -> Field:
    """Brightness [H, W] of a colour image."""
    red, green, blue = np.float32(0.299), np.float32(0.587), np.float32(0.114)
    return red * image[..., 0] + green * image[..., 1] + blue * image[..., 2]


def tinted(field: Field, colour: Image3) -> Image3:
    """[H, W] brightness times one colour [3]."""
    return field[..., None] * colour


def blend(under: Image3, over: Image3 | Field, alpha: Field) -> Image3:
    """`over` laid on `under` with opacity `alpha` [H, W]; `over` may be one colour."""
    return under + alpha[..., None] * (over - under)


def relief(height: Field, *, depth: float, lamp: float, gloss: float = 24.0) -> tuple[Field, Field]:
    """Light on a surface of the given height: (diffuse about 1 on flat ground, highlight 0..1).

    `depth` is the height of one unit in pixels at 256 px; `lamp` the direction of the light in radians; the lamp
    stands 50 degrees high. `gloss` is the exponent of the highlight.
    """
    scale = np.float32(depth * height.shape[0] / 256.0)
    dy, dx = np.gradient(height)
    dx, dy = dx * scale, dy * scale
    norm = 1.0 / np.sqrt(dx * dx + dy * dy + 1.0)
    high, flat = np.float32(np.sin(np.deg2rad(50))), np.float32(np.cos(np.deg2rad(50)))
    toward = np.float32(np.cos(lamp)), np.float32(np.sin(lamp))
    facing = (high - (dx * toward[0] + dy * toward[1]) * flat) * norm
    half = np.sqrt(flat * flat + (1 + high) ** 2)
    shine = ((1 + high) - (dx * toward[0] + dy * toward[1]) * flat) * norm / half
    return np.maximum(facing, 0.0) / high, np.clip(shine, 0.0, 1.0) ** np.float32(gloss)


def lit(albedo: Image3, height: Field, *, depth: float, lamp: float, gloss: float = 24.0, shine: float = 0.0) -> Image3:
    """A coloured surface under `relief`, with white highlights of strength `shine`."""
    diffuse, highlight = relief(height, depth=depth, lamp=lamp, gloss=gloss)
    return albedo * (0.25 + 0.75 * diffuse)[..., None] + (np.float32(shine) * highlight)[..., None]


def shadow(ground: Image3, part: Field, *, lamp: float, far: float, soft: float, dark: float) -> Image3:
    """`ground` under the soft shadow that `part` throws away from the lamp; `far` and `soft` in canvas units."""
    size = part.shape[0]
    shift = [round(-np.sin(lamp) * far * size / 2), round(-np.cos(lamp) * far * size / 2)]
    cast = np.roll(soften(part, soft * size / 2), shift, axis=(0, 1))
    return ground * (1.0 - np.float32(dark) * np.clip(cast, 0.0, 1.0))[..., None]


def backdrop(order: Order, *, value: tuple[float, float] = (0.12, 0.85)) -> Image3:
    """The table under an object: paper, felt, rubber belt or brushed tray; its kind and tone belong to the lot."""
    size, lot, item = order.size, order.lot, order.item
    kind, tone = int(lot.integers(4)), float(lot.uniform(*value))
    colour = hsv(float(lot.random()), float(lot.choice([0.03, 0.08, 0.3], p=[0.5, 0.3, 0.2])), tone)
    strength, across = log_uniform(lot, 0.012, 0.05), float(lot.uniform(40, 110))
    texture = [
        lambda: fractal(item, size, 3, octaves=3) * 0.5,
        lambda: fractal(item, size, size / 6, octaves=2, gain=0.8),
        lambda: np.cos(plane(size)[1] * np.float32(across)) + 0.4 * noise(item, size, size / 3),
        lambda: noise(item, size, 3, size / 2),
    ][kind]()
    return tinted(1.0 + np.float32(strength) * texture.astype(np.float32), colour)


def rim(signed: Field, *, width: float) -> Field:
    """Height of a part with a rounded edge: 0 at the outline, 1 from `width` inside it on; quarter circle between."""
    inside = np.clip(-signed / np.float32(width), 0.0, 1.0)
    return np.sqrt(np.maximum(1.0 - (1.0 - inside) ** 2, 0.0)) * cover(signed, soft=1e-3)


def posed(order: Order, *, turn: float, scale: float) -> tuple[Field, Field, float]:
    """The part's own coordinates where it lies on the table, and the width of a soft edge in them."""
    item = order.item
    at = np.clip(item.normal(0, 0.025, 2), -0.06, 0.06)
    scale = scale * float(1 + np.clip(item.normal(0, 0.008), -0.02, 0.02))
    degrees = float(item.uniform(-turn, turn))
    u, v = turned(*plane(order.size), degrees=degrees, at=(float(at[0]), float(at[1])), scale=scale)
    return u, v, 2.4 / (order.size * scale)
