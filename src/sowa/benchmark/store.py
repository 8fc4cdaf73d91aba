"""One cell, one file. Several processes and machines may share the folder.

A cell's key is a hash of all that decides its numbers, and part of its file's name: a changed setting is another file,
an unchanged one is found again. Files appear whole or not at all. Who works on a category holds a lock: a file made
exclusively, touched while the work goes on, and taken over by others once it has not been touched for `STALE` seconds.
Looking and taking are one step under a guard that the system frees with its process, so that of several that find a
lock abandoned one gets it. Where the file system has no such guard, two that look in the same instant may both get it:
a category is then computed twice, and its files are the same.
"""

import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sowa.errors import SowaError
from sowa.metrics.table import write_json

__all__ = ["FORMAT", "VERSION", "Store", "key_of"]

FORMAT, VERSION = "sowa.cell", 1
STALE = 900.0
GUARDED = 10.0  # seconds to wait for others that look at a lock; they need far less
REQUIRED = ("key", "method", "league", "backbone", "dataset", "category", "k", "seed", "protocol", "metrics", "scores")
MAX_BYTES = 200_000_000


def key_of(parts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name these values and no others."""
    text = json.dumps({"format": FORMAT, "version": VERSION, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Store:
    """The folder of a benchmark: `cells/`, `locks/`, `trained/`."""

    def __init__(self, folder: Path, *, stale: float = STALE):
        self.folder, self.stale = folder, stale
        self.me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            for part in ("cells", "locks"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SowaError(f"{folder}: cannot be made: {error.strerror}; give another folder") from None

    def path(self, *, method: str, dataset: str, category: str, k: int, seed: int, key: str) -> Path:
        """Where a cell lies; names are made fit for every file system."""
        place = self.folder / "cells" / _plain(dataset) / _plain(category)
        return place / f"{_plain(method)}-k{k}-seed{seed}-{key}.json"

    def has(self, path: Path, key: str) -> bool:
        """Whether the cell is there and whole; a damaged file is set aside, so that it is computed anew."""
        try:
            return read_cell(path)["key"] == key
        except FileNotFoundError:
            return False
        except SowaError:
            with suppress(OSError):
                path.replace(path.with_name(f"{path.name}.damaged"))
            return False

    def write(self, path: Path, cell: Mapping[str, Any]) -> None:
        """The cell, whole or not at all."""
        write_json(path, {"format": FORMAT, "version": VERSION, **cell})

    def cells(self) -> tuple[list[dict[str, Any]], list[Path]]:
        """(all cells in the order of their paths, files that are no whole cells)."""
        found, damaged = [], []
        for path in sorted((self.folder / "cells").rglob("*.json")):
            try:
                found.append(read_cell(path))
            except (SowaError, OSError):
                damaged.append(path)
        return found, damaged

    @contextmanager
    def claim(self, name: str) -> Iterator["Lock | None"]:
        """The lock of that name, or None while another process holds it."""
        lock = Lock(self.folder / "locks" / f"{_plain(name)}.lock", self.me, self.stale)
        if not lock.take():
            yield None
            return
        try:
            yield lock
        finally:
            lock.release()


class Lock:
    """An exclusive claim that others respect as long as it is touched."""

    def __init__(self, path: Path, me: str, stale: float):
        self.path, self.me, self.stale, self.touched = path, me, stale, 0.0

    def take(self) -> bool:
        try:
            with self._alone():
                if self.path.exists() and self._abandoned():
                    self.path.unlink(missing_ok=True)
                with self.path.open("x", encoding="utf-8") as file:
                    file.write(self.me)
        except (FileExistsError, Timeout):
            return False
        except OSError as error:
            raise SowaError(f"cannot write {self.path}: {error.strerror}") from None
        self.touched = time.monotonic()
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process or thread looks at a lock of this folder; Timeout if that cannot be had."""
        guard = FileLock(self.path.parent.parent / ".guard", timeout=GUARDED)
        try:
            guard.acquire()
        except Timeout:
            raise
        except (OSError, NotImplementedError):  # some network folders have none
            yield
            return
        try:
            yield
        finally:
            guard.release()

    def _abandoned(self) -> bool:
        """Not touched for long, or by a process of this machine that is no more."""
        try:
            host, pid, _ = self.path.read_text(encoding="utf-8").rsplit("-", 2)
            if host == socket.gethostname() and not _alive(int(pid)):
                return True
        except (OSError, ValueError):  # just given back, or not written yet
            pass
        try:
            return time.time() - self.path.stat().st_mtime > self.stale
        except OSError:
            return True

    def touch(self) -> None:
        """Say that the work goes on; cheap enough for every batch."""
        if time.monotonic() - self.touched > min(30.0, self.stale / 4):
            self.touched = time.monotonic()
            with suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        with suppress(OSError, Timeout), self._alone():
            if self.path.read_text(encoding="utf-8") == self.me:
                self.path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def read_cell(path: Path) -> dict[str, Any]:
    """A cell's file; SowaError if it is not a whole cell of this format."""
    if path.stat().st_size > MAX_BYTES:
        raise SowaError(f"{path}: larger than {MAX_BYTES} bytes, no cell of a benchmark")
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise SowaError(f"{path}: damaged, delete it or run the benchmark again") from None
    if not isinstance(cell, dict) or cell.get("format") != FORMAT or any(key not in cell for key in REQUIRED):
        raise SowaError(f"{path}: is no whole cell of a benchmark")
    if cell.get("version") != VERSION:
        raise SowaError(f"{path}: cell of version {cell.get('version')}, this sowa reads {VERSION}")
    return cell


def _plain(name: str) -> str:
    """A name as part of a path: letters, digits and a few signs; told apart by a hash where others were replaced."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:80].lstrip(".") or "_"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"
