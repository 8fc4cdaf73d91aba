"""Which normal images a detector may see: a nested draw from a seed, by file name, the same for every method.

The normals of the split `train`, sorted by name, are shuffled once by
`numpy.random.default_rng(crc32("data set/category") + 1000 * seed)`; the first k are the shots. So the shots of k = 1
are among those of k = 2 and 4, and neither the file system nor the order of reading has a say. Where a data set tells
groups (the modules of ELPV), the first of each group come first, so that a few shots are not all of one lot.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from sowa.errors import ConfigError, DataError
from sowa.types import NORMAL, Sample

__all__ = ["Shots", "ShotsRecord", "draw_shots", "shots_from_record", "shots_record"]

Shots = dict[str, list[Sample]]
"""Category -> its shots in the order of the draw."""


class ShotsRecord(TypedDict):
    """One draw as it stands in `shots.json`; `shots` is category -> names."""

    dataset: str
    seed: int
    k: int
    shots: dict[str, list[str]]


def draw_shots(samples: Iterable[Sample], *, dataset: str, k: int, seed: int, allow_fewer: bool = False) -> Shots:
    """k shots of each category in `samples`; nested in k, never a defective or a test image.

    A category with fewer than k normals is an error, or gives all it has if `allow_fewer`; one with none is an error
    in any case unless k = 0.
    """
    if k < 0 or seed < 0:
        raise ConfigError(f"shots k={k} seed={seed}: both must be 0 or more")
    normals: Shots = {}
    for sample in samples:
        pool = normals.setdefault(sample.category, [])
        if sample.label == NORMAL and sample.split == "train":
            pool.append(sample)
    return {category: _draw(normals[category], dataset, category, k, seed, allow_fewer) for category in sorted(normals)}


def _draw(pool: list[Sample], dataset: str, category: str, k: int, seed: int, allow_fewer: bool) -> list[Sample]:
    if k and not pool:
        raise DataError(f"category {category} of {dataset}: no normal image for training, {k} shots asked for; use k=0")
    if k > len(pool) and not allow_fewer:
        raise DataError(
            f"category {category} of {dataset}: {len(pool)} normal images for training, {k} shots asked for"
        )
    generator = np.random.default_rng(zlib.crc32(f"{dataset}/{category}".encode()) + 1000 * seed)
    ordered = sorted(pool, key=lambda sample: sample.name)
    return _spread([ordered[i] for i in generator.permutation(len(ordered))])[:k]


def _spread(drawn: list[Sample]) -> list[Sample]:
    """The same images, first one of every group in the order of the draw, then a second of every group, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for sample in drawn:
        turns.append(seen[sample.group])
        seen[sample.group] += 1
    return [sample for _, sample in sorted(zip(turns, drawn, strict=True), key=lambda pair: pair[0])]


def shots_record(shots: Mapping[str, Sequence[Sample]], *, dataset: str, k: int, seed: int) -> ShotsRecord:
    """The draw as plain values for `shots.json`."""
    names = {category: [sample.name for sample in chosen] for category, chosen in sorted(shots.items())}
    return ShotsRecord(dataset=dataset, seed=seed, k=k, shots=names)


def shots_from_record(record: ShotsRecord, samples: Iterable[Sample]) -> Shots:
    """The draw of a record, found again among `samples`; an absent or defective image is an error."""
    by_name = {(sample.category, sample.name): sample for sample in samples}
    shots: Shots = {}
    for category, names in record["shots"].items():
        for name in names:
            if (category, name) not in by_name:
                raise DataError(f"shot {name} of category {category} is not in the data set {record['dataset']}")
            if by_name[category, name].label != NORMAL:
                raise DataError(f"shot {name} of category {category} is a defective image")
        shots[category] = [by_name[category, name] for name in names]
    return shots
