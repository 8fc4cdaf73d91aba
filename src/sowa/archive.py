"""Tensors out of a torch zip archive, without executing anything that is in it.

Read are archives of `torch.save` (state dicts, whole checkpoints with any pickled settings) and TorchScript archives.
The pickle inside is not unpickled but walked by `sowa.pickled.Machine`, which can neither call nor import anything.
"""

import struct
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sowa.errors import ArtifactError
from sowa.pickled import Machine, Object, Spec

__all__ = ["named_tensors", "read_torch_archive", "state_of", "tensor_from"]

PICKLE_BYTES = 32 << 20
"""Largest description of tensors that is read; the largest published CLIP needs half a megabyte."""
NODES, DEPTH, NAME_LENGTH = 100_000, 64, 1024
"""Values visited, nesting followed and characters of a name when tensors are searched for."""
FREE_ELEMENTS = 1 << 20
"""A tensor may repeat its storage (stride 0), but only up to this many elements."""
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, EOFError, MemoryError)
"""What parsing a file of arbitrary bytes may trip over."""


def read_torch_archive(path: Path | str) -> dict[str, Tensor]:
    """All tensors of the archive on the CPU, by dotted name; everything that is not a tensor is ignored.

    Nested dicts, lists and objects become dotted names, so a checkpoint's weights are at `state_dict.NAME` and those
    of a TorchScript module at their attribute path. Shared tensors share memory. See `state_of` for the weights alone.
    Raises ArtifactError in one line if the file is absent, no such archive, damaged, or refused for its size.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except ArtifactError as trouble:
        raise ArtifactError(f"{path} cannot be read as a torch archive: {trouble}") from None
    except zipfile.BadZipFile:
        raise ArtifactError(f"{path} is not a whole torch zip archive: save it again with torch 1.6 or later") from None
    except OSError as trouble:
        raise ArtifactError(f"{path} cannot be read: {trouble.strerror or trouble}") from None
    except (*DAMAGE, struct.error) as trouble:
        reason = str(trouble).splitlines()[0][:120] if str(trouble) else type(trouble).__name__
        raise ArtifactError(f"{path} is a damaged torch archive ({reason})") from None


def state_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network among the tensors of a checkpoint: what lies under `state_dict`, else everything."""
    for prefix in ("state_dict.", "model_state_dict."):
        if inside := {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}:
            return inside
    return dict(tensors)


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, Tensor]:
    entries = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise ArtifactError(f"it holds {len(roots)} files NAME/data.pkl, a torch archive has one")
    root = roots[0]
    _check_sizes(entries, root, path)
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder").strip() != b"little":
        raise ArtifactError("its numbers are stored big-endian: save it on a little-endian machine")
    specs = named_tensors(Machine(archive.read(f"{root}data.pkl")).run())
    storages = {spec.storage.key for spec in specs.values()}
    loaded = {key: _load_bytes(archive, entries, f"{root}data/{key}") for key in sorted(storages)}
    return {name: tensor_from(spec, loaded[spec.storage.key]) for name, spec in specs.items()}


def _check_sizes(entries: Mapping[str, zipfile.ZipInfo], root: str, path: Path) -> None:
    """torch stores without compression, so nothing may be larger than the file: no decompression bomb fits in."""
    if entries[f"{root}data.pkl"].file_size > PICKLE_BYTES:
        raise ArtifactError(f"its data.pkl is larger than {PICKLE_BYTES >> 20} MB")
    single = (f"{root}data.pkl", f"{root}byteorder")
    read = [info for name, info in entries.items() if name.startswith(f"{root}data/") or name in single]
    if any(info.compress_type != zipfile.ZIP_STORED for info in read):
        raise ArtifactError("its entries are compressed, which torch never does")
    if sum(info.file_size for info in read) > path.stat().st_size:
        raise ArtifactError("its entries claim more bytes than the file has")


def _load_bytes(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> Tensor:
    if name not in entries:
        raise ArtifactError(f"entry {name} is missing")
    memory = torch.empty(entries[name].file_size, dtype=torch.uint8)
    view, filled = memoryview(memory.numpy()), 0
    with archive.open(name) as stream:  # checks the entry's checksum at its end
        while count := stream.readinto(view[filled : filled + (1 << 24)]):
            filled += count
    if filled != len(memory):
        raise ArtifactError(f"entry {name} is cut short")
    return memory


def tensor_from(spec: Spec, memory: Tensor) -> Tensor:
    available = len(memory) // spec.dtype.itemsize
    count = 1
    for size in spec.shape:
        count *= size
    last = spec.offset + sum((size - 1) * stride for size, stride in zip(spec.shape, spec.stride, strict=True))
    if min(spec.offset, *spec.shape, *spec.stride, 0) < 0 or count > max(available, FREE_ELEMENTS):
        raise ArtifactError(f"a tensor of shape {list(spec.shape)} does not fit its storage")
    if count and last >= available:
        raise ArtifactError(f"a tensor of shape {list(spec.shape)} reaches past its storage")
    if spec.dtype is torch.bool:  # bytes other than 0 and 1 would be no valid booleans
        return torch.as_strided(memory, spec.shape, spec.stride, spec.offset).ne(0)
    whole = memory[: available * spec.dtype.itemsize].view(spec.dtype)
    return torch.as_strided(whole, spec.shape, spec.stride, spec.offset)


def named_tensors(top: Any) -> dict[str, Spec]:
    """Every tensor reachable from the top value, depth first, under its dotted name; loops are not followed."""
    found: dict[str, Spec] = {}
    stack: list[tuple[str, Any, tuple[int, ...]]] = [("", top, ())]
    visited = 0
    while stack:
        name, value, above = stack.pop()
        visited += 1
        if visited > NODES or len(name) > NAME_LENGTH:
            raise ArtifactError("its values are nested beyond any network's")
        if isinstance(value, Spec):
            if name in found:
                raise ArtifactError(f"two tensors are named '{name[:80]}'")
            found[name] = value
        elif isinstance(value, Object | dict | list | tuple) and id(value) not in above and len(above) < DEPTH:
            below, prefix = (*above, id(value)), f"{name}." if name else ""
            inner = [(prefix + key, child, below) for key, child in islice(_children(value), NODES)]
            stack.extend(reversed(inner))
    return found


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """(key, child) of everything inside that could be or hold a tensor."""
    if isinstance(value, Object):
        # __getstate__ may give (attributes, slots): both are dicts.
        states = value.state if isinstance(value.state, tuple) else (value.state,)
        for part in (value.items, value.elements, *(state for state in states if isinstance(state, dict))):
            yield from _children(part)
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    yield from ((str(key), child) for key, child in pairs if isinstance(child, Object | Spec | dict | list | tuple))
