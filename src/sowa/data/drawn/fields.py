"""Seeded scalar fields and shapes on a square canvas: the pencils that every drawn category uses.

Points of the canvas have coordinates x, y in -1..1 (x to the right, y downwards, pixel centres): one unit is half the
canvas.
Every field is float32 [H, W] with H = W = size. Fields of noise have mean 0 and a standard deviation near 1.
"""

from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = [
    "Field",
    "blob",
    "cellular",
    "cover",
    "fractal",
    "generator",
    "log_uniform",
    "noise",
    "plane",
    "polar",
    "polygon",
    "soften",
    "streaks",
    "stroke",
    "turned",
    "wander",
]

Field = NDArray[np.float32]
_FINE = 4  # strokes are drawn this many times larger and averaged: their edges come out smooth


def generator(*key: object) -> np.random.Generator:
    """A generator that depends on every part of `key` (numbers and words) and on nothing else."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between `low` and `high`, every octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@lru_cache(maxsize=8)
def plane(size: int) -> tuple[Field, Field]:
    """x and y of every pixel centre; shared between callers, hence read-only."""
    axis = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x_HW, y_HW = np.meshgrid(axis, axis)
    x_HW.flags.writeable = y_HW.flags.writeable = False
    return x_HW, y_HW


def turned(x: Field, y: Field, *, degrees: float, at: tuple[float, float] = (0.0, 0.0), scale: float = 1.0):
    """The same points seen from a part that lies at `at`, turned by `degrees` and enlarged by `scale`."""
    angle = np.deg2rad(degrees)
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    dx, dy = x - np.float32(at[0]), y - np.float32(at[1])
    return dx * cos + dy * sin, dy * cos - dx * sin


def polar(x: Field, y: Field) -> tuple[Field, Field]:
    """Radius and angle (-pi..pi) of every point."""
    return np.hypot(x, y), np.arctan2(y, x)


def noise(rng: np.random.Generator, size: int, cells: float, cells_y: float | None = None) -> Field:
    """Smooth noise with about `cells` bumps across (and `cells_y` down, default the same)."""
    across = min(max(cells, 1.0), float(size))
    down = across if cells_y is None else min(max(cells_y, 1.0), float(size))
    grid = rng.standard_normal((int(down) + 4, int(across) + 4), dtype=np.float32)
    offset_x, offset_y = rng.uniform(0.5, 1.5, 2)
    box = (offset_x, offset_y, offset_x + across, offset_y + down)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC, box=box)) * np.float32(1.35)


def fractal(
    rng: np.random.Generator, size: int, cells: float, *, octaves: int = 4, gain: float = 0.5, aspect: float = 1.0
) -> Field:
    """A sum of ever finer noise, each octave `gain` as strong; `aspect` > 1 stretches it along x."""
    total, power = np.zeros((size, size), np.float32), 0.0
    for octave in range(octaves):
        weight, fineness = gain**octave, cells * 2.0**octave
        if fineness > size:
            break
        total += np.float32(weight) * noise(rng, size, fineness / aspect, fineness)
        power += weight**2
    return total / np.float32(np.sqrt(max(power, 1e-12)))


def streaks(rng: np.random.Generator, size: int, *, along: float, across: float, degrees: float) -> Field:
    """Brush marks: `across` bumps at right angles to the direction `degrees` and only `along` in it."""
    larger = int(np.ceil(size * 1.45))
    field = noise(rng, larger, along * 1.45, across * 1.45)
    margin = (larger - size) // 2
    image = Image.fromarray(field).rotate(-degrees, Image.Resampling.BICUBIC)
    return np.asarray(image)[margin : margin + size, margin : margin + size]


def soften(field: Field, radius: float) -> Field:
    """Cheap smoothing: shrink to about `radius` pixels a cell and enlarge again; keeps [H, W]."""
    if radius <= 0.5:
        return field
    height, width = field.shape
    small = (max(int(width / radius), 2), max(int(height / radius), 2))
    image = Image.fromarray(np.ascontiguousarray(field)).resize(small, Image.Resampling.HAMMING)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def cellular(x: Field, y: Field, rng: np.random.Generator, *, cells: float, jitter: float = 0.9):
    """Cells around jittered seeds: distance to the nearest seed, to the second nearest, and a 0..1 number per cell.

    Distances are in units of the mean spacing of seeds; x, y may be warped beforehand.
    """
    half = np.float32(cells / 2)
    column, row = (x + np.float32(1.2)) * half + 1, (y + np.float32(1.2)) * half + 1
    side = int(np.ceil(cells * 1.2)) + 6
    seeds = (0.5 + jitter * (rng.random((2, side, side), dtype=np.float32) - 0.5)).astype(np.float32)
    tint = rng.random((side, side), dtype=np.float32)
    i, j = (np.clip(value.astype(np.int32), 1, side - 2) for value in (row, column))
    first = np.full(x.shape, 9.0, np.float32)
    second, mark = first.copy(), np.zeros(x.shape, np.float32)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            flat = (i + di) * side + (j + dj)
            dy = (i + di) + seeds[0].ravel()[flat] - row
            dx = (j + dj) + seeds[1].ravel()[flat] - column
            distance = np.sqrt(dx * dx + dy * dy).astype(np.float32)
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            mark = np.where(closer, tint.ravel()[flat], mark)
            first = np.where(closer, distance, first)
    return first, second, mark


def cover(signed: Field, *, soft: float) -> Field:
    """How much of each pixel a shape covers: 1 inside (`signed` < 0), 0 outside, a ramp `soft` units wide between."""
    return np.clip(0.5 - signed / np.float32(soft), 0.0, 1.0)


def blob(rng: np.random.Generator, x: Field, y: Field, *, radius: float, rough: float, aspect: float = 1.0) -> Field:
    """Signed distance, roughly, to an irregular round patch about the origin (negative inside)."""
    x, y = turned(x, y, degrees=float(rng.uniform(0, 360)))
    distance, angle = polar(x * np.float32(np.sqrt(aspect)), y / np.float32(np.sqrt(aspect)))
    edge = np.ones_like(distance)
    for order in range(2, 9):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        edge += np.float32(1.5 * rough * rng.normal() / order**1.6) * np.cos(order * angle + phase)
    return distance - np.float32(radius) * np.maximum(edge, np.float32(0.25))


def stroke(size: int, path_N2: NDArray[np.floating], width: float | NDArray[np.floating]) -> Field:
    """Coverage of a line through `path_N2`; points and `width` (one, or one a point) in canvas units."""
    canvas = Image.new("L", (size * _FINE, size * _FINE))
    pen = ImageDraw.Draw(canvas)
    points = (np.asarray(path_N2) + 1.0) * (size * _FINE / 2.0)
    widths = np.broadcast_to(np.asarray(width, float) * (size * _FINE / 2.0), (len(points),))
    for start, end, thick in zip(points[:-1], points[1:], widths[:-1], strict=True):
        pen.line([tuple(start), tuple(end)], fill=255, width=max(round(thick), 1))
        if thick > 3:  # round joints; thinner lines have no visible gaps
            r = thick / 2
            pen.ellipse([end[0] - r, end[1] - r, end[0] + r, end[1] + r], fill=255)
    return np.asarray(canvas.reduce(_FINE), np.float32) / np.float32(255)


def polygon(size: int, corners_N2: NDArray[np.floating]) -> Field:
    """Coverage of a filled polygon given in canvas units."""
    canvas = Image.new("L", (size * _FINE, size * _FINE))
    points = (np.asarray(corners_N2) + 1.0) * (size * _FINE / 2.0)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=255)
    return np.asarray(canvas.reduce(_FINE), np.float32) / np.float32(255)


def wander(
    rng: np.random.Generator, start: tuple[float, float], *, heading: float, length: float, bend: float, steps: int = 24
) -> NDArray[np.float64]:
    """A path of `steps` points that begins at `start` towards `heading` (radians) and turns by `bend` along the way."""
    turns = rng.normal(0.0, bend / np.sqrt(steps), steps - 1).cumsum() + heading
    leaps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / (steps - 1))
    return np.concatenate([np.zeros((1, 2)), leaps.cumsum(axis=0)]) + np.asarray(start)
