"""Where a surface defect lies and how it shows on the ground there."""

import numpy as np

from sowa.data.drawn.fields import Field, blob, log_uniform, plane, soften
from sowa.data.drawn.scene import Image3, Scene, hsv, luminance

__all__ = ["LAMP", "PIXEL", "around", "greyish", "patch", "shifted", "soft_edge", "spot", "tone"]

LAMP = 3.9
"""Direction of the light on defects, radians: from the upper left, as the lamps of all categories roughly are."""
PIXEL = 2.0 / 256
"""One pixel at 256 px in canvas units: widths are thought of at that size and scale with the picture."""


def spot(scene: Scene, rng: np.random.Generator, *, inset: float) -> tuple[float, float]:
    """A point of the part, at least about `inset` from its outline and the frame where the part is large enough."""
    size = scene.part.shape[0]
    x, y = plane(size)
    frame = np.maximum(np.abs(x), np.abs(y)) < 1 - min(inset, 0.6)
    deep = (soften(scene.part, inset * size) > 0.97) & (scene.part > 0.9) & frame
    places = np.flatnonzero(deep)
    if not len(places):
        places = np.flatnonzero((scene.part > 0.5) & frame)
    if not len(places):
        places = np.flatnonzero(scene.part == scene.part.max())
    row, column = divmod(int(rng.choice(places)), size)
    return float(x[row, column]), float(y[row, column])


def around(scene: Scene, at: tuple[float, float], radius: float) -> tuple[float, float]:
    """Mean brightness and unrest (standard deviation) of the ground near a point."""
    size = scene.part.shape[0]
    reach = max(int(radius * size / 2), 4)
    column, row = (int((value + 1) * size / 2) for value in at)
    near = luminance(scene.image[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach])
    return float(near.mean()), float(near.std())


def tone(scene: Scene, rng: np.random.Generator, at: tuple[float, float], *, radius: float, darker: float) -> float:
    """The brightness of something that shows on the ground near `at`; darker than it with the given chance."""
    mean, unrest = around(scene, at, radius)
    step = log_uniform(rng, 0.07, 0.4) + 0.8 * unrest
    dark = rng.random() < darker
    if mean - step < 0.0:
        dark = False
    elif mean + step > 1.0:
        dark = True
    return float(np.clip(mean - step if dark else mean + step, 0.02, 1.0))


def greyish(rng: np.random.Generator, value: float) -> Image3:
    """A colour of that brightness with a faint hue."""
    return hsv(float(rng.random()), float(rng.uniform(0, 0.25)), value)


def patch(
    scene: Scene, rng: np.random.Generator, *, low: float, high: float, rough: float, aspect: float = 1.6
) -> tuple[tuple[float, float], float, Field]:
    """Place, radius and signed distance of an irregular patch on the part."""
    radius = log_uniform(rng, low, high)
    at = spot(scene, rng, inset=0.7 * radius)
    x, y = plane(scene.part.shape[0])
    stretch = log_uniform(rng, 1.0, aspect)
    x, y = x - np.float32(at[0]), y - np.float32(at[1])
    return at, radius, blob(rng, x, y, radius=radius, rough=rough, aspect=stretch)


def soft_edge(size: int, pixels: float = 1.5) -> float:
    """Width of an edge of that many pixels, in canvas units."""
    return 2.0 * pixels / size


def shifted(field: Field, lamp: float, pixels: float) -> Field:
    """`field` moved away from the lamp by that many pixels at 256 px."""
    step = max(1, round(pixels * field.shape[0] / 256))
    return np.roll(field, (round(-np.sin(lamp) * step), round(-np.cos(lamp) * step)), axis=(0, 1))
