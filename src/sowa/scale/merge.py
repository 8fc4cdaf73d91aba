"""One `results.jsonl` of all parts, if and only if every picture of the list is in it exactly once."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sowa.errors import ArtifactError, DataError
from sowa.scale.blocks import PARTS, Block, Work, read_work
from sowa.scale.files import Place

__all__ = ["RESULTS", "Merged", "merge", "missing"]

RESULTS = "results.jsonl"


@dataclass(slots=True)
class Merged:
    """What is in the merged file."""

    pictures: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)


def missing(place: Place, work: Work) -> list[Block]:
    """Blocks without results."""
    there = place.names(PARTS)
    return [block for block in work.blocks() if block.name not in there]


def merge(place: Place) -> Merged:
    """Write `results.jsonl`, in the order of the work list, a row at a time; whole or not at all.

    DataError where blocks are missing, ArtifactError where a part does not hold its pictures one by one.
    """
    work = read_work(place)
    if gaps := missing(place, work):
        raise DataError(
            f"{place.url}: {len(gaps)} of {len(work)} blocks are missing, the first is number {gaps[0].number}:"
            " run sowa scale predict again, every shard of it"
        )
    merged = Merged()
    place.write(RESULTS, _rows(place, work, merged))
    return merged


def _rows(place: Place, work: Work, merged: Merged) -> Iterator[str]:
    for block in work.blocks():
        damaged = ArtifactError(f"{place.url}/{block.file} is damaged: delete it and run sowa scale predict again")
        left = iter(block.paths)
        for line in place.lines(block.file):
            try:
                row = json.loads(line)
                if row["path"] != next(left, None):
                    raise damaged
                merged.verdicts[row["verdict"]] += 1
            except (ValueError, KeyError, TypeError, RecursionError):
                raise damaged from None
            merged.pictures += 1
            yield line
        if next(left, None) is not None:
            raise damaged
