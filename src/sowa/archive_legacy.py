"""Tensors out of torch's file format before 1.6, without executing anything that is in it.

Such a file is a row of pickles (a magic number, a version, facts of the machine, the value, the keys of the storages),
then for each key the number of its elements and the elements. `sowa.pickled.Machine` walks the pickles.
"""

import struct
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from sowa.archive import DAMAGE, PICKLE_BYTES, named_tensors, tensor_from
from sowa.errors import ArtifactError
from sowa.pickled import Machine, Storage

__all__ = ["is_legacy_archive", "read_legacy_archive"]

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""The pickle of the number that every such file begins with."""
VERSION = 1001
COUNT = struct.Struct("<q")


class _LegacyMachine(Machine):
    """Also notes every storage that is mentioned: their types tell how long each is in the file."""

    def __init__(self, stream: BytesIO):
        super().__init__(stream)  # it reads on from the stream's position and stops behind its pickle's end
        self.storages: dict[str, Storage] = {}

    def persistent(self) -> None:
        super().persistent()
        if isinstance(self.stack[-1], Storage):
            self.storages[self.stack[-1].key] = self.stack[-1]


def is_legacy_archive(path: Path) -> bool:
    """Whether the file begins as torch before 1.6 wrote it."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read_legacy_archive(path: Path, *, most_bytes: int = 2 << 30) -> dict[str, Tensor]:
    """All tensors on the CPU by dotted name, as `sowa.archive.read_torch_archive` gives them.

    Raises ArtifactError in one line if the file is absent, no such file, damaged, or larger than `most_bytes`.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise ArtifactError(f"it is larger than {most_bytes >> 20} MB")
        content = path.read_bytes()
        if not content.startswith(MAGIC):
            raise ArtifactError("it does not begin as torch before 1.6 wrote")
        return _read(content)
    except ArtifactError as trouble:
        raise ArtifactError(f"{path} cannot be read as an old torch file: {trouble}") from None
    except OSError as trouble:
        raise ArtifactError(f"{path} cannot be read: {trouble.strerror or trouble}") from None
    except (*DAMAGE, struct.error) as trouble:
        reason = str(trouble).splitlines()[0][:120] if str(trouble) else type(trouble).__name__
        raise ArtifactError(f"{path} is a damaged torch file ({reason})") from None


def _read(content: bytes) -> dict[str, Tensor]:
    stream = BytesIO(content[:PICKLE_BYTES])  # no description is longer
    stream.seek(len(MAGIC))
    if Machine(stream).run() != VERSION:
        raise ArtifactError(f"its version is not {VERSION}")
    machine_facts = Machine(stream).run()
    if machine_facts.get("little_endian") is not True:
        raise ArtifactError("its numbers are stored big-endian: save it on a little-endian machine")
    described = _LegacyMachine(stream)
    specs = named_tensors(described.run())
    keys = Machine(stream).run()
    memories = _storages(content, stream.tell(), keys, described.storages)
    return {name: tensor_from(spec, memories[spec.storage.key]) for name, spec in specs.items()}


def _storages(content: bytes, place: int, keys: list[str], known: dict[str, Storage]) -> dict[str, Tensor]:
    """The bytes of every storage, in the order of the keys."""
    memories = {}
    for key in keys:
        (count,) = COUNT.unpack_from(content, place)
        place += COUNT.size
        size = count * known[key].dtype.itemsize
        if count < 0 or place + size > len(content):
            raise ArtifactError(f"storage {key} is cut short")
        memories[key] = torch.empty(size, dtype=torch.uint8)
        memoryview(memories[key].numpy())[:] = memoryview(content)[place : place + size]
        place += size
    return memories
