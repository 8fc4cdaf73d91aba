"""Tokens of single images on disk: a bounded folder of checked files that several processes may share.

An entry is raw numbers behind a JSON header and a hash of both; nothing in it is executed. It is written beside its
place and renamed, so that a reader sees all of it or nothing, whoever is killed. One that is damaged all the same (a
crashed machine, a bad disk) fails its hash, is removed, and counts as absent. Any file may vanish at any time: what is
absent is computed again.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from sowa.errors import ConfigError, UnknownNameError
from sowa.types import Tokens

__all__ = ["PRECISIONS", "TokenStore"]

PRECISIONS = {"float32": torch.float32, "float16": torch.float16}
MAGIC = b"SOWATOK1"
HASHED_FROM = len(MAGIC) + 32
HEADER_BYTES = 1 << 14
ALIGNED = 64
"""The numbers begin at a multiple of it, so that they can be used where they lie."""
ENTRY_BYTES = 1 << 30
"""Largest entry that is read; four levels of ViT-L/14 at 336 px are 9.4 MB."""
RESERVE = 256 << 20
"""Bytes of the disk that are left to everybody else."""
ABANDONED = 3600.0
"""Seconds after which what a killed process began to write is swept away."""


class TokenStore:
    """A folder of entries, at most `limit_bytes` of them.

    Where it is full, entries that this process has neither read nor written go first, the longest unused of them. It
    never drops its own: an epoch visits all images in a new order, and dropping the oldest would make every visit a
    miss. When only its own are left it stops writing, and says so once. Several processes count for themselves and look
    again after each 64th of the limit, so the bound holds to that 64th for each of them.
    """

    def __init__(self, *, folder: Path, limit_bytes: int, precision: str = "float32"):
        """`precision`: what entries are kept in, one of PRECISIONS. ConfigError where the folder cannot be made."""
        if precision not in PRECISIONS:
            raise UnknownNameError("precision of the token cache", got=precision, known=PRECISIONS)
        if not limit_bytes > 0:
            raise ConfigError(f"a token cache of {limit_bytes} bytes cannot hold anything: give a limit above 0")
        self.folder, self.limit_bytes, self.precision = folder, limit_bytes, precision
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the token cache {folder} cannot be made ({error.strerror}): set token_cache.folder"
            ) from None
        self._own: set[str] = set()
        self._stopped = False
        self._rescan()

    @property
    def held_bytes(self) -> int:
        """Bytes in the folder, as last seen."""
        return self._held

    def free_bytes(self) -> int:
        """Bytes of the disk that may still be written."""
        return max(shutil.disk_usage(self.folder).free - RESERVE, 0)

    def rounded(self, tokens: Tokens) -> Tokens:
        """The tokens as they come back from the disk: float32 on the CPU."""
        kind = PRECISIONS[self.precision]
        cls, *levels = (one.to("cpu", kind).float() for one in (tokens.cls, *tokens.levels))
        return Tokens(cls, tuple(levels), tokens.grid)

    def read(self, key: str) -> Tokens | None:
        """Tokens of one image, rows [1, ...] float32 on the CPU; None where they are absent or damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                raw = bytearray(size) if size <= ENTRY_BYTES else bytearray()
                whole = file.readinto(raw) == size
        except OSError:
            return None
        tokens = _decoded(raw, key) if whole else None
        with suppress(OSError):
            if tokens is None:
                path.unlink()
            else:
                os.utime(path)
                self._own.add(key)
        return tokens

    def write(self, key: str, tokens: Tokens) -> bool:
        """Keep the tokens of one image, rows [1, ...]; False where there is no room or the disk refuses."""
        if self._stopped:
            return False
        parts = _encoded(key, tokens, self.precision)
        size = sum(len(part) for part in parts)
        if not self._has_room(size):
            return False
        path = self._path(key)
        beside = path.with_name(f".{key[:16]}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(exist_ok=True)
            with beside.open("xb") as file:
                for part in parts:
                    file.write(part)
            os.replace(beside, path)  # not synced: what a crash of the machine tears fails its hash
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            return self._stop(f"cannot be written ({error.strerror or error})")
        self._held, self._unseen = self._held + size, self._unseen + size
        self._own.add(key)
        return True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.tok"

    def _has_room(self, size: int) -> bool:
        if self._unseen > self.limit_bytes // 64:
            self._rescan()
        if self.free_bytes() < size:
            return self._stop("has no room left on its disk")
        if self._held + size > self.limit_bytes:
            self._evict(size)
        if self._held + size > self.limit_bytes:
            return self._stop(f"is full at {self.limit_bytes / 1e9:.1f} GB")
        return True

    def _evict(self, size: int) -> None:
        """Make room for an entry of this size, and some more, among the entries of others."""
        self._rescan()
        goal = self.limit_bytes - max(size, self.limit_bytes // 64)
        others = sorted((one for one in self._entries() if one[2].stem not in self._own), key=lambda one: one[0])
        for _, held, path in others:
            if self._held <= goal:
                break
            with suppress(OSError):
                path.unlink()
            self._held -= held

    def _rescan(self) -> None:
        """Count what is there, and sweep away what killed processes left half written."""
        self._held, self._unseen = 0, 0
        for used, size, path in self._entries(pattern="*/*"):
            if path.suffix != ".tok" and used < time.time() - ABANDONED:
                with suppress(OSError):
                    path.unlink()
                continue
            self._held += size

    def _entries(self, pattern: str = "*/*.tok") -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, file) of everything in the folder."""
        for path in self.folder.glob(pattern):
            with suppress(OSError):
                facts = path.stat()
                yield facts.st_mtime, facts.st_size, path

    def _stop(self, reason: str) -> bool:
        self._stopped = True
        print(
            f"sowa: the token cache {self.folder} {reason}: tokens that are not in it are computed every time",
            file=sys.stderr,
            flush=True,
        )
        return False


def _encoded(key: str, tokens: Tokens, precision: str) -> list[bytes | memoryview]:
    tensors = [one.detach()[0].to("cpu", PRECISIONS[precision]).contiguous() for one in (tokens.cls, *tokens.levels)]
    shapes = [list(one.shape) for one in tensors]
    about = {"key": key, "dtype": precision, "grid": list(tokens.grid), "shapes": shapes}
    header = json.dumps(about, separators=(",", ":")).encode()
    header += b" " * (-(HASHED_FROM + 4 + len(header)) % ALIGNED)
    body = [struct.pack("<I", len(header)), header, *(memoryview(one.numpy()).cast("B") for one in tensors)]
    digest = hashlib.sha256()
    for part in body:
        digest.update(part)
    return [MAGIC, digest.digest(), *body]


def _decoded(raw: bytearray, key: str) -> Tokens | None:
    """What an entry holds; None for anything but exactly what was written under this key."""
    view = memoryview(raw)
    if view[: len(MAGIC)] != MAGIC or hashlib.sha256(view[HASHED_FROM:]).digest() != view[len(MAGIC) : HASHED_FROM]:
        return None
    try:
        (length,) = struct.unpack_from("<I", raw, HASHED_FROM)
        place = HASHED_FROM + 4 + length
        about = json.loads(bytes(view[HASHED_FROM + 4 : min(place, HASHED_FROM + HEADER_BYTES)]))
        kind, tensors = PRECISIONS[about["dtype"]], []
        for shape in about["shapes"]:
            count = math.prod(shape)
            numbers = torch.frombuffer(raw, dtype=kind, count=count, offset=place)
            tensors.append(numbers.view(shape).float()[None])
            place += count * kind.itemsize
        if about["key"] != key or place != len(raw):
            return None
        rows, columns = about["grid"]
        return Tokens(tensors[0], tuple(tensors[1:]), (rows, columns))
    except (ValueError, LookupError, TypeError, RuntimeError, struct.error):
        return None  # a right hash over a foreign content
