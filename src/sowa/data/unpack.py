"""Archives from strangers: zip, tar, tar.gz, tar.bz2 and tar.xz, unpacked below one directory and nowhere else.

Refused, with one line: an archive with a name that leads out of the directory, a link, a device, or whatever else is
neither a file nor a directory; no such member is written. Sizes and numbers are what the archive says of itself, so all
of them are counted while they come: a small archive that expands without bound ends at a limit, not at a full disk.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sowa.data.unpack_formats import Member, members_of
from sowa.errors import DataError

__all__ = ["Limits", "unpack"]

Watch = Callable[[int, int], None]
"""Told (bytes of the archive read, bytes of it in all) now and then."""

_PIECE = 1 << 18
_DEEPEST, _LONGEST = 64, 255


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an archive may expand."""

    files: int = 2_000_000
    """Files and directories in all."""
    total: int = 400_000_000_000
    """Bytes in all; never more than the disk has free."""
    ratio: int = 100
    """Bytes for each byte of the archive ..."""
    floor: int = 200_000_000
    """... beyond this many, which are always allowed."""


def unpack(archive: Path, folder: Path, *, limits: Limits | None = None, watch: Watch | None = None) -> int:
    """Unpack into `folder`, which nobody else writes to; the number of files.

    Modes, owners, times and what lies in `folder` already are not touched, but a file of the same name is replaced.
    After a `DataError` part of the files may be there: unpack into a directory that is given its name at the end.
    """
    limits = limits or Limits()
    try:
        with archive.open("rb") as file:
            counter = _Counter(archive, folder, limits, watch)
            for member in members_of(archive, file, counter.check_stream):
                counter.take(member, file)
    except DataError:
        raise
    except OSError as error:
        if error.errno is None:  # of the decoders, not of the system
            raise DataError(f"{archive}: damaged archive: {error}") from error
        raise DataError(f"{archive}: cannot be unpacked to {error.filename or folder}: {error.strerror}") from error
    # Readers of archives meet damaged bytes with whatever their code runs into.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: damaged archive: {reason}") from error
    if not counter.files:
        raise DataError(f"{archive}: holds no file")
    return counter.files


class _Counter:
    """Writes members while counting what they come to."""

    def __init__(self, archive: Path, folder: Path, limits: Limits, watch: Watch | None):
        self._archive = archive
        self._folder = folder
        self._watch = watch
        self._length = archive.stat().st_size
        self._most = limits.files
        free = shutil.disk_usage(folder).free
        expanded = max(limits.floor, limits.ratio * self._length)
        self.room = min(limits.total, free, expanded)
        self._why = "the disk has no more room" if free == self.room else "it expands without bound"
        self._entries, self._bytes, self.files = 0, 0, 0

    def take(self, member: Member, file: BinaryIO) -> None:
        """Write one member."""
        path = self._folder.joinpath(*_parts(self._archive, member.name))
        self._entries += 1
        if self._entries > self._most:
            raise DataError(f"{self._archive}: more than {self._most} files; not unpacked further")
        if member.size is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        self.check(self._bytes + member.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("wb") as target:
            while piece := source.read(_PIECE):
                self._bytes += len(piece)
                self.check(self._bytes)
                target.write(piece)
                if self._watch:
                    self._watch(min(file.tell(), self._length), self._length)
        self.files += 1

    def check_stream(self, read: int) -> None:
        """The same of a whole tar as it comes out of its compression, where headers take about 1.5 KB for each file."""
        self.check(read // 2)

    def check(self, expanded: int) -> None:
        """DataError if that many bytes are too many."""
        if expanded > self.room:
            raise DataError(
                f"{self._archive}: {self._length} bytes that would unpack to more than {self.room}: {self._why}"
            )


def _parts(archive: Path, name: str) -> list[str]:
    """The directories and the file of a member's name, none of which leads upwards or anywhere else."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts or re.match("[A-Za-z]:", plain):
        raise DataError(f"{archive}: member {name!r} would be written outside the directory; the archive is refused")
    too_long = any(len(os.fsencode(part)) > _LONGEST for part in parts) or len(parts) > _DEEPEST
    if too_long or any(ord(letter) < 32 for letter in plain):
        raise DataError(f"{archive}: member {name[:80]!r} has a name that no data set needs; the archive is refused")
    return parts
