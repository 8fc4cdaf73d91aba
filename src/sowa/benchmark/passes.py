"""One pass of a tower for all detectors that read it."""

from collections.abc import Hashable

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.detectors.base import Detector
from sowa.types import Tokens

__all__ = ["Tapped", "groups_of", "one_pass"]


class Tapped:
    """One pass of a backbone for several detectors: each gets the levels of its own taps."""

    def __init__(self, detectors: list[Detector]):
        self.detectors = detectors
        self.backbone = detectors[0].backbone
        self.shared = all(type(one).encode is Detector.encode for one in detectors)
        self.taps = tuple(sorted({tap for one in detectors for tap in one.taps})) if self.shared else ()

    def encode(self, images_B3HW: Tensor) -> Tokens:
        if not self.shared:
            return self.detectors[0].encode(images_B3HW)
        return self.backbone.encode_image(images_B3HW, self.taps)

    def own(self, tokens: Tokens, detector: Detector) -> Tokens:
        """The part of the shared tokens that `detector.encode` would have given."""
        if not self.shared:
            return tokens
        return tokens.pick([self.taps.index(tap) for tap in detector.taps])


def groups_of(detectors: list[Detector]) -> list[Tapped]:
    """Detectors that can share tokens together: those that read taps of one backbone, and those that encode in a way of
    their own but alike."""
    together: dict[Hashable, list[Detector]] = {}
    for detector in detectors:
        own_way = type(detector).encode is not Detector.encode
        together.setdefault(detector.encoding() if own_way else id(detector.backbone), []).append(detector)
    return [Tapped(members) for members in together.values()]


def one_pass(backbone: Backbone) -> Backbone:
    """The same backbone, which from now on remembers the normed tokens of the last images: detectors that encode in
    ways of their own (two settings of SOWA Plus, one to block 8, one to block 12) then cost one pass, not two.

    Which blocks are read is learnt from what was asked before, so the first images pass more than once. Results are the
    very ones of a pass of their own: blocks do not depend on those after them. The same tower at another size is made
    once and remembers, too.
    """
    run, asked, resized = backbone._run_normed, set(), backbone.at_size
    sizes: dict[int, Backbone] = {}
    last: list[tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]] = []

    def remembered(pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        asked.update(indices)
        if not (last and indices and set(indices) <= last[0][1].keys() and torch.equal(last[0][0], pixels)):
            wanted = sorted(asked)
            last[:] = [(pixels, dict(zip(wanted, run(pixels, wanted), strict=True)))]
        return [last[0][1][index] for index in indices]

    def at_size(image_size: int) -> Backbone:
        if image_size not in sizes:
            sizes[image_size] = one_pass(resized(image_size))
        return sizes[image_size]

    backbone.__dict__["_run_normed"], backbone.__dict__["at_size"] = remembered, at_size
    return backbone
