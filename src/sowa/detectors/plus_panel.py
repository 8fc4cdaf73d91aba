"""Who judges by training alone in SOWA Plus: the trained head at every size that is looked at, and a small head on the
tokens of the second tower.

B images, J judges, L tokens, h w grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import PyramidTokens
from sowa.backbones.stages import STAGES
from sowa.detectors.plus_files import Stored, id_of, released, stored, write_tensors
from sowa.detectors.plus_head import TrainedHead, halved, module_of
from sowa.detectors.plus_network import Network
from sowa.errors import ConfigError
from sowa.nn.maps import enlarge, to_grid, top_mean
from sowa.nn.states import StateHead

__all__ = ["MAP_SHARES", "SHIPPED", "Judges", "Panel", "known_judges", "on_one_grid", "read_judges", "write_judges"]

FORMAT, MOST_BYTES = "sowa.judges", 12_000_000
MAP_SHARES = (1.0, 0.5, 0.25)
"""Of the looks, from the full size down, in the map."""

SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (  # beside the head of compact
        "compact_judges.safetensors",
        "8d6107c701f2b4551b6d206c7f466f58bdacd55959248dcdca93495fccf83935",
    ),
}
"""Weights of an image tower -> (file below `heads`, SHA-256 of the file)."""


@dataclass(frozen=True, slots=True)
class Judges:
    """What makes one opinion of several: a head of the second tower, and the scales on which judges agree."""

    module: StateHead
    """Of the network's tokens, on the grid of the finest of its `places`."""
    places: tuple[int, ...]
    """Of the network's levels, those it reads."""
    looks: dict[int, tuple[float, float]]
    """Image size -> mean and spread of the head's score (mean of the largest logits) on the training pictures."""
    beside: dict[int, tuple[float, float]]
    """The same of `module`, by the size at which the network looks."""
    ends: dict[int, tuple[float, float, float, float]]
    """Full image size -> `middle`, `slope`, `good`, `bad` of the common score of the training pictures: where good and
    defective ones part, two over their spread, the mean of the good and of the defective ones."""
    head_8: Tensor
    network_8: Tensor
    """[8] uint8: the hashes of the head and of the network that they were measured with begin so."""
    id_8: Tensor
    """[8] uint8, the beginning of the file's hash: references say by it what they were made with."""
    about: dict[str, Any]
    """Command, seed, time and data of the training."""


class Judge(NamedTuple):
    middle: float
    spread: float
    weight: float
    """In the score."""
    share: float
    """In the map."""


class Panel(nn.Module):
    """One or several judges; nothing of the user's images enters.

    Every judge has a logit for each of its tokens. Their scores, the mean of the largest logits, are put on one scale,
    that of the training pictures, and averaged; so are the logits of a spot.
    """

    def __init__(
        self,
        head: TrainedHead,
        judges: Judges | None,
        *,
        sizes: Sequence[int],
        weights: Sequence[float],
        spaces: int,
        network: Network | None,
        network_weight: float,
        network_map: float,
    ):
        """sizes: of the images that are looked at, from the full one down; weights: of these in the score. spaces:
        levels of the memory, which come before the head's; the network's are the last of them. Without `judges` the
        head judges the full size alone."""
        super().__init__()
        self.head, self.taps, self.fraction, self.spaces = head.module, len(head.taps), head.fraction, spaces
        self.beside: StateHead | None = None
        self.seen: list[int] = []
        if judges is None:
            self.judges = [Judge(0.0, 1.0, 1.0, 1.0)]
            self.middle, self.slope, self.good, self.bad = head.middle, head.slope, 0.0, 0.0
            return
        self.judges = [
            Judge(*_nearest(judges.looks, size), weight, share)
            for size, weight, share in zip(sizes, weights, MAP_SHARES, strict=False)
        ]
        self.middle, self.slope, self.good, self.bad = _nearest(judges.ends, sizes[0])
        if network is not None and torch.equal(network.id_8, judges.network_8):
            self.beside = judges.module
            self.seen = [spaces - network.levels + place for place in judges.places]
            size = network.size_beside(sizes[0])
            self.judges.append(Judge(*_nearest(judges.beside, size), network_weight, network_map))

    @property
    def looks(self) -> int:
        """At how many sizes the head judges."""
        return len(self.judges) - (self.beside is not None)

    def forward(self, tokens: PyramidTokens) -> list[Tensor]:
        """J logits [B, h, w], each on its own grid; above 0 more likely abnormal than normal."""
        found = []
        for look in range(self.looks):
            first = self.spaces + look * self.taps
            found.append(to_grid(self.head(tokens.levels[first : first + self.taps]), tokens.grids[first]))
        if self.beside is not None:
            even, grid = on_one_grid([(tokens.levels[place], tokens.grids[place]) for place in self.seen])
            found.append(to_grid(self.beside(even), grid))
        return found

    def score(self, logits: Sequence[Tensor]) -> Tensor:
        """[B], the mean of the judges' scores in spreads of the training pictures."""
        standard = [
            judge.weight * (top_mean(one_Bhw, self.fraction) - judge.middle) / judge.spread
            for judge, one_Bhw in zip(self.judges, logits, strict=True)
        ]
        return torch.stack(standard).sum(dim=0) / sum(judge.weight for judge in self.judges)

    def alone(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """([B] probability that images are defective, [B, h, w] logits, [B, J, h, w] logits of each judge)."""
        score_B = torch.sigmoid(self.slope * (self.score(logits) - self.middle))
        grid = (logits[0].shape[-2], logits[0].shape[-1])
        levels_BJhw = torch.stack([enlarge(one_Bhw, grid, 0) for one_Bhw in logits], dim=1)
        return score_B, self.map(logits), levels_BJhw

    def map(self, logits: Sequence[Tensor]) -> Tensor:
        """[B, h, w], the mean of the judges' logits on the grid of the full size."""
        grid = (logits[0].shape[-2], logits[0].shape[-1])
        whole = logits[0]
        for judge, one_Bhw in zip(self.judges[1:], logits[1:], strict=True):
            whole = whole + judge.share * enlarge(one_Bhw, grid, 0)
        return whole / sum(judge.share for judge in self.judges)

    def trust(self, scores_K: Tensor) -> Tensor:
        """[] between 0 and 1: how far it takes what is known to be good for good. 1 where its mean score of normal
        images is that of the good training pictures, 0 where it is that of the defective ones."""
        if self.bad <= self.good:
            return scores_K.new_zeros(())
        return ((self.bad - scores_K.mean()) / (self.bad - self.good)).clamp(0, 1)


def on_one_grid(
    levels: Sequence[tuple[Tensor, tuple[int, int]]],
) -> tuple[list[Tensor], tuple[int, int]]:
    """(tokens [B, L, D] of all levels on the finest of their grids, that grid)."""
    finest = max(grid for _, grid in levels)
    even = [
        level_BLD
        if grid == finest
        else enlarge(to_grid(level_BLD.transpose(1, 2), grid), finest, 0).flatten(2).transpose(1, 2)
        for level_BLD, grid in levels
    ]
    return even, finest


def known_judges(name: str, head: TrainedHead, backbone: Backbone) -> Judges | None:
    """Those of the package (`auto`), if there are any beside this head, or of a file; None for `none`.

    ConfigError if those of a file were measured with another head.
    """
    if name == "none":
        return None
    if name != "auto":
        found = read_judges(Path(name))
        if not torch.equal(found.head_8, head.id_8):
            raise ConfigError(f"judges={name} were trained beside another head: give that one as head, or judges=none")
        return found
    entry = released(SHIPPED, backbone.weights_id)
    found = None if entry is None else read_judges(entry[0], sha256=entry[1])
    return found if found is not None and torch.equal(found.head_8, head.id_8) else None


def read_judges(path: Path, *, sha256: str | None = None) -> Judges:
    """Judges from their file; ArtifactError in one line if it is damaged, foreign or not the one expected."""
    with stored(
        path,
        sha256=sha256,
        format_=FORMAT,
        most=MOST_BYTES,
        foreign="they are no judges of sowa_plus",
        damaged="holds no judges of sowa_plus, or is damaged: leave out judges",
    ) as found:
        return _judges(found)


def _judges(found: Stored) -> Judges:
    about, places = found.about, tuple(int(place) for place in found.about["places"])
    if not places or not 0 <= min(places) <= max(places) < len(STAGES):
        raise ValueError("no levels of a network")
    return Judges(
        module=module_of(found.tensors, levels=1),
        places=places,
        looks=_scales(about["looks"], 2),
        beside=_scales(about["beside"], 2),
        ends=_scales(about["ends"], 4),
        head_8=id_of(about["head"]),
        network_8=id_of(about["network"]),
        id_8=found.id_8,
        about=about,
    )


def write_judges(path: Path, module: StateHead, **about: Any) -> str:
    """Judges as a file in half precision, whole or not at all; returns its SHA-256. The same ones give the same bytes.

    about: `places`, `looks`, `beside` and `ends` as in `Judges`; `head` and `network`, the SHA-256 of their files."""
    return write_tensors(path, halved(module), {"format": FORMAT, **about})


def _scales(values: Mapping[str, Sequence[float]], count: int) -> dict[int, Any]:
    found = {int(size): tuple(float(value) for value in row) for size, row in values.items()}
    if not found or any(len(row) != count or size < 1 or not row[1] > 0 for size, row in found.items()):
        raise ValueError("no scales")
    return found


def _nearest(scales: Mapping[int, Any], size: int) -> Any:
    """Those of the size that is nearest by ratio."""
    return scales[min(scales, key=lambda known: max(known, size) / min(known, size))]
