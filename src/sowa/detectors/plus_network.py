"""The second tower of SOWA Plus, a file of the package: it was trained for something else than the transformer beside
it, and errs elsewhere."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.stages import MODEL, STAGES, FirstStages, kept
from sowa.detectors.plus_files import released, stored, write_tensors

__all__ = ["MAPPED", "SHIPPED", "Network", "known_network", "read_network", "write_network"]

FORMAT, MOST_BYTES = "sowa.network", 12_000_000
MAPPED = (0, 1)
"""Of the levels, by their place, those with a share in the map: the finer ones."""

SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (  # beside compact
        "compact_network.safetensors",
        "27784eae62786c7fb1f3e497b5b7432a0eba96008a37b2c5b9cb6cec8049176e",
    ),
}
"""Weights of an image tower -> (file below `heads`, SHA-256 of the file) of the network beside it."""


class Network(FirstStages):
    """With the file it came from."""

    id_8: Tensor
    """[8] uint8, the beginning of the file's hash: references say by it what they were made with."""

    @property
    def levels(self) -> int:
        return len(STAGES)


def known_network(name: str, backbone: Backbone) -> Network | None:
    """That of the package (`auto`), if there is one beside the backbone, or of a file; None for `none`."""
    if name == "none":
        return None
    if name != "auto":
        return read_network(Path(name))
    entry = released(SHIPPED, backbone.weights_id)
    return None if entry is None else read_network(entry[0], sha256=entry[1])


def read_network(path: Path, *, sha256: str | None = None) -> Network:
    """A network from its file; ArtifactError in one line if it is damaged, foreign or not the one expected."""
    with stored(
        path,
        sha256=sha256,
        format_=FORMAT,
        most=MOST_BYTES,
        foreign="it is no network of sowa_plus",
        damaged="is no network of sowa_plus, or damaged: leave out network",
    ) as found:
        if found.about["model"] != MODEL:
            raise ValueError("another network")
        network = Network(found.tensors, mean=_colours(found.about["mean"]), std=_colours(found.about["std"]))
        network.id_8 = found.id_8
        return network


def write_network(path: Path, visual: nn.Module, **about: Any) -> str:
    """The first stages of timm's network as a file, whole or not at all; returns its SHA-256. The same network gives
    the same bytes. about: `mean` and `std` of its pictures, and where it comes from."""
    return write_tensors(path, kept(visual), {"format": FORMAT, "model": MODEL, **about})


def _colours(values: list[float]) -> list[float]:
    red, green, blue = (float(value) for value in values)
    if min(red, green, blue) <= 0:
        raise ValueError("no colours")
    return [red, green, blue]
