"""Surface defects that run along a line: scratch, crack, fibre, cut.

Each takes a rendered scene and returns its image with the defect in it. Place, size and contrast come from the
generator; sizes are log-uniform; contrast grows with the unrest of the ground, so that a defect on gravel shows as well
as one on sheet metal.
"""

import numpy as np

from sowa.data.drawn.fields import log_uniform, soften, stroke, wander
from sowa.data.drawn.placing import LAMP, PIXEL, around, greyish, shifted, spot, tone
from sowa.data.drawn.scene import Image3, Scene, blend, hsv

__all__ = ["crack", "cut", "fibre", "scratch"]


def scratch(scene: Scene, rng: np.random.Generator) -> Image3:
    """One to four strokes side by side, bright or dark, with a shaded flank."""
    size, length = scene.part.shape[0], log_uniform(rng, 0.15, 1.1)
    at = spot(scene, rng, inset=0.12)
    heading, bend = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.0, 0.5))
    value = tone(scene, rng, at, radius=0.12, darker=0.4)
    line = np.zeros((size, size), np.float32)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        start = np.asarray(at) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)]) + rng.normal(0, 0.03, 2)
        path = wander(rng, tuple(start), heading=heading, length=length * rng.uniform(0.6, 1), bend=bend)
        press = np.sin(np.linspace(0.15, np.pi - 0.15, len(path))) ** 0.5
        line = np.maximum(line, stroke(size, path, press * log_uniform(rng, 1.0, 3.2) * PIXEL))
    line = line * scene.part
    flank = np.clip(shifted(line, LAMP, 1.0) - line, 0, 1) * scene.part
    strength = np.float32(rng.uniform(0.65, 1.0))
    worn = blend(scene.image, 0.6 * scene.image, strength * flank)
    return blend(worn, greyish(rng, value), strength * line)


def crack(scene: Scene, rng: np.random.Generator) -> Image3:
    """A jagged dark line that forks and thins out, one lip catching the light."""
    size, length = scene.part.shape[0], log_uniform(rng, 0.25, 1.3)
    at = spot(scene, rng, inset=0.1)
    heading, width = float(rng.uniform(0, 2 * np.pi)), log_uniform(rng, 1.1, 3.0) * PIXEL
    jag = float(rng.uniform(0.4, 2.2))
    start = np.asarray(at) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    trunk = wander(rng, tuple(start), heading=heading, length=length, bend=jag, steps=32)
    line = stroke(size, trunk, np.linspace(1.1, 0.5, 32) * width)
    for _ in range(int(rng.integers(0, 4))):
        knot = int(rng.integers(6, 28))
        turn = heading + float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.1))
        twig = wander(rng, tuple(trunk[knot]), heading=turn, length=length * rng.uniform(0.15, 0.5), bend=jag, steps=18)
        line = np.maximum(line, stroke(size, twig, np.linspace(0.8, 0.4, 18) * width))
    line = line * scene.part
    lip = np.clip(shifted(line, LAMP, 1.2) - line, 0, 1) * scene.part
    mean, unrest = around(scene, at, 0.15)
    deep = np.float32(min(log_uniform(rng, 0.45, 0.9) + unrest, 0.95))
    if mean < 0.16:  # on black ground only the broken edges show
        return blend(scene.image, np.full(3, mean + 0.3 + unrest, np.float32), line)
    return blend(blend(scene.image, 1.25 * scene.image, lip * np.float32(0.6)), 0.12 * scene.image, deep * line)


def fibre(scene: Scene, rng: np.random.Generator) -> Image3:
    """A hair or a thread that has fallen on the part."""
    size, length = scene.part.shape[0], log_uniform(rng, 0.3, 1.4)
    at = spot(scene, rng, inset=0.1)
    path = wander(
        rng, at, heading=float(rng.uniform(0, 2 * np.pi)), length=length, bend=float(rng.uniform(1.5, 5)), steps=48
    )
    path = path - path.mean(axis=0) + np.asarray(at)
    line = stroke(size, path, log_uniform(rng, 1.3, 3.5) * PIXEL)
    colour = hsv(float(rng.random()), float(rng.uniform(0, 0.6)), tone(scene, rng, at, radius=0.2, darker=0.5))
    fallen = scene.image * (1 - 0.4 * shifted(line, LAMP, 2.0) * (1 - line))[..., None]
    return blend(fallen, colour, line * np.float32(rng.uniform(0.8, 1)))


def cut(scene: Scene, rng: np.random.Generator) -> Image3:
    """A slit that gapes in the middle: dark inside, one edge raised and bright, a few frayed threads."""
    size, length = scene.part.shape[0], log_uniform(rng, 0.2, 0.9)
    at = spot(scene, rng, inset=0.15)
    heading, gape = float(rng.uniform(0, 2 * np.pi)), length * float(rng.uniform(0.04, 0.11))
    start = np.asarray(at) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    path = wander(rng, tuple(start), heading=heading, length=length, bend=0.35, steps=28)
    open_ = stroke(size, path, gape * np.sin(np.linspace(0.05, np.pi - 0.05, 28)) + PIXEL) * scene.part
    lip = np.clip(soften(shifted(open_, LAMP, 2.0), 2 * size / 256) * 1.3 - open_, 0, 1) * scene.part
    mean, unrest = around(scene, at, 0.15)
    edge = blend(scene.image, np.minimum(scene.image * 1.35 + 0.15, 1.1), lip * np.float32(rng.uniform(0.4, 0.9)))
    inside = greyish(rng, 0.06 if mean > 0.2 else mean + 0.25 + unrest)
    torn = blend(edge, inside, open_)
    for knot in rng.integers(4, 24, int(rng.integers(0, 6))):
        thread = wander(
            rng, tuple(path[knot]), heading=heading + float(rng.uniform(0.7, 2.4)), length=gape * 1.2, bend=1, steps=8
        )
        torn = blend(torn, np.minimum(scene.image * 1.2 + 0.08, 1.1), stroke(size, thread, PIXEL) * scene.part)
    return torn
