"""`sowa measure-int8`: what int8 needs to know of a tower that the package has no ranges of, kept in the cache.

The ranges of its channels come from drawn training pictures, which no figure of the project is about; how far its
tokens in int8 are from those in float32 is then said of others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sowa.artifact import write_whole
from sowa.backbones.base import Backbone
from sowa.backbones.precision import resolve_precision
from sowa.backbones.quick_int8 import Ranges, measured_ranges
from sowa.backbones.ranges import ranges_bytes, ranges_place, shipped_ranges
from sowa.errors import ConfigError, WeightsError
from sowa.training.scoring import support_of
from sowa.training.sources import read_source
from sowa.wheels import CACHE_VARIABLE

__all__ = ["ByteReport", "measure_int8", "training_images"]

DRAWN = {"part": "training", "seed": 0, "train_good": 2, "test_good": 2, "test_bad": 4, "size": 512}
EVERY = 3
"""Every third of these is measured on; of those between them, every fourth is held back."""
BATCH = 4
MOST_APART = 0.25
"""Relative difference of a level's tokens beyond which nothing is written."""


@dataclass(frozen=True, slots=True)
class ByteReport:
    path: Path
    images: int
    """Measured on."""
    held: int
    """Compared on."""
    apart: dict[int, float]
    """Default tap -> distance of its tokens from those in float32, as a share of their length."""

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        apart = {str(tap): value for tap, value in self.apart.items()}
        return {"path": str(self.path), "images": self.images, "held": self.held, "apart": apart}


def training_images(image_size: int) -> tuple[Tensor, Tensor]:
    """(measured on, held back), each [N, 3, S, S] uint8; the same everywhere."""
    samples = read_source(dataset="drawn", layout="mvtec", draw=DRAWN).samples
    return support_of(samples[::EVERY], image_size).images, support_of(samples[1 :: 4 * EVERY], image_size).images


@torch.inference_mode()
def measure_int8(backbone: Backbone, *, progress: Callable[[int, int], None] = lambda done, total: None) -> ByteReport:
    """Measure a float32 tower and write its ranges into the cache; int8 can be asked for from then on.

    progress: told (done, total) images. Raises ConfigError for a tower or a processor without int8, for one that has
    been lowered already, and where int8 comes out too far from float32, WeightsError where the cache cannot be written:
    then there is no file.
    """
    resolve_precision("int8", width=backbone.width, device=backbone.mean.device)
    tower = backbone.byte_tower
    place = None if tower is None else ranges_place(tower, backbone.weights_id)
    if place is None:
        raise ConfigError(f"backbone '{backbone.name}' has no products of bytes: choose one vision transformer")
    if shipped_ranges(backbone.weights_id) is not None:
        raise ConfigError(f"the ranges of backbone '{backbone.name}' come with the package: precision=int8 works")
    if backbone.precision != "fp32":
        raise ConfigError(f"backbone '{backbone.name}' computes in {backbone.precision}: measure it in fp32")
    own, held = training_images(backbone.image_size)
    total = len(own) + len(held)
    ranges = _measured(backbone, own, lambda done: progress(done, total))
    apart = _apart(backbone, backbone._in_bytes(ranges), held, lambda done: progress(len(own) + done, total))
    if not max(apart.values()) <= MOST_APART:
        raise ConfigError(
            f"int8 does not suit backbone '{backbone.name}': tokens of block {max(apart, key=apart.__getitem__)} are"
            f" {100 * max(apart.values()):.0f} % from float32, at most {100 * MOST_APART:.0f} % are let through; choose"
            " auto or bf16"
        )
    try:
        write_whole(place.path, ranges_bytes(ranges))
    except OSError as trouble:
        raise WeightsError(f"{place.path} cannot be written ({trouble.strerror}): set {CACHE_VARIABLE}") from None
    return ByteReport(place.path, len(own), len(held), apart)


def _measured(backbone: Backbone, images: Tensor, told: Callable[[int], None]) -> Ranges:
    whole: list[Tensor] = []
    for done, some in _batches(images):
        found = measured_ranges(backbone.byte_tower, backbone._normalised(some))
        whole = [_wider(*pair) for pair in zip(whole, found, strict=True)] if whole else list(found)
        told(done)
    # As they will be read again: what is said of them is said of the file.
    return Ranges(*(values.half().float() for values in whole))


def _wider(one_N2D: Tensor, other_N2D: Tensor) -> Tensor:
    least, most = torch.minimum(one_N2D, other_N2D)[:, 0], torch.maximum(one_N2D, other_N2D)[:, 1]
    return torch.stack((least, most), dim=1)


def _apart(exact: Backbone, lowered: Backbone, images: Tensor, told: Callable[[int], None]) -> dict[int, float]:
    taps = exact.default_taps
    sums = torch.zeros(len(taps), 2, dtype=torch.float64)
    for done, some in _batches(images):
        pairs = zip(lowered.encode_image(some, taps).levels, exact.encode_image(some, taps).levels, strict=True)
        for place, (found, due) in enumerate(pairs):
            sums[place] += torch.stack(((found - due).double().square().sum(), due.double().square().sum()))
        told(done)
    return dict(zip(taps, (sums[:, 0] / sums[:, 1]).sqrt().tolist(), strict=True))


def _batches(images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(images done with this one, batch)."""
    done = 0
    for some in images.split(BATCH):
        done += len(some)
        yield done, some
