"""One drawn picture and its exact mask, as a pure function of names and numbers."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sowa.data.drawn.camera import draw_exposure, expose
from sowa.data.drawn.catalogue import CATEGORIES, FLAWS, SURFACE, Category
from sowa.data.drawn.fields import generator
from sowa.data.drawn.scene import Order, Scene
from sowa.errors import ConfigError, UnknownNameError

__all__ = ["LARGEST_AREA", "SIZES", "SMALLEST_AREA", "VERSION", "VISIBLE", "draw_sample"]

VERSION = 1
"""Raised whenever the same arguments would draw other pixels."""
VISIBLE = 6
"""A pixel belongs to a defect if a channel differs from the flawless twin by at least this many of 255 levels."""
SMALLEST_AREA, LARGEST_AREA = 0.0002, 0.40
"""Share of the picture that a defect covers."""
SIZES = (32, 2048)
_ATTEMPTS = 24
_GAP = 1 / 64  # of the side: gaps of that width within a defect belong to it
_SPECK = 0.00008  # of the picture: smaller islands are chance
_SOLID = 0.5


def draw_sample(
    category: str, *, seed: int, index: int, defect: str | None, size: int = 256
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw picture number `index` of a category: image [H, W, 3] uint8 RGB and mask [H, W] uint8 in {0, 1}.

    With `defect=None` the part is good and the mask zero. With a defect, every pixel outside the mask equals the good
    picture of the same seed and index exactly; inside, pixels differ visibly (`VISIBLE`) but for narrow gaps, which
    are closed. The mask covers `SMALLEST_AREA` to `LARGEST_AREA` of the picture. All pictures of a target
    category and seed come from one production lot; each picture of an auxiliary category is a lot of its own.

    Raises UnknownNameError for a category or a defect it cannot have, ConfigError for a size out of `SIZES`.
    """
    if category not in CATEGORIES:
        raise UnknownNameError("drawn category", got=category, known=CATEGORIES)
    kind = CATEGORIES[category]
    if defect is not None and defect not in kind.defects:
        raise UnknownNameError(f"defect of '{category}'", got=defect, known=kind.defects)
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(
            f"size {size}: drawn pictures are {SIZES[0]} to {SIZES[1]} pixels a side; choose one of those"
        )
    key = (VERSION, seed, category)
    scene = _scene(kind, key, index, size)
    lot = generator("camera", *key, index if kind.wild else "lot")
    exposure = draw_exposure(lot, generator("light", *key, index), size=size, wild=kind.wild)
    good = expose(scene.image, exposure)
    if defect is None:
        return good, np.zeros((size, size), np.uint8)
    for attempt in range(_ATTEMPTS):
        slip = generator("defect", *key, index, defect, attempt)
        bad = expose(_flawed(kind, key, index, scene, defect, slip), exposure)
        mask, solid = _mask(good, bad)
        if SMALLEST_AREA <= mask.mean() <= LARGEST_AREA and solid >= _SOLID:
            return np.where(mask[..., None] > 0, bad, good), mask
    raise ConfigError(
        f"{category} {index} of seed {seed}: no visible {defect} in {_ATTEMPTS} attempts; use another index"
    )


def _scene(
    kind: Category,
    key: tuple[object, ...],
    index: int,
    size: int,
    flaw: str | None = None,
    slip: np.random.Generator | None = None,
) -> Scene:
    order = Order(
        size=size,
        lot=generator("lot", *key, index if kind.wild else "lot"),
        item=generator("item", *key, index),
        slip=slip or generator("whole"),
        flaw=flaw,
    )
    return kind.draw(order)


def _flawed(
    kind: Category, key: tuple[object, ...], index: int, scene: Scene, defect: str, slip: np.random.Generator
) -> NDArray[np.float32]:
    if defect in FLAWS:
        return _scene(kind, key, index, scene.part.shape[0], defect, slip).image
    return SURFACE[defect](scene, slip)


def _mask(good: NDArray[np.uint8], bad: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Visibly different pixels with small gaps closed and lone specks left out; and the share of it that is no gap."""
    seen = np.abs(good.astype(np.int16) - bad).max(axis=-1) >= VISIBLE
    reach = round(seen.shape[0] * _GAP / 2)
    closed = ~_spread(~_spread(seen, reach), reach)
    parts, count = ndimage.label(closed, structure=np.ones((3, 3)))
    if count > 1:
        area = np.bincount(parts.ravel())
        area[0] = 0
        closed = (area >= max(_SPECK * seen.size, 2))[parts]
    return closed.astype(np.uint8), float(seen[closed].mean()) if closed.any() else 0.0


def _spread(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """`mask` grown by `reach` pixels in all eight directions; nothing grows in from outside the frame."""
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)])
        mask = np.logical_or.reduce(
            [np.take(padded, np.arange(k, k + mask.shape[axis]), axis=axis) for k in range(2 * reach + 1)]
        )
    return mask
