"""Frozen towers: `build_backbone(name)` makes one. Libraries and weights are loaded only when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING

from sowa.backbones.zoo import BACKBONES, PUBLISHED, BackboneSpec
from sowa.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from sowa.backbones.base import Backbone

__all__ = ["BACKBONES", "RANDOM", "build_backbone", "find_weights"]

RANDOM = "random"
"""As `weights`: none are read, they are drawn."""


def build_backbone(
    name: str,
    *,
    model: str | None = None,
    tag: str | None = None,
    image_size: int | None = None,
    weights: Path | str | None = None,
    activation: str = "auto",
    seed: int = 0,
    cache_dir: Path | None = None,
    offline: bool = False,
) -> "Backbone":
    """A frozen backbone by its name in BACKBONES.

    model, tag: which architecture and which of its weights (`clip`: any open_clip vision transformer; `cnn`: one of
    sowa.backbones.cnn_weights.CNNS).
    image_size: side of the input in pixels, a multiple of the patch; None: the size of the weights or of BACKBONES.
    weights: a file to read instead of looking in the cache and on the network; `random` draws them from the seed
    (`clip`, `clip_dinov2`, `cnn`, `compact_cnn`), for dry runs and for measuring speed.
    activation: `auto` is what the weights were trained with; `gelu` or `quickgelu` force one (`clip`).
    seed: of whatever is drawn at random: all of `random_tiny`, the text tower of `compact`, `weights="random"`.
    cache_dir: where weights are kept; else the environment variable SOWA_CACHE, else the platform's place.
    offline: never try the network.
    Raises UnknownNameError, ConfigError, or WeightsError saying which file is wanted and where it may be put.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", got=name, known=BACKBONES)
    spec = BACKBONES[name]
    if image_size is not None and (isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1):
        raise ConfigError(f"image_size {image_size!r} is no number of pixels: give a multiple of the patch")
    if name not in ("clip", "cnn") and model is not None:
        raise ConfigError(f"backbone '{name}' is one model: leave out model={model}, or use backbone 'clip' or 'cnn'")
    if name.endswith("cnn"):
        return _cnn(name, spec, model, tag, image_size, weights, activation, seed, cache_dir, offline)
    if name == "random_tiny":
        return _random_tiny(spec, tag=tag, image_size=image_size, weights=weights, activation=activation, seed=seed)
    if name == "compact":
        return _compact(spec, tag, image_size, weights, activation, seed, cache_dir, offline)
    if name == "clip_dinov2":
        return _pair(spec, tag, image_size, weights, activation, seed, cache_dir, offline)
    if weights == RANDOM:
        from sowa.backbones.drawn_weights import random_clip

        return random_clip(spec=spec, model=model, image_size=image_size, activation=activation, seed=seed)
    return _clip(spec, model, tag, image_size, weights, activation, cache_dir, offline)


def _random_tiny(
    spec: BackboneSpec, *, tag: str | None, image_size: int | None, weights: object, activation: str, seed: int
) -> "Backbone":
    if tag or weights:
        raise ConfigError("backbone 'random_tiny' is drawn from its seed: leave out tag and weights")
    from sowa.backbones.random_tiny import build_random_tiny

    return build_random_tiny(spec=spec, image_size=image_size, activation=activation, seed=seed)


def _compact(
    spec: BackboneSpec,
    tag: str | None,
    image_size: int | None,
    weights: Path | str | None,
    activation: str,
    seed: int,
    cache_dir: Path | None,
    offline: bool,
) -> "Backbone":
    if activation not in ("auto", "gelu"):
        raise ConfigError(f"activation '{activation}' does not fit backbone 'compact': DINOv2 was trained with gelu")
    from sowa.backbones.weights import find_compact

    # The file first: torch and timm take seconds to load, and a missing file should be said at once.
    path = find_compact(spec, tag=tag, weights=weights, cache_dir=cache_dir, offline=offline)
    from sowa.backbones.compact import build_compact

    return build_compact(spec=spec, path=path, image_size=image_size, seed=seed, cache_dir=cache_dir, offline=offline)


def _pair(
    spec: BackboneSpec,
    tag: str | None,
    image_size: int | None,
    weights: Path | str | None,
    activation: str,
    seed: int,
    cache_dir: Path | None,
    offline: bool,
) -> "Backbone":
    if tag or weights not in (None, RANDOM) or activation != "auto":
        raise ConfigError(
            "backbone 'clip_dinov2' has two files of weights: put them into the cache and leave out tag, weights and"
            f" activation, or give weights={RANDOM} for a dry run"
        )
    places = {"weights": weights, "cache_dir": cache_dir, "offline": offline}
    language = build_backbone("clip", seed=seed, **places)  # first: a missing file is said before anything is loaded
    from sowa.backbones.pair import build_pair

    return build_pair(
        spec=spec,
        language=language,
        image_size=image_size,
        drawn=weights == RANDOM,
        seed=seed,
        cache_dir=cache_dir,
        offline=offline,
    )


def _cnn(
    name: str,
    spec: BackboneSpec,
    model: str | None,
    tag: str | None,
    image_size: int | None,
    weights: Path | str | None,
    activation: str,
    seed: int,
    cache_dir: Path | None,
    offline: bool,
) -> "Backbone":
    if activation != "auto":
        raise ConfigError(f"activation '{activation}' does not fit backbone '{name}': leave it out")
    if name == "random_tiny_cnn":
        if tag or weights:
            raise ConfigError(f"backbone '{name}' is drawn from its seed: leave out tag and weights")
        from sowa.backbones.random_tiny_cnn import build_random_tiny_cnn

        return build_random_tiny_cnn(spec=spec, image_size=image_size, seed=seed)
    if weights == RANDOM:
        from sowa.backbones.drawn_weights import random_cnn

        return random_cnn(spec=spec, model=model, image_size=image_size, name=name, seed=seed)
    path = _find_cnn(name, spec, model, tag, weights, cache_dir, offline)
    from sowa.backbones.cnn_files import build_cnn

    return build_cnn(spec=spec, path=path, model=model, image_size=image_size, name=name)


def _find_cnn(
    name: str,
    spec: BackboneSpec,
    model: str | None,
    tag: str | None,
    weights: Path | str | None,
    cache_dir: Path | None,
    offline: bool,
) -> Path:
    from sowa.backbones.cnn_weights import find_cnn, find_compact_cnn

    places = {"tag": tag, "weights": weights, "cache_dir": cache_dir, "offline": offline}
    return find_cnn(model=model or spec.model, **places) if name == "cnn" else find_compact_cnn(spec, **places)


def _clip(
    spec: BackboneSpec,
    model: str | None,
    tag: str | None,
    image_size: int | None,
    weights: Path | str | None,
    activation: str,
    cache_dir: Path | None,
    offline: bool,
) -> "Backbone":
    path, model, tag = _find_clip(spec, model, tag, weights, cache_dir, offline)
    from sowa.backbones.openclip import load_clip

    return load_clip(spec=spec, path=path, model=model, tag=tag, image_size=image_size, activation=activation)


def _find_clip(
    spec: BackboneSpec,
    model: str | None,
    tag: str | None,
    weights: Path | str | None,
    cache_dir: Path | None,
    offline: bool,
) -> tuple[Path, str, str | None]:
    """(file, model, tag)."""
    from sowa.backbones.weights import find_published, given_file

    if weights:
        # Without a model the file is the default's; with one, its origin is known only if a tag says it.
        return given_file(weights), model or spec.model, tag or (spec.tag if model is None else None)
    model = model or spec.model
    if (model, tag or spec.tag) in PUBLISHED:
        tag = tag or spec.tag
        place = PUBLISHED[model, tag]
    else:
        from sowa.backbones.openclip import choose_tag, hub_place

        tag = choose_tag(model, tag)
        place = hub_place(model, tag)
    path = find_published(
        name=f"{model}-{tag}",
        repository=place[0],
        files=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        archive=place[1],
        cache_dir=cache_dir,
        offline=offline,
    )
    return path, model, tag


def find_weights(
    name: str,
    *,
    model: str | None = None,
    tag: str | None = None,
    weights: Path | str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
) -> Path | None:
    """The file `build_backbone` would load, fetched if need be; None for what is drawn from a seed.

    Loads neither torch nor a network library, so that a missing file is said at once. Raises as `build_backbone` does.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", got=name, known=BACKBONES)
    spec = BACKBONES[name]
    if weights == RANDOM and name != "compact":
        return None
    if name == "compact":
        from sowa.backbones.weights import find_compact

        return find_compact(spec, tag=tag, weights=weights, cache_dir=cache_dir, offline=offline)
    if name == "clip_dinov2":
        return _find_clip(BACKBONES["clip"], None, None, None, cache_dir, offline)[0]
    if name == "clip":
        return _find_clip(spec, model, tag, weights, cache_dir, offline)[0]
    if name in ("cnn", "compact_cnn"):
        return _find_cnn(name, spec, model, tag, weights, cache_dir, offline)
    return None
