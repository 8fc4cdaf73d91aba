"""The calculation of a fitted detector as one module: uint8 pictures in, score and heat map out.

It has two parts. `Tower` goes from pixels to tokens and holds nearly all weights; int8 touches nothing else. The head
goes from tokens and what was learnt to score and map. What was learnt is baked in (`detector_graph`), or an input
beside the pictures (`open_graph`): then one graph serves all products of a method with the same options on a backbone.
Methods whose own code asks numbers for decisions, or looks at each picture of a batch alone, have a head of their own
in `heads`; the gate compares every export with the detector.

B images, V levels, L tokens, D token width, M bank rows, R directions, S image side.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sowa.detectors.base import Detector
from sowa.detectors.patchcore import Patchcore
from sowa.detectors.sowa import Sowa
from sowa.detectors.sowa_plus import SowaPlus
from sowa.errors import ConfigError
from sowa.export.heads import Again, DetectorHead, Head, PatchcoreHead, SowaPlusHead, WholeSearch
from sowa.export.matrices import apart, shrinking
from sowa.predictor.sessions import HEAT, MAP, SCORE
from sowa.types import Reference

__all__ = ["METHODS", "Asked", "DetectorGraph", "OpenGraph", "detector_graph", "open_graph"]

METHODS = ("padim", "patchcore", "sowa", "sowa_plus")
"""Methods that are exported."""
OPEN: dict[str, dict[str, dict[int, int]]] = {
    "padim": {"axes": {1: 1}, "variance": {1: 1}},
    "patchcore": {"bank": {0: 1}},
    "sowa": {"bank": {1: 1}},
    "sowa_plus": {"basis": {1: 1}, "global": {0: 1}},
}
"""Entries of references whose size differs from product to product: along which side, and the least it may be."""
WHOLE = {
    "padim": ("channels", "mean"),
    "patchcore": (),
    "sowa": ("prototypes", "support_peak"),
    "sowa_plus": ("mean", "scale", "map_scale", "logits", "opinion"),
}
"""Entries of one size that scores depend on, too."""


class Asked(NamedTuple):
    """What a graph asks of an entry of a reference."""

    dtype: str
    shape: tuple[int, ...]
    least: Mapping[int, int]
    """Sides that may have any size, from this on."""
    filled: bool = False
    """Whether zeros may be put where there are fewer: directions without variance say nothing."""

    def told(self) -> dict[str, Any]:
        """As the graph says it of itself."""
        shape = [None if side in self.least else size for side, size in enumerate(self.shape)]
        return {
            "dtype": self.dtype,
            "shape": shape,
            "least": max(self.least.values(), default=0),
            "filled": self.filled,
        }


class Tower(nn.Module):
    """uint8 [B, 3, S, S] -> class vector and levels."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, ...]:
        tokens = self.detector.encode(images_B3SS)
        return tokens.cls, *tokens.levels


class SowaPlusTower(nn.Module):
    """As `SowaPlus.encode`, with each smaller picture made by two matrices."""

    def __init__(self, detector: SowaPlus, *, heard: bool):
        """heard: the tokens of the trained head are wanted, too, at each size."""
        super().__init__()
        self.towers, self.described = nn.ModuleList(detector.towers), detector.described
        self.taps, self.global_tap = detector.taps, detector.global_tap
        self.head_taps = detector.trained.taps if heard else ()
        self.network, size = detector.network, detector.backbone.image_size
        looks = [tower.image_size for tower in detector.smaller]
        for number, wanted in enumerate(looks, start=1):
            self.register_buffer(f"shrink_{number}", shrinking(size, wanted))
        if self.network is not None:
            self.register_buffer("shrink_network", shrinking(size, self.network.size_beside(size)))

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, ...]:
        pixels = images_B3SS.float() / 255
        levels, heads, described = [], [], pixels
        for number, tower in enumerate(self.towers):
            look = self._shrunk(pixels, str(number))
            more = (self.global_tap,) if number == self.described else ()
            found = self._tapped(tower, look, *more, *self.head_taps)
            levels += [found[tap][1] for tap in self.taps]
            heads += [found[tap][1] for tap in self.head_taps]
            if number == self.described:
                described = self._described(found)
        if self.network is not None:
            levels += [level for level, _ in self.network.encode(self._shrunk(pixels, "network"))]
        return described, *levels, *heads

    def _shrunk(self, pixels: Tensor, look: str) -> Tensor:
        shrink = getattr(self, f"shrink_{look}", None)
        if shrink is None:
            return pixels
        # Without the folding, OpenVINO takes the colours' scale that follows for one of the product's rows.
        return apart(shrink, shrink, pixels.flatten(0, 1)).unflatten(0, (-1, 3)).clamp(0, 1)

    def _tapped(self, tower: nn.Module, pixels: Tensor, *more: int) -> dict[int, tuple[Tensor, Tensor]]:
        taps = sorted({*self.taps, *more})
        return dict(zip(taps, tower.encode_normed(pixels, taps), strict=True))

    def _described(self, found: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        cls_BD, patches_BLD = found[self.global_tap]
        parts = (patches_BLD.float().mean(dim=1), cls_BD.float())
        return torch.cat([nn.functional.normalize(part, dim=-1) for part in parts], dim=1)


class DetectorGraph(nn.Module):
    """`tower` and `head`, called as such, so that an exporter's names tell the one from the other."""

    def __init__(
        self, tower: nn.Module, head: Head, pixel_threshold: float | None, ready: dict[str, Tensor], maps: bool
    ):
        super().__init__()
        self.tower, self.head, self.pixel_threshold = tower, head, pixel_threshold
        self.ready, self.outputs = ready, (SCORE, HEAT) if maps else (SCORE,)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw score [B]; then, where there is a scale for it, the map [B, S, S] over the pixel threshold."""
        score_B, map_BSS = self.head(self.ready, *self.tower(images))
        if self.pixel_threshold is None or map_BSS is None:
            return (score_B.float(),)
        return score_B.float(), map_BSS.float() / self.pixel_threshold


class OpenGraph(nn.Module):
    """`DetectorGraph` without a detector's own: what was learnt comes in, and maps go out raw."""

    def __init__(self, tower: nn.Module, head: Head, reference: Reference, inputs: Mapping[str, Asked], maps: bool):
        """reference: one to trace with, whose sizes that may change are at least two."""
        super().__init__()
        self.tower, self.head, self.reference, self.inputs = tower, head, reference, inputs
        self.outputs = (SCORE, MAP) if maps else (SCORE,)
        grid = head.again.grid
        self.rows = grid[0] * grid[1] if "bank" in inputs else 0
        """Of an image, that are compared with all of a bank."""

    def forward(self, images: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Raw score [B] and, where the method makes one, raw map [B, S, S]; values: in the order of `inputs`."""
        ready = self.head.prepared(dict(zip(self.inputs, values, strict=True)))
        return tuple(one.float() for one in self.head(ready, *self.tower(images)) if one is not None)


def detector_graph(
    detector: Detector, reference: Reference, *, method: str, pixel_threshold: float | None
) -> DetectorGraph:
    """The graph of one of `METHODS`; ConfigError for others."""
    reference = {name: value.detach().clone() for name, value in reference.items()}
    tower, head, maps = _parts(detector, reference, method, open_=False)
    ready = head.prepared(reference)
    return DetectorGraph(tower, head, pixel_threshold, ready, maps and pixel_threshold is not None).eval()


def open_graph(detector: Detector, reference: Reference, *, method: str) -> OpenGraph:
    """The graph of one of `METHODS` that takes references as inputs; this one shows their form. ConfigError else."""
    tower, head, maps = _parts(detector, reference, method, open_=True)
    inputs = {
        name: Asked(
            str(value.dtype).removeprefix("torch."),
            tuple(value.shape),
            OPEN[method].get(_kind(name), {}),
            filled=method == "padim",
        )
        for name, value in reference.items()
        if _kind(name) in (*OPEN[method], *WHOLE[method])
    }
    if isinstance(detector, Patchcore):
        inputs["bank"] = inputs["bank"]._replace(least={0: PatchcoreHead.least_rows(detector)})
    example = {name: _roomy(reference[name].detach().clone(), asked.least) for name, asked in inputs.items()}
    return OpenGraph(tower, head, example, inputs, maps).eval()


def _parts(detector: Detector, reference: Reference, method: str, *, open_: bool) -> tuple[nn.Module, Head, bool]:
    """(tower, head, whether there is a map)."""
    if method not in METHODS:
        raise ConfigError(f"{method} cannot be exported: {', '.join(METHODS)} can; predict with the .sowa file")
    size = detector.backbone.image_size
    with torch.no_grad():
        tokens = detector.encode(torch.full((1, 3, size, size), 127, dtype=torch.uint8))
        maps = detector.score(tokens, reference).score_map is not None
    again = Again(tokens)
    tower: nn.Module = Tower(detector)
    if isinstance(detector, SowaPlus):
        if "mean_0" not in reference:
            raise ConfigError(
                "sowa_plus is exported with its subspaces of good pictures: fit it on one picture or more, with"
                " memory=subspace"
            )
        heard = "head" in reference
        return SowaPlusTower(detector, heard=heard), SowaPlusHead(detector, again, heard=heard), maps
    if isinstance(detector, Patchcore):
        return tower, PatchcoreHead(detector, again, None if open_ else len(reference["bank"])), maps
    if open_ and isinstance(detector, Sowa):
        detector = copy.copy(detector)
        detector.search = WholeSearch()
    return tower, DetectorHead(detector, again), maps


def _kind(name: str) -> str:
    """`mean` of `mean_0`: what entries of several levels have in common."""
    return name.rstrip("0123456789").rstrip("_")


def _roomy(value: Tensor, least: Mapping[int, int]) -> Tensor:
    """With at least two of everything whose number may change: a tracer takes 0 and 1 for constants."""
    for side, count in least.items():
        while value.shape[side] < max(2, count):
            more = value if value.shape[side] else value.new_ones(*value.shape[:side], 1, *value.shape[side + 1 :])
            value = torch.cat((value, more), dim=side)
    return value
