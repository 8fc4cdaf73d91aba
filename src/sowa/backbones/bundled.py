"""Backbones whose weights travel inside another file: their tensors as published, and a tower made of those."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sowa.backbones import build_backbone, find_weights
from sowa.backbones.base import Backbone
from sowa.backbones.cnn import cnn_from_state
from sowa.backbones.cnn_files import read_cnn
from sowa.backbones.cnn_weights import CNNS
from sowa.backbones.dinov2 import read_dinov2
from sowa.backbones.state import read_weights
from sowa.backbones.vit import vit_from_state
from sowa.backbones.weights import CONVERTED
from sowa.backbones.zoo import BACKBONES
from sowa.errors import ConfigError, WeightsError

__all__ = ["BUNDLED", "backbone_from_state", "published_state"]

BUNDLED = ("compact", "compact_cnn", "cnn", "random_tiny", "random_tiny_cnn")
"""Backbones that can travel; those drawn from a seed need no tensors for it."""


def published_state(
    name: str, options: Mapping[str, Any], *, weights: Path | str | None, cache_dir: Path | None, offline: bool
) -> dict[str, Tensor]:
    """The tensors `build_backbone` would read, as they are in their file; none for what is drawn from a seed."""
    if name not in BUNDLED:
        raise ConfigError(f"backbone '{name}' cannot be put inside a file: save without bundle, or choose compact")
    places = {"weights": weights, "cache_dir": cache_dir, "offline": offline}
    path = find_weights(name, model=options.get("model"), tag=options.get("tag"), **places)
    if path is None:
        return {}
    if name == "compact":
        return read_weights(path) if path.name == CONVERTED else read_dinov2(path)
    return read_cnn(path)


def backbone_from_state(name: str, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Backbone:
    """The tower of `published_state`'s tensors with the options of `build_backbone`; no file and no network is used."""
    if name not in BUNDLED:
        raise ConfigError(f"backbone '{name}' does not travel inside a file")
    spec = BACKBONES[name]
    if spec.library == "random":
        return build_backbone(name, **dict(options))
    if not state:
        raise WeightsError(f"the weights of backbone '{name}' are said to be inside, but are not")
    size = options.get("image_size") or spec.image_size
    common = {"name": name, "default_taps": spec.default_taps, "source": "the file"}
    if name == "compact":
        seed = options.get("seed", 0)
        return vit_from_state(
            state, model=spec.model, image_size=size, mean=spec.mean, std=spec.std, seed=seed, **common
        )
    model = options.get("model") or spec.model
    if model not in CNNS:
        raise ConfigError(f"backbone '{name}' has no model '{model}'")
    return cnn_from_state(state, model=model, image_size=size, mean=CNNS[model].mean, std=CNNS[model].std, **common)
