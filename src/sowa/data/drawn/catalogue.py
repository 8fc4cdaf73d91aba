"""The drawn categories: who draws them, which defects they can have, and which data set they belong to."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sowa.data.drawn import electric, lines, machined, materials, packed, patches, photographs, wafer
from sowa.data.drawn.scene import Image3, Order, Scene

__all__ = ["AUXILIARY", "CATEGORIES", "FLAWS", "LOTS", "PARTS", "SURFACE", "TARGET", "Category"]

SURFACE: dict[str, Callable[[Scene, np.random.Generator], Image3]] = {
    "chip": patches.chip,
    "crack": lines.crack,
    "cut": lines.cut,
    "dent": patches.dent,
    "discoloration": patches.discoloration,
    "fibre": lines.fibre,
    "hole": patches.hole,
    "particle": patches.particle,
    "rough": patches.rough,
    "scratch": lines.scratch,
    "smear": patches.smear,
    "stain": patches.stain,
}
"""Defects that are painted on any rendered part."""

FLAWS = ("bent", "broken", "dark", "misprint", "missing")
"""Defects that the category itself draws."""


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of product."""

    draw: Callable[[Order], Scene]
    kind: str
    """`texture` fills the picture, `object` lies on a table."""
    defects: tuple[str, ...]
    """Names from `SURFACE` and `FLAWS`."""
    wild: bool
    """Auxiliary: every picture is a lot of its own, under its own camera, from wide ranges."""


def _row(draw: Callable[[Order], Scene], kind: str, defects: str, *, wild: bool) -> Category:
    return Category(draw=draw, kind=kind, defects=tuple(defects.split()), wild=wild)


_AUXILIARY = {
    "bearing": (machined.bearing, "object", "missing bent scratch stain particle smear chip"),
    "brick": (photographs.brick, "texture", "crack hole stain rough discoloration scratch"),
    "brushed": (materials.brushed, "texture", "scratch dent stain smear particle discoloration rough hole"),
    "button": (packed.button, "object", "missing bent crack chip scratch discoloration stain"),
    "capsule": (packed.capsule, "object", "misprint missing dent crack scratch stain hole"),
    "circuit": (electric.circuit, "object", "missing bent scratch particle fibre discoloration stain"),
    "gear": (machined.gear, "object", "missing bent scratch dent stain chip particle crack"),
    "gravel": (photographs.gravel, "texture", "particle fibre stain smear discoloration"),
    "label": (packed.label, "object", "misprint missing cut smear stain scratch rough"),
    "terrazzo": (materials.terrazzo, "texture", "crack hole stain scratch rough smear"),
    "wafer": (wafer.wafer, "texture", "crack missing dark scratch discoloration chip stain"),
    "weave": (materials.weave, "texture", "missing bent cut hole stain fibre discoloration"),
    "wood": (materials.wood, "texture", "scratch crack hole stain dent discoloration rough"),
}
_TARGET = {
    "blister": (packed.blister, "object", "missing broken cut particle stain scratch"),
    "cable": (electric.cable, "object", "missing bent cut hole particle stain"),
    "cap": (machined.cap, "object", "misprint bent scratch dent stain rough"),
    "lawn": (photographs.lawn, "texture", "particle fibre stain discoloration cut"),
    "leather": (materials.leather, "texture", "scratch cut hole stain discoloration rough crack"),
    "mesh": (materials.mesh, "texture", "missing bent particle fibre stain discoloration"),
}

_OBJECTS = ("bearing", "button", "capsule", "circuit", "gear", "label")
_LOTS = {f"{name}_lot": _AUXILIARY[name] for name in ("brick", "gravel", "wafer", "wood", *_OBJECTS)}

AUXILIARY = tuple(sorted(_AUXILIARY))
"""Categories to train on."""
TARGET = tuple(sorted(_TARGET))
"""Categories to be judged on; none of them is auxiliary."""
LOTS = tuple(sorted(_LOTS))
"""Auxiliary categories as one production lot each, for few-shot measurements; what has seen their namesakes in training
may not be judged on them."""
CATEGORIES = {name: _row(*row, wild=True) for name, row in sorted(_AUXILIARY.items())} | {
    name: _row(*row, wild=False) for name, row in sorted((_TARGET | _LOTS).items())
}
"""Name -> category."""

PARTS: dict[str, tuple[str, ...]] = {
    "auxiliary": AUXILIARY,
    "target": TARGET,
    # Disjoint by who draws them: of SOWA Plus (docs/QUALITY.md).
    "training": ("bearing", "brushed", "button", "capsule", "circuit", "gear", "label", "terrazzo", "weave"),
    "development": ("blister", "gravel_lot", "leather", "mesh"),
    # Lots of products that the trained head has seen: for choosing what the head has no part in.
    "objects": tuple(f"{name}_lot" for name in _OBJECTS),
    "locked": ("brick_lot", "cable", "cap", "lawn", "wafer_lot", "wood_lot"),
}
"""Choices of categories by name."""
