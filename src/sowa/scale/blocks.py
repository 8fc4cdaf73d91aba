"""The work list, cut into blocks. A block's name tells the detector, its number and its pictures, and no others.

`work.jsonl` in the folder of results holds the list: everybody who works on it reads the same one.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sowa.errors import ArtifactError, ConfigError
from sowa.scale.files import Place

__all__ = ["PARTS", "Block", "Work", "open_work", "read_work"]

FORMAT, VERSION = "sowa.work", 1
LIST, PARTS = "work.jsonl", "parts"


@dataclass(frozen=True, slots=True)
class Block:
    """Pictures that are scored together."""

    number: int
    id: str
    paths: tuple[str, ...]

    @property
    def file(self) -> str:
        """Name of its results below the folder."""
        return f"{PARTS}/{self.name}"

    @property
    def name(self) -> str:
        return f"{self.number:08d}-{self.id}.jsonl"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: every path once, in order."""

    detector: str
    """sha256 of the detector's file."""
    size: int
    """Pictures of a block, the last may have fewer."""
    paths: tuple[str, ...]

    @property
    def id(self) -> str:
        return _digest([self.detector, str(self.size), *self.paths])

    def __len__(self) -> int:
        return -(-len(self.paths) // self.size)

    def blocks(self) -> Iterator[Block]:
        for number in range(len(self)):
            paths = self.paths[number * self.size : (number + 1) * self.size]
            yield Block(number, _digest([self.detector, str(number), *paths]), paths)


def open_work(place: Place, work: Work) -> None:
    """Lay the list down, or find that it is there already. ConfigError where the folder belongs to another list."""
    if not place.exists(LIST):
        about = {"format": FORMAT, "version": VERSION, "detector": work.detector, "block": work.size}
        head = {**about, "pictures": len(work.paths), "id": work.id}
        place.write(LIST, (json.dumps(row) for row in (head, *work.paths)))
    found = read_work(place)  # also after writing: another may have laid down another list in the same moment
    if found.id != work.id:
        what = "another detector" if found.detector != work.detector else "other pictures or blocks"
        raise ConfigError(
            f"{place.url} holds the results of {what} ({len(found.paths)} pictures in blocks of {found.size});"
            " give another folder"
        )


def read_work(place: Place) -> Work:
    """The list of a folder. ConfigError where there is none, ArtifactError where it is damaged."""
    try:
        rows = [json.loads(line) for line in place.lines(LIST)]
    except FileNotFoundError:
        raise ConfigError(f"{place.url}: no {LIST} in it; give the folder of a sowa scale predict") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{place.url}/{LIST} is damaged: delete the folder and begin anew") from None
    head: Any = rows[0] if rows else None
    if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("version") != VERSION:
        raise ArtifactError(f"{place.url}/{LIST} is no work list of this version of sowa")
    detector, size, paths = head.get("detector"), head.get("block"), rows[1:]
    if not isinstance(detector, str) or type(size) is not int or size < 1 or not all(type(p) is str for p in paths):
        raise ArtifactError(f"{place.url}/{LIST} is damaged: delete the folder and begin anew")
    work = Work(detector, size, tuple(paths))
    if work.id != head.get("id"):
        raise ArtifactError(f"{place.url}/{LIST} is damaged: delete the folder and begin anew")
    return work


def _digest(words: Sequence[str]) -> str:
    """Sixteen hexadecimal digits; no two lists of words run together the same way."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(json.dumps(word).encode("ascii") + b"\n")
    return digest.hexdigest()[:16]
