"""What a `.sowa` file holds, as values, and its description in JSON: written and read back strictly."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sowa.data.intake import Fit
from sowa.errors import ArtifactError
from sowa.predictor.view import LEAST_TILE, MOST_OVERLAP, View
from sowa.types import Reference

__all__ = ["KINDS", "Calibration", "Content", "Normal", "Recipe", "described", "understood"]

KINDS = ("left out", "held out", "user", "fixed")
"""Where a threshold comes from: the remembered pictures in turn, other good ones, the user, or no picture at all."""
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
USES = ("reference", "threshold")
BACKBONE_OPTIONS = ("model", "tag", "image_size", "activation", "seed")
"""What may be said of a backbone in a file; never a path."""
MOST_NUMBER, MOST_SEED, MOST_LIST, MOST_TEXT, MOST_NORMALS = 4096, 2**63, 16, 500, 100_000
MOST_WORDS = 1000
"""Entries of a list of texts, such as templates."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A good picture that was given."""

    name: str
    """Of the file, without folders."""
    sha256: str
    use: str
    """"reference": remembered; "threshold": only scored."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which detector on which backbone."""

    model: str
    options: Mapping[str, Any]
    backbone: str
    backbone_options: Mapping[str, Any]
    weights_id: str
    licence: str
    trained: Mapping[str, str] | None = None
    """`name` and `sha256` of the trained tensors, where they come from a training."""
    precision: str | None = None
    """Of the fit; None in files of versions that did not record it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fixed scale of a detector."""

    threshold: float
    middle: float
    pixel_threshold: float | None
    """Raw map value that becomes heat 1; None where the method makes no map."""
    kind: str
    normals: int
    """Independent good pictures it rests on."""
    exceeding: int
    ranked: bool
    target: float | None
    defects: int = 0
    """Defective pictures that were judged by it, and how many it found. They never set it."""
    found: int = 0
    suggestion: float | None = None
    """A threshold that would separate those defects better, if one does."""
    scores: tuple[float, ...] = field(default=(), repr=False)
    peaks: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Content:
    """Everything but the detector itself."""

    name: str
    created: str
    version: str
    """Of sowa, when it was made."""
    recipe: Recipe
    view: View
    calibration: Calibration
    reference: Reference = field(repr=False)
    normals: tuple[Normal, ...] = ()
    copies: int = 0
    """Given pictures that were the same pixels as another and were left out."""
    thumbnails_N64: Tensor | None = field(default=None, repr=False)
    """[n, 64, 64, 3] uint8 of the normals, in their order."""


# ------------------------------------------------------------------------------------------------------------- writing


def described(content: Content, *, inside: bool) -> dict[str, Any]:
    """The description of a file, ready for JSON; `inside`: the backbone's tensors are in it."""
    recipe, scale, view = content.recipe, content.calibration, content.view
    numbers = asdict(scale)
    del numbers["scores"], numbers["peaks"]
    return {
        "name": content.name,
        "created": content.created,
        "sowa": content.version,
        "model": {"name": recipe.model, "options": dict(recipe.options)},
        "trained": None if recipe.trained is None else dict(recipe.trained),
        "backbone": {
            "name": recipe.backbone,
            "options": dict(recipe.backbone_options),
            "weights_id": recipe.weights_id,
            "licence": recipe.licence,
            "inside": inside,
            **({} if recipe.precision is None else {"precision": recipe.precision}),
        },
        "view": {"size": view.size, "fit": view.fit, "tile": view.tile, "overlap": view.overlap},
        "calibration": numbers,
        "normals": [asdict(normal) for normal in content.normals],
        "copies": content.copies,
    }


# ------------------------------------------------------------------------------------------------------------- reading

Check = Callable[[Any], bool]


def understood(
    about: Any,
    *,
    reference: Reference,
    scores: NDArray[np.float64],
    peaks: NDArray[np.float64],
    mask: NDArray[np.bool_] | None,
    thumbnails: Tensor | None,
) -> tuple[Content, bool]:
    """The content of a file and whether the backbone is inside; ArtifactError for anything missing, foreign or odd."""
    top = _fields(about, "the description", TOP)
    model, tower = _fields(top["model"], "model", MODEL), top["backbone"]
    backbone = _fields({"precision": None} | tower if isinstance(tower, dict) else tower, "backbone", BACKBONE)
    trained = None if top["trained"] is None else _fields(top["trained"], "trained", TRAINED)
    _check_options(model["options"], "model")
    _check_options(backbone["options"], "backbone")
    if foreign := sorted(backbone["options"].keys() - set(BACKBONE_OPTIONS)):
        raise ArtifactError(f"its backbone has the unknown option '{foreign[0]}'")
    scale = _fields(top["calibration"], "calibration", CALIBRATION)
    if not scale["exceeding"] <= scale["normals"] or not scale["found"] <= scale["defects"]:
        raise ArtifactError("its calibration counts more than there are")
    normals = tuple(Normal(**_fields(one, "normals", NORMAL)) for one in top["normals"])
    if thumbnails is not None and len(thumbnails) != len(normals):
        raise ArtifactError(f"it has {len(thumbnails)} thumbnails of {len(normals)} pictures")
    recipe = Recipe(
        model=model["name"],
        options=model["options"],
        backbone=backbone["name"],
        backbone_options=backbone["options"],
        weights_id=backbone["weights_id"],
        licence=backbone["licence"],
        trained=trained,
        precision=backbone["precision"],
    )
    content = Content(
        name=top["name"],
        created=top["created"],
        version=top["sowa"],
        recipe=recipe,
        view=View(**_fields(top["view"], "view", VIEW), mask=mask),
        calibration=Calibration(**scale, scores=tuple(scores.tolist()), peaks=tuple(peaks.tolist())),
        reference=reference,
        normals=normals,
        copies=top["copies"],
        thumbnails_N64=thumbnails,
    )
    return content, backbone["inside"]


def _fields(found: Any, where: str, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The object's values if it has exactly the wanted keys and each value is of its kind."""
    if not isinstance(found, dict):
        raise ArtifactError(f"{where} is not an object")
    missing, foreign = sorted(checks.keys() - found.keys()), sorted(found.keys() - checks.keys())
    if missing or foreign:
        what = f"lacks '{missing[0]}'" if missing else f"has the unknown key '{foreign[0][:60]}'"
        raise ArtifactError(f"{where} {what}")
    for key, fits in checks.items():
        if not fits(found[key]):
            raise ArtifactError(f"{where} has a '{key}' that cannot be: {str(found[key])[:60]!r}")
    return found


def _check_options(options: Mapping[str, Any], where: str) -> None:
    for name, value in options.items():
        limit = MOST_SEED if name == "seed" else MOST_NUMBER
        if not _is_name(name) or not _is_plain(value, limit):
            raise ArtifactError(f"option '{str(name)[:60]}' of its {where} cannot be: {str(value)[:60]!r}")


def _is_plain(value: Any, limit: int) -> bool:
    """A single value, or a short list of such."""
    if isinstance(value, list):
        most = MOST_WORDS if value and all(isinstance(one, str) for one in value) else MOST_LIST
        return len(value) <= most and all(not isinstance(one, list) and _is_plain(one, limit) for one in value)
    if isinstance(value, str):
        return _is_text(value)
    return value is None or isinstance(value, bool) or (_is_number(value) and abs(value) <= limit)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MOST_SEED if isinstance(value, int) else math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT and value.isprintable()


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,80}", value) is not None


def _is_file_name(value: Any) -> bool:
    return _is_text(value) and bool(value) and not {"/", "\\"} & set(value) and value not in (".", "..")


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_whole(least: int, most: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


TOP: dict[str, Check] = {
    "name": lambda value: _is_text(value) and bool(value),
    "created": _is_text,
    "sowa": _is_text,
    "model": lambda value: True,
    "trained": lambda value: True,
    "backbone": lambda value: True,
    "view": lambda value: True,
    "calibration": lambda value: True,
    "normals": lambda value: isinstance(value, list) and len(value) <= MOST_NORMALS,
    "copies": _is_whole(0, MOST_NORMALS),
}
MODEL: dict[str, Check] = {"name": _is_name, "options": lambda value: isinstance(value, dict)}
TRAINED: dict[str, Check] = {"name": _is_file_name, "sha256": _is_hash}
BACKBONE: dict[str, Check] = {
    "name": _is_name,
    "options": lambda value: isinstance(value, dict),
    "weights_id": _is_text,
    "licence": _is_text,
    "inside": lambda value: isinstance(value, bool),
    "precision": lambda value: value is None or (isinstance(value, str) and value in PRECISIONS),
}
VIEW: dict[str, Check] = {
    "size": _is_whole(1, MOST_NUMBER),
    "fit": lambda value: isinstance(value, str) and value in get_args(Fit),
    "tile": _or_none(lambda value: _is_share(value) and value >= LEAST_TILE),
    "overlap": lambda value: _is_number(value) and 0 <= value <= MOST_OVERLAP,
}
CALIBRATION: dict[str, Check] = {
    "threshold": _is_number,
    "middle": _is_number,
    "pixel_threshold": _or_none(lambda value: _is_number(value) and value > 0),
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "normals": _is_whole(0, MOST_NORMALS),
    "exceeding": _is_whole(0, MOST_NORMALS),
    "ranked": lambda value: isinstance(value, bool),
    "target": _or_none(_is_share),
    "defects": _is_whole(0, MOST_NORMALS),
    "found": _is_whole(0, MOST_NORMALS),
    "suggestion": _or_none(_is_number),
}
NORMAL: dict[str, Check] = {
    "name": _is_file_name,
    "sha256": _is_hash,
    "use": lambda value: isinstance(value, str) and value in USES,
}
