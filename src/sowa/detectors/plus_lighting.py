"""Directions in which tokens move when only the light changes: a small file of the package for each backbone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.detectors.plus_files import released, stored, write_tensors
from sowa.errors import ConfigError

__all__ = ["SHIPPED", "Lighting", "known_lighting", "read_lighting", "shipped_lighting", "write_lighting"]

FORMAT = "sowa.lighting"
MOST_BYTES, MOST_AXES = 4_000_000, 64


class Lighting(NamedTuple):
    axes: dict[int, Tensor]
    """Block of the tower (1-based) -> orthonormal directions [D, N] of its tokens, after the tower's final norm."""
    id_8: Tensor
    """[8] uint8, the beginning of the file's hash: references say by it what they were made with."""


SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (  # compact
        "compact_lighting.safetensors",
        "8db900247e3d927bfe77af5851457152f1ba5cc5bbd12f2f7ba870540595d6bf",
    ),
}
"""Weights of an image tower -> (file below `heads`, SHA-256 of the file)."""


def known_lighting(name: str, backbone: Backbone, taps: Sequence[int]) -> Lighting | None:
    """That of the package (`auto`), if there is one, or of a file; None for `none`, or where it knows none of `taps`.

    ConfigError if it was learnt on tokens of another width.
    """
    if name == "none":
        return None
    known = shipped_lighting(backbone.weights_id) if name == "auto" else read_lighting(Path(name))
    if known is None or not known.axes.keys() & set(taps):
        return None
    if odd := [len(axes_DN) for axes_DN in known.axes.values() if len(axes_DN) != backbone.width]:
        raise ConfigError(
            f"lighting={name} was learnt on tokens of {odd[0]} values, not on the {backbone.width} of '{backbone.name}'"
        )
    return known


def shipped_lighting(weights_id: str) -> Lighting | None:
    """The package's directions for an image tower by its `weights_id`; None where there are none.

    ArtifactError if the file is not the one that was released.
    """
    entry = released(SHIPPED, weights_id)
    return None if entry is None else read_lighting(entry[0], sha256=entry[1])


def read_lighting(path: Path, *, sha256: str | None = None) -> Lighting:
    """Directions from their file; ArtifactError in one line if it is damaged, foreign or not the one expected."""
    with stored(
        path,
        sha256=sha256,
        format_=FORMAT,
        most=MOST_BYTES,
        foreign="it holds no directions of light",
        damaged="holds no directions of light, or is damaged: leave out lighting",
    ) as found:
        axes = {int(name): _orthonormal(axes_DN) for name, axes_DN in found.tensors.items()}
        return Lighting(axes, found.id_8)


def write_lighting(path: Path, axes: Mapping[int, Tensor], **about: Any) -> str:
    """The directions as a file in half precision, whole or not at all; returns its SHA-256. The same directions give
    the same bytes."""
    tensors = {str(block): axes_DN.half().contiguous() for block, axes_DN in sorted(axes.items())}
    return write_tensors(path, tensors, {"format": FORMAT, **about})


def _orthonormal(axes_DN: Tensor) -> Tensor:
    """What rounding to half precision took away; ValueError for what spans less than its columns say."""
    if axes_DN.ndim != 2 or not 0 < axes_DN.shape[1] <= min(MOST_AXES, len(axes_DN)):
        raise ValueError("no table of directions")
    given = axes_DN.double()
    found, triangle = torch.linalg.qr(given)
    if not bool(given.isfinite().all()) or float(triangle.diagonal().abs().min()) < 0.1:
        raise ValueError("no directions")
    return (found * triangle.diagonal().sign()).float()
