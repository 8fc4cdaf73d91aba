"""The calculation of a fitted detector as one module: uint8 pictures in, score and heat map out.

It has two parts. `Tower` goes from pixels to tokens and holds nearly all weights; int8 touches nothing else. The head
goes from tokens to score and map with what was learnt baked in. Methods whose own code asks numbers for decisions, or
looks at each picture of a batch alone, have a head of their own here; the gate compares every export with the detector.

B images, V levels, L tokens, D token width, M bank rows, R directions, S image side.
"""

import torch
from torch import Tensor, nn

from sowa.detectors.base import Detector
from sowa.detectors.patchcore import Patchcore
from sowa.detectors.sowa_plus import SowaPlus
from sowa.errors import ConfigError
from sowa.export.heads import Again, DetectorHead, PatchcoreHead, SowaPlusHead
from sowa.export.matrices import apart, shrinking
from sowa.types import Reference

__all__ = ["METHODS", "DetectorGraph", "detector_graph"]

METHODS = ("padim", "patchcore", "sowa", "sowa_plus")
"""Methods that are exported."""


class Tower(nn.Module):
    """uint8 [B, 3, S, S] -> class vector and levels."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, ...]:
        tokens = self.detector.encode(images_B3SS)
        return tokens.cls, *tokens.levels


class SowaPlusTower(nn.Module):
    """As `SowaPlus.encode`, with the picture of half the size made by two matrices."""

    def __init__(self, detector: SowaPlus):
        super().__init__()
        self.big, self.small = detector.backbone, detector.small
        self.taps, self.global_tap = detector.taps, detector.global_tap
        if self.small is not None:
            self.register_buffer("shrink", shrinking(self.big.image_size, self.small.image_size))

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, ...]:
        pixels = images_B3SS.float() / 255
        if self.small is None:
            found = self._tapped(self.big, pixels, last=True)
            return self._described(found), *(found[tap][1] for tap in self.taps)
        big = self._tapped(self.big, pixels, last=False)
        small = self._tapped(self.small, apart(self.shrink, self.shrink, pixels).clamp(0, 1), last=True)
        return self._described(small), *(big[tap][1] for tap in self.taps), *(small[tap][1] for tap in self.taps)

    def _tapped(self, tower: nn.Module, pixels: Tensor, *, last: bool) -> dict[int, tuple[Tensor, Tensor]]:
        taps = sorted({*self.taps, *([self.global_tap] if last else [])})
        return dict(zip(taps, tower.encode_normed(pixels, taps), strict=True))

    def _described(self, found: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        cls_BD, patches_BLD = found[self.global_tap]
        parts = (patches_BLD.float().mean(dim=1), cls_BD.float())
        return torch.cat([nn.functional.normalize(part, dim=-1) for part in parts], dim=1)


class DetectorGraph(nn.Module):
    """`tower` and `head`, called as such, so that an exporter's names tell the one from the other."""

    def __init__(self, tower: nn.Module, head: nn.Module, pixel_threshold: float | None):
        super().__init__()
        self.tower, self.head, self.pixel_threshold = tower, head, pixel_threshold

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw score [B]; then, where there is a scale for it, the map [B, S, S] over the pixel threshold."""
        score_B, map_BSS = self.head(*self.tower(images))
        if self.pixel_threshold is None or map_BSS is None:
            return (score_B.float(),)
        return score_B.float(), map_BSS.float() / self.pixel_threshold


def detector_graph(
    detector: Detector, reference: Reference, *, method: str, pixel_threshold: float | None
) -> DetectorGraph:
    """The graph of one of `METHODS`; ConfigError for others."""
    if method not in METHODS:
        raise ConfigError(f"{method} cannot be exported: {', '.join(METHODS)} can; predict with the .sowa file")
    reference = {name: value.detach().clone() for name, value in reference.items()}
    size = detector.backbone.image_size
    with torch.no_grad():
        tokens = detector.encode(torch.full((1, 3, size, size), 127, dtype=torch.uint8))
    again = Again(tokens)
    tower: nn.Module = Tower(detector)
    if isinstance(detector, SowaPlus):
        if "mean_0" not in reference or detector.head_map:
            raise ConfigError(
                "sowa_plus is exported with its subspaces of good pictures alone: fit it on one picture or more, with"
                " memory=subspace and head_map=0"
            )
        tower, head = SowaPlusTower(detector), SowaPlusHead(detector, reference, again)
    elif isinstance(detector, Patchcore):
        head = PatchcoreHead(detector, reference, again)
    else:
        head = DetectorHead(detector, reference, again)
    return DetectorGraph(tower, head, pixel_threshold).eval()
