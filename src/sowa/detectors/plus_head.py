"""The trained part of SOWA Plus: a small file of the package for each backbone it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.detectors.plus_files import Stored, released, stored, write_tensors
from sowa.errors import ConfigError
from sowa.nn.maps import top_mean
from sowa.nn.states import StateHead

__all__ = [
    "SHIPPED",
    "LogitScale",
    "TrainedHead",
    "halved",
    "known_head",
    "module_of",
    "read_head",
    "shipped_head",
    "write_head",
]

FORMAT = "sowa.state_head"
MOST_BYTES = 12_000_000

SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (  # compact
        "compact.safetensors",
        "04dcf750528b78fc4add082fef4061036f8d8c87ffd7dc03f3b4c0ab7b6c3c96",
    ),
}
"""Weights of an image tower -> (file below `heads`, SHA-256 of the file)."""


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head with what it must be used with."""

    module: StateHead
    taps: tuple[int, ...]
    """Blocks of the image tower whose tokens it reads, after the tower's final norm."""
    middle: float
    slope: float
    """Image score = sigmoid(slope * (mean of the largest logits - middle))."""
    fraction: float
    """Of an image's tokens, those with the largest logits, whose mean makes the image score."""
    id_8: Tensor
    """[8] uint8, the beginning of the file's hash: references say by it what they were made with."""
    about: dict[str, Any]
    """Command, seed, time and data of the training."""

    def score(self, logits_Bhw: Tensor) -> Tensor:
        """[B] probability that an image is defective."""
        return torch.sigmoid(self.slope * (top_mean(logits_Bhw, self.fraction) - self.middle))


class LogitScale:
    """The head's logits on normal images, as a tensor [3] of a reference: number of images, mean, mean square.

    A head may fire on what every good part shows (lettering, a rim). Its share in a map is therefore counted in spreads
    of the shots' own logits, where these are wider than `LEAST`.
    """

    LEAST = 1.0

    @staticmethod
    def of(logits_KL: Tensor, earlier_3: Tensor | None = None) -> Tensor:
        """Of new images, joined with those of `earlier_3`."""
        new_3 = torch.stack((logits_KL.new_tensor(len(logits_KL)), logits_KL.mean(), logits_KL.square().mean()))
        if earlier_3 is None:
            return new_3
        count = earlier_3[0] + new_3[0]
        return torch.cat((count[None], (earlier_3[0] * earlier_3[1:] + new_3[0] * new_3[1:]) / count))

    @classmethod
    def standard(cls, logits: Tensor, scale_3: Tensor) -> Tensor:
        """Logits of any shape, in spreads above the mean of the normal ones."""
        spread = (scale_3[2] - scale_3[1].square()).clamp(min=0).sqrt().clamp(min=cls.LEAST)
        return (logits - scale_3[1]) / spread


def known_head(name: str, backbone: Backbone) -> TrainedHead | None:
    """That of the package (`auto`), if there is one for the backbone, or of a file; None for `none`.

    ConfigError if it was trained on another tower's tokens.
    """
    if name == "none":
        return None
    trained = shipped_head(backbone.weights_id) if name == "auto" else read_head(Path(name))
    if trained is not None:
        width = trained.module.inner.in_features // (2 * len(trained.taps))
        if width != backbone.width or max(trained.taps) > backbone.depth:
            raise ConfigError(f"head={name} was trained on tokens of {width} values, not on '{backbone.name}'")
    return trained


def shipped_head(weights_id: str) -> TrainedHead | None:
    """The package's head for an image tower by its `weights_id`; None where there is none.

    ArtifactError if the file is not the one that was released.
    """
    entry = released(SHIPPED, weights_id)
    return None if entry is None else read_head(entry[0], sha256=entry[1])


def read_head(path: Path, *, sha256: str | None = None) -> TrainedHead:
    """A head from its file; ArtifactError in one line if it is damaged, foreign or not the one expected."""
    with stored(
        path,
        sha256=sha256,
        format_=FORMAT,
        most=MOST_BYTES,
        foreign="it is no head of sowa_plus",
        damaged="is no head of sowa_plus, or damaged: train one, or leave out head",
    ) as found:
        return _head(found)


def _head(found: Stored) -> TrainedHead:
    about, taps = found.about, tuple(int(tap) for tap in found.about["taps"])
    return TrainedHead(
        module=module_of(found.tensors, levels=len(taps)),
        taps=taps,
        middle=float(about["middle"]),
        slope=float(about["slope"]),
        fraction=float(about["fraction"]),
        id_8=found.id_8,
        about=about,
    )


def module_of(tensors: Mapping[str, Tensor], *, levels: int) -> StateHead:
    """The head of a file's tensors, in float32, for judging alone."""
    width, hidden = tensors["inner.weight"].shape[1] // (2 * levels), len(tensors["outer.weight"][0])
    module = StateHead(width=width, levels=levels, hidden=hidden)
    module.load_state_dict({name: value.float() for name, value in tensors.items()})
    return module.requires_grad_(False).eval()


def halved(module: StateHead) -> dict[str, Tensor]:
    """A head's tensors as its file holds them, in half precision."""
    return {name: value.detach().half().contiguous() for name, value in module.state_dict().items()}


def write_head(
    path: Path, module: StateHead, *, taps: Sequence[int], middle: float, slope: float, fraction: float, **about: Any
) -> str:
    """The head as a file in half precision, whole or not at all; returns its SHA-256. The same head gives the same
    bytes."""
    facts = {"format": FORMAT, "taps": list(taps), "middle": middle, "slope": slope, "fraction": fraction, **about}
    return write_tensors(path, halved(module), facts)
