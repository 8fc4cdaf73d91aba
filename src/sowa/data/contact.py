"""Which images a contact sheet of a category shows, and at what size they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sowa.data.images import read_image, read_mask
from sowa.errors import DataError
from sowa.types import Sample

__all__ = ["Shown", "pairs_of", "read_shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One image as it is shown."""

    sample: Sample
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    mask: NDArray[np.uint8] | None
    """[H, W] in {0, 1}: pixels of which any part is marked. None for a good image and where no mask can be read."""


def pairs_of(samples: Sequence[Sample], most: int) -> list[tuple[list[Sample], list[Sample]]]:
    """At most `most` pairs (good ones, defective ones) of one category, each a list of candidates, best first.

    The defective images take turns among the kinds of defect; both sides are spread evenly over their lists. Behind
    each stand those that may take its place if it cannot be read.
    """
    good = [sample for sample in samples if not sample.label]
    by_defect: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.label:
            by_defect.setdefault(sample.defect, []).append(sample)
    turns = zip_longest(*(_spread(kind) for _, kind in sorted(by_defect.items())))
    bad = [sample for turn in turns for sample in turn if sample is not None]
    number, left = min(most, len(bad) or len(good)), _spread(good)
    return [(left[i::number], bad[i::number]) for i in range(number)]


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """All of them, so ordered that any first few lie far apart: by the reversed binary digits of their places."""
    bits = max(len(samples) - 1, 1).bit_length()
    places = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [samples[place] for place in places if place < len(samples)]


def read_shown(candidates: Sequence[Sample], side: int) -> Iterator[Shown | DataError]:
    """The candidates one by one, not larger than `side`; what cannot be read is the error that says why."""
    for sample in candidates:
        try:
            image = read_image(sample.image)
        except DataError as error:
            yield error
            continue
        try:
            mask = read_mask(sample, image.size) if sample.label and sample.masks else None
        except DataError as error:
            yield error
            mask = None
        image.thumbnail((side, side), Image.Resampling.BOX)
        yield Shown(sample, np.asarray(image), None if mask is None else _shrunk(mask, image.size))


def _shrunk(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return (np.asarray(small) > 0).astype(np.uint8)
