"""Surface defects that cover a patch: dent, hole, stain, particle, discoloration, smear, rough, chip.

Each takes a rendered scene and returns its image with the defect in it. Place, size and contrast come from the
generator; sizes are log-uniform; contrast grows with the unrest of the ground, so that a defect on gravel shows as well
as one on sheet metal.
"""

import numpy as np

from sowa.data.drawn.fields import blob, cover, fractal, log_uniform, noise, plane, soften, streaks
from sowa.data.drawn.placing import LAMP, around, greyish, patch, shifted, soft_edge, spot, tone
from sowa.data.drawn.scene import Image3, Scene, blend, hsv, lit, luminance, relief

__all__ = ["chip", "dent", "discoloration", "hole", "particle", "rough", "smear", "stain"]


def dent(scene: Scene, rng: np.random.Generator) -> Image3:
    """A round hollow or bump: no colour of its own, only light and shade."""
    size = scene.part.shape[0]
    at, radius, signed = patch(scene, rng, low=0.07, high=0.3, rough=0.15)
    bowl = np.clip(-signed / np.float32(radius), 0, 1)
    height = bowl * bowl * (3 - 2 * bowl) * np.float32(rng.choice([-1, -1, 1]) * radius * 128)
    diffuse, _ = relief(height, depth=log_uniform(rng, 0.5, 1.4), lamp=LAMP)
    gain = np.clip(diffuse / max(float(diffuse[0, 0]), 1e-3), 0.4, 1.6)
    inside = cover(signed, soft=soft_edge(size)) * scene.part
    mean, _ = around(scene, at, radius)
    lift = np.float32(max(0.35 - mean, 0.0) * 0.8)  # dark ground shades little; it shines instead
    return scene.image + inside[..., None] * ((gain - 1)[..., None] * (scene.image + lift))


def hole(scene: Scene, rng: np.random.Generator) -> Image3:
    """Pierced or broken out: darkness inside, a worn bright rim."""
    size = scene.part.shape[0]
    at, radius, signed = patch(scene, rng, low=0.025, high=0.16, rough=0.35)
    soft = soft_edge(size)
    inside = cover(signed, soft=soft) * scene.part
    ring = cover(np.abs(signed + np.float32(0.5 * soft)) - np.float32(max(0.12 * radius, soft)), soft=soft) * scene.part
    mean, unrest = around(scene, at, radius * 2)
    value = 0.05 if mean > 0.2 else mean + 0.25 + unrest
    depth = np.clip(0.6 + 0.4 * shifted(-signed / np.float32(radius), LAMP + np.pi, 2), 0.3, 1.3)
    floor = greyish(rng, value) * depth[..., None].astype(np.float32)
    rimmed = blend(scene.image, np.minimum(scene.image * 1.25 + 0.12, 1.0), ring * np.float32(rng.uniform(0.3, 0.9)))
    return blend(rimmed, floor.astype(np.float32), inside)


def stain(scene: Scene, rng: np.random.Generator) -> Image3:
    """A dried blot with a darker brim and a few drops beside it."""
    size = scene.part.shape[0]
    at, radius, signed = patch(scene, rng, low=0.06, high=0.38, rough=0.5)
    x, y = plane(size)
    signed = signed + np.float32(0.12 * radius) * fractal(rng, size, 8, octaves=3)
    for _ in range(int(rng.integers(0, 5))):
        angle, far, small = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.1, 1.7), radius * rng.uniform(0.05, 0.16)
        drop = np.hypot(x - np.float32(at[0] + far * np.cos(angle)), y - np.float32(at[1] + far * np.sin(angle)))
        signed = np.minimum(signed, drop - np.float32(small))
    inside = cover(signed, soft=soft_edge(size, 2.5)) * scene.part
    brim = np.exp(-np.abs(signed) / np.float32(0.08 * radius + 0.01)) * inside
    mean, unrest = around(scene, at, radius)
    ink = hsv(float(rng.choice([0.06, 0.1, rng.random()])), float(rng.uniform(0.1, 0.7)), 0.35 if mean > 0.25 else 0.9)
    strength = min(log_uniform(rng, 0.15, 0.7) + unrest, 0.85)
    wet = scene.image * ink * 1.4 if mean > 0.25 else np.broadcast_to(ink * 0.6, scene.image.shape)
    mottle = 0.85 + 0.15 * np.clip(fractal(rng, size, 5, octaves=3), -1, 1)
    return blend(scene.image, wet.astype(np.float32), np.clip(inside * strength * mottle + 0.3 * brim * strength, 0, 1))


def particle(scene: Scene, rng: np.random.Generator) -> Image3:
    """One to three crumbs of something else, lit from the same side, each with its shadow."""
    size, image = scene.part.shape[0], scene.image
    x, y = plane(size)
    first = spot(scene, rng, inset=0.1)
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        radius = log_uniform(rng, 0.03, 0.12)
        at = first if not number else tuple(np.asarray(first) + rng.normal(0, 0.16, 2))
        signed = blob(rng, x - np.float32(at[0]), y - np.float32(at[1]), radius=radius, rough=0.5, aspect=1.5)
        height = np.sqrt(np.clip(-signed / np.float32(radius), 0, 1)) * np.float32(radius * 90)
        value = tone(scene, rng, first, radius=0.15, darker=0.5)
        colour = hsv(float(rng.random()), float(rng.uniform(0, 0.5)), value)
        stone = lit(np.broadcast_to(colour, image.shape), height, depth=0.9, lamp=LAMP, gloss=20, shine=0.2)
        stone = stone * (1 + 0.12 * noise(rng, size, 60))[..., None]
        solid = cover(signed, soft=soft_edge(size))
        far = shifted(soften(solid, 2 * size / 256), LAMP, 1 + 10 * radius)
        image = image * (1 - 0.5 * np.clip(far, 0, 1) * (1 - solid))[..., None]
        image = blend(image, stone.astype(np.float32), solid)
    return image


def discoloration(scene: Scene, rng: np.random.Generator) -> Image3:
    """A patch with soft edges whose colour or brightness has drifted: scorched, bleached, tarnished."""
    at, radius, signed = patch(scene, rng, low=0.12, high=0.5, rough=0.3)
    alpha = cover(signed, soft=radius * float(rng.uniform(0.3, 0.9))) * scene.part
    mean, unrest = around(scene, at, radius)
    step = log_uniform(rng, 0.12, 0.7) + 0.5 * unrest
    gain = 1 - min(step, 0.6) if (mean > 0.3 and rng.random() < 0.6) or mean > 0.75 else 1 + min(step, 0.7)
    drift = np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    lift = np.float32(max(0.2 - mean, 0.0) * step)
    return blend(scene.image, scene.image * drift * np.float32(gain) + lift, alpha)


def smear(scene: Scene, rng: np.random.Generator) -> Image3:
    """Rubbed one way: detail dragged along, a greasy film with streaks left behind."""
    size = scene.part.shape[0]
    at, _, signed = patch(scene, rng, low=0.1, high=0.36, rough=0.25, aspect=3.0)
    angle, image = float(rng.uniform(0, np.pi)), scene.image
    small = image[::2, ::2]
    dragged = np.zeros_like(small)
    reach = log_uniform(rng, 3, 9) * size / 512
    steps = np.linspace(-reach, reach, 7)
    for step in steps:
        dragged += np.roll(small, (round(step * np.sin(angle)), round(step * np.cos(angle))), axis=(0, 1))
    dragged = np.repeat(np.repeat(dragged / len(steps), 2, axis=0), 2, axis=1)[:size, :size]
    film = streaks(rng, size, along=4, across=50, degrees=float(np.rad2deg(angle)))
    value = tone(scene, rng, at, radius=0.2, darker=0.4)
    grease = np.clip(0.3 + 0.2 * film, 0, 0.7) * np.float32(rng.uniform(0.5, 1.2))
    alpha = cover(signed, soft=soft_edge(size, 6)) * scene.part
    return blend(image, blend(dragged, greyish(rng, value), grease), alpha)


def rough(scene: Scene, rng: np.random.Generator) -> Image3:
    """An abraded patch: the finish is gone and the ground is grainy."""
    size = scene.part.shape[0]
    at, radius, signed = patch(scene, rng, low=0.08, high=0.36, rough=0.4)
    signed = signed + np.float32(0.1 * radius) * noise(rng, size, 24)
    alpha = cover(signed, soft=soft_edge(size, 3)) * scene.part
    mean, unrest = around(scene, at, radius)
    grain = 0.6 * noise(rng, size, size / 2.2) + 0.6 * noise(rng, size, size / log_uniform(rng, 4, 9))
    diffuse, _ = relief(grain, depth=log_uniform(rng, 0.8, 2.0) * (1 + 2 * unrest), lamp=LAMP)
    diffuse = np.clip(diffuse, 0.4, 1.5)
    base = soften(luminance(scene.image), 6 * size / 256)[..., None]
    worn = 0.5 * scene.image + 0.5 * base
    bare = worn * (0.35 + 0.65 * diffuse)[..., None] + np.float32(0.12 if mean < 0.6 else -0.1)
    return blend(scene.image, np.clip(bare, 0, 1.2).astype(np.float32), alpha)


def chip(scene: Scene, rng: np.random.Generator) -> Image3:
    """A piece broken from the outline: what lies behind shows, along a pale fracture."""
    size = scene.part.shape[0]
    x, y = plane(size)
    inner = soften(scene.part, 3 * size / 256)
    rimmed = np.flatnonzero((inner > 0.3) & (inner < 0.7) & (np.maximum(np.abs(x), np.abs(y)) < 0.97))
    if not len(rimmed):  # the outline lies outside the frame, or the part is thinner than the softening
        rimmed = np.flatnonzero(scene.part == scene.part.max())
    row, column = divmod(int(rng.choice(rimmed)), size)
    radius = log_uniform(rng, 0.07, 0.24)
    signed = blob(rng, x - x[row, column], y - y[row, column], radius=radius, rough=0.45, aspect=1.5)
    soft = soft_edge(size)
    gone = cover(signed, soft=soft)
    fracture = cover(signed - np.float32(0.18 * radius + soft), soft=soft) * scene.part
    pale = scene.image * np.float32(rng.uniform(0.6, 0.8)) + np.float32(rng.uniform(0.0, 0.25))
    grain = (1 + 0.12 * noise(rng, size, size / 4))[..., None]
    under = scene.behind if scene.behind is not None else 0.2 * scene.image
    return blend(blend(scene.image, pale * grain, fracture), under, gone * np.maximum(scene.part, soften(gone, 2)))
