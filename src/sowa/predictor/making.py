"""Detectors from a user's choice, and from what a file says of itself."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sowa.artifact import digest, find_trained, load_trained, read_meta
from sowa.backbones import BACKBONES, build_backbone
from sowa.backbones.base import Backbone
from sowa.backbones.licences import licence_of
from sowa.backbones.precision import resolve_precision
from sowa.detectors import DETECTORS, build_detector, detector_class
from sowa.detectors.base import Detector
from sowa.errors import ArtifactError, ConfigError, SowaError, UnknownNameError
from sowa.predictor.content import BACKBONE_OPTIONS, Content, Recipe
from sowa.predictor.file import Stored
from sowa.predictor.heat import encode_views

__all__ = ["Choice", "Engine", "defaults", "new_detector", "probe", "stored_detector"]

PLACES = ("weights", "cache_dir", "offline")
"""Options of a backbone that say where its weights are and not what they are."""


class Engine(NamedTuple):
    """Where and in which numbers a detector computes."""

    precision: str = "auto"
    device: str = "cpu"

    def checked(self) -> "Engine":
        """Itself; UnknownNameError or ConfigError for what does not exist or this machine does not have."""
        resolve_precision(self.precision, width=0, device=_place(self.device))
        return self

    def placed(self, detector: Detector) -> Detector:
        """The detector for learning, there: what is learnt is of float32 products, whatever scores later."""
        return detector.to(_place(self.device)).eval()

    def take(self, detector: Detector) -> Detector:
        """The detector for scoring, there."""
        return self.placed(detector).at_precision(self.precision).eval()


class Choice(NamedTuple):
    """What a user says of a detector; None: what the trained weights say, else the default."""

    model: str | None
    backbone: str | None
    options: Mapping[str, Any] | None
    backbone_options: Mapping[str, Any] | None
    trained: Path | str | None
    engine: Engine = Engine("fp32")


def _place(device: str) -> torch.device:
    """A device by name; `auto` is the first GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UnknownNameError("device", got=device, known=("auto", "cpu", "cuda", "mps"))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(kind, True)
    if not there:
        raise ConfigError(f"device={device} is not there: this machine or this torch has none, choose cpu or auto")
    return torch.device(device)


def new_detector(
    choice: Choice, *, default_model: Callable[[Backbone], str], default_backbone: str
) -> tuple[Detector, Recipe]:
    """A detector for learning and how to make it again; `default_model` names one for a backbone."""
    path = None if choice.trained is None else find_trained(Path(choice.trained))
    meta = {} if path is None else read_meta(path)
    if path is not None and choice.model not in (None, meta["detector"]):
        raise ConfigError(f"'{path}' holds trained {meta['detector']}, not {choice.model}: leave out the model")
    name = choice.model or meta.get("detector")
    if name is not None:
        detector_class(name)  # a wrong name is said before weights are loaded
    said = {key: value for key, value in meta.get("model", {}).items() if key != "name"}
    wanted = said | dict(choice.options or {})
    _plain(wanted, "options")
    tower_name, kept, places = _backbone_choice(choice, meta.get("backbone", {}), default_backbone)
    tower = build_backbone(tower_name, **kept, **places)
    name = name or default_model(tower)
    chosen = _plain(defaults(name) | wanted, "options")
    detector = build_detector(name, backbone=tower, **chosen).eval()
    if path is not None:
        load_trained(path, detector)
    own_file = "weights" in places
    licence = licence_of(tower_name, model=kept.get("model"), tag=kept.get("tag"), own_file=own_file)
    about = None if path is None else {"name": path.name, "sha256": digest(detector.trained_state())}
    detector = choice.engine.placed(detector)
    precision = detector.backbone.precision
    return detector, Recipe(name, chosen, tower_name, kept, tower.weights_id, licence, about, precision)


def defaults(name: str) -> dict[str, Any]:
    """The options of a method that nobody sets: a file holds them, so that it means the same to later versions."""
    parameters = inspect.signature(detector_class(name)).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _backbone_choice(
    choice: Choice, said: Mapping[str, Any], default: str
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, the options that make it what it is, and those that say where its weights are."""
    name, given = choice.backbone or said.get("name") or default, dict(choice.backbone_options or {})
    if name == said.get("name"):
        given = {key: said[key] for key in BACKBONE_OPTIONS if key in said} | given
    given = {key: value for key, value in given.items() if value is not None}
    places = {key: given.pop(key) for key in PLACES if key in given}
    if foreign := sorted(given.keys() - set(BACKBONE_OPTIONS)):
        known = ", ".join((*BACKBONE_OPTIONS, *PLACES))
        raise ConfigError(f"backbone_options has no '{foreign[0]}': choose from {known}")
    return name, _plain(given, "backbone_options"), places


def stored_detector(
    stored: Stored,
    *,
    cache_dir: Path | None,
    offline: bool,
    weights: Path | str | None,
    engine: Engine | None = None,
) -> tuple[Detector, Content]:
    """The detector of a file, proven on one picture, and the content with its reference where the detector is;
    ArtifactError if the file's parts do not fit each other."""
    recipe = stored.content.recipe
    if recipe.model not in DETECTORS or recipe.backbone not in BACKBONES:
        raise ArtifactError(f"it needs {recipe.model} on {recipe.backbone}, which this program does not have")
    tower = _tower(stored, cache_dir, offline, weights)
    if tower.weights_id != recipe.weights_id:
        raise ArtifactError(
            f"it was fitted on backbone weights {recipe.weights_id[:23]}, not on {tower.weights_id[:23]}:"
            f" give those of {recipe.backbone}, or a file saved with its backbone inside"
        )
    try:
        options = dict(detector_class(recipe.model).former_defaults) | dict(recipe.options)
        detector = build_detector(recipe.model, backbone=tower, **options).eval()
        detector.load_trained_state(stored.trained)
        detector, content = _placed(detector, stored.content, engine or Engine())
        if stored.content.view.size != tower.image_size:
            raise ArtifactError(f"it looks at {stored.content.view.size} pixels, its backbone at {tower.image_size}")
        _check_form(detector, content)
        probe(detector, content.reference)
    except ArtifactError:
        raise
    except SowaError as error:
        raise ArtifactError(f"its parts do not fit each other: {error}") from None
    except Exception as error:  # foreign shapes and options fail wherever they first meet code that expects others
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ArtifactError(f"its parts do not fit each other ({reason})") from None
    return detector, content


def _placed(detector: Detector, content: Content, engine: Engine) -> tuple[Detector, Content]:
    detector = engine.take(detector)
    device = detector.backbone.mean.device
    return detector, replace(content, reference={name: value.to(device) for name, value in content.reference.items()})


def _check_form(detector: Detector, content: Content) -> None:
    """Names, types and dimensions of the reference are those of a fresh one; ArtifactError if not."""
    shots = sum(normal.use == "reference" for normal in content.normals)
    if shots and detector.trains == "target":
        return  # a fresh one would have to be trained
    tokens = encode_views(detector, _grey(detector)) if shots else None
    fresh, found = detector.fit_tokens(content.name, tokens), content.reference
    if odd := sorted(fresh.keys() ^ found.keys()):
        raise ArtifactError(f"its reference lacks or has too many of '{odd[0]}'")
    for name, value in found.items():
        if value.dtype != fresh[name].dtype or value.ndim != fresh[name].ndim:
            raise ArtifactError(f"its reference has '{name}' as {value.ndim}-dimensional {value.dtype}")


def _grey(detector: Detector) -> torch.Tensor:
    size = detector.backbone.image_size
    return torch.full((1, 3, size, size), 127, dtype=torch.uint8, device=detector.backbone.mean.device)


@torch.no_grad()
def probe(detector: Detector, reference: Mapping[str, torch.Tensor]) -> float | None:
    """Score a grey picture; returns how its map compares with the mean of its levels, None without either.

    ArtifactError if score or map are not of the form that a detector's are.
    """
    size = detector.backbone.image_size
    found = detector(_grey(detector), dict(reference))
    fits = found.score.shape == (1,) and found.score.isfinite().all()
    if found.score_map is not None:
        fits = fits and found.score_map.shape == (1, size, size) and found.score_map.isfinite().all()
    if not fits:
        raise ArtifactError("its parts do not fit each other: no score comes out of them")
    if found.score_map is None or found.levels is None or not found.levels.mean() > 0:
        return None
    return float(found.score_map.mean() / found.levels.mean())


def _tower(stored: Stored, cache_dir: Path | None, offline: bool, weights: Path | str | None) -> Backbone:
    recipe = stored.content.recipe
    if stored.backbone is None:
        places = {"cache_dir": cache_dir, "offline": offline, "weights": weights}
        return build_backbone(recipe.backbone, **recipe.backbone_options, **places)
    from sowa.backbones.bundled import backbone_from_state

    try:
        return backbone_from_state(recipe.backbone, stored.backbone, recipe.backbone_options)
    except SowaError as error:
        raise ArtifactError(f"the backbone inside cannot be used: {error}") from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ArtifactError(f"the backbone inside cannot be used ({reason})") from None


def _plain(options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """As they come back from JSON, so that a detector and its file agree."""
    try:
        return json.loads(json.dumps(dict(options), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be stored: {error}; give plain numbers, texts and lists") from None
