"""What is in an archive, member by member in the order of the file; nothing is written here."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Protocol, TypeAlias

from sowa.errors import DataError

__all__ = ["Member", "members_of"]

Check: TypeAlias = Callable[[int], None]
"""Told how many bytes have come out of a compression; raises when they are too many."""

_PIECE = 1 << 18
# Headers of a tar may be as long as they say; tarfile reads them into memory whole.
_HEADER_BYTES = 4_000_000
# liblzma reserves what the file asks for, up to 4 GB; `xz -9` needs 65 MB.
_XZ_MEMORY = 400_000_000
_MOST_INDEX_BYTES = 500_000_000
_SPECIAL = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "pipe",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file or directory as the archive describes it; nothing of that is checked yet."""

    name: str
    size: int | None
    """Bytes as declared; None for a directory."""
    open: Callable[[], IO[bytes]]


def members_of(archive: Path, file: BinaryIO, check: Check) -> Iterator[Member]:
    """The members of an archive, whose format is known by the first bytes and not by the name.

    A member must be read, if it is, before the next one is asked for. Refuses links, devices and encrypted members by
    `DataError`; of a damaged archive whatever its library raises comes through.
    """
    head = file.read(264)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(archive, file)
    if head.startswith(b"\x1f\x8b"):
        return _tar_members(archive, gzip.GzipFile(fileobj=file), check)
    if head.startswith(b"BZh"):
        return _tar_members(archive, bz2.BZ2File(file), check)
    if head.startswith(b"\xfd7zXZ\0"):
        return _tar_members(archive, _Xz(file), check)
    if head[257:262] == b"ustar":
        return _tar_members(archive, file, check)
    raise DataError(f"{archive}: not an archive that is unpacked here (zip, tar, tar.gz, tar.bz2, tar.xz)")


def _zip_members(archive: Path, file: BinaryIO) -> Iterator[Member]:
    number = _number_of_members(archive, file)
    with zipfile.ZipFile(file) as opened:
        if len(opened.infolist()) != number:  # a damaged length in the list swallows what follows
            raise DataError(f"{archive}: damaged archive: {len(opened.infolist())} of {number} members are in its list")
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "symbolic link" if kind == stat.S_IFLNK else "special file"
                raise DataError(f"{archive}: member {info.filename!r} is a {what}; the archive is refused")
            if info.flag_bits & 1:
                raise DataError(f"{archive}: member {info.filename!r} is encrypted; unpack it by hand")
            directory = info.is_dir() or info.filename.endswith("\\")
            if directory and info.file_size:
                raise DataError(f"{archive}: damaged archive: directory {info.filename!r} has a content")
            yield Member(info.filename, None if directory else info.file_size, partial(opened.open, info))


def _number_of_members(archive: Path, file: BinaryIO) -> int:
    """As the end of the file says; refuses a list of members, which is read into memory whole, that cannot be."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 70_000, 0))
    tail = file.read()
    end, wide = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    if not 0 <= end <= len(tail) - 22:
        raise DataError(f"{archive}: damaged archive: its end is missing")
    number, length = struct.unpack_from("<HI", tail, end + 10)
    if (number == 0xFFFF or length == 0xFFFFFFFF) and 0 <= wide <= len(tail) - 56:
        number, length = struct.unpack_from("<QQ", tail, wide + 32)
    if length > min(_MOST_INDEX_BYTES, size):
        raise DataError(f"{archive}: damaged archive: its list of members is said to have {length} bytes")
    return int(number)


def _tar_members(archive: Path, stream: _Readable, check: Check) -> Iterator[Member]:
    bounded = _Bounded(stream, check)
    bounded.allowance = _HEADER_BYTES
    with tarfile.open(fileobj=bounded, mode="r:") as opened:
        while True:
            bounded.allowance = _HEADER_BYTES
            info = opened.next()
            if info is None:
                break
            opened.members = []  # type: ignore[attr-defined]  # else it keeps them all
            if info.issparse() or not (info.isreg() or info.isdir()):
                what = _SPECIAL.get(info.type, "special file")
                raise DataError(f"{archive}: member {info.name!r} is a {what}; the archive is refused")
            bounded.allowance = info.size + tarfile.BLOCKSIZE
            yield Member(info.name, None if info.isdir() else info.size, partial(_content, opened, info))
    # tarfile takes a damaged header for the end; the end is a block of zeros, and the stream's own checksum after it.
    if bounded.last != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{archive}: damaged archive: it ends in the middle")
    bounded.drain()


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    if content is None:
        raise ValueError(f"member {info.name!r} is not a file")
    return content


class _Bounded(io.RawIOBase):
    """A stream read forward only, in pieces no larger than allowed, never further than there is room for."""

    def __init__(self, stream: _Readable, check: Check):
        self._stream = stream
        self._check = check
        self._at = 0
        self.allowance = 0
        """Bytes that may be read before it is set again; what is passed over does not count."""
        self.last = b""
        """What was read last."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.allowance:
            raise ValueError(f"a header of {size} bytes")
        self.allowance -= size
        self.last = self._forward(size)
        return self.last

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < self._at:
            raise ValueError("its members overlap")
        while self._at < offset:
            if not self._forward(min(offset - self._at, _PIECE)):
                raise EOFError("it ends in the middle")
        return self._at

    def drain(self) -> None:
        """Read to the end, so that the checksum there is compared."""
        while self._forward(_PIECE):
            pass

    def _forward(self, size: int) -> bytes:
        pieces, left = [], size
        while left and (piece := self._stream.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
            self._at += len(piece)
            self._check(self._at)
        return b"".join(pieces)


class _Xz(io.RawIOBase):
    """An xz stream, or several in a row, whose decoder may not take more memory than `_XZ_MEMORY`."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._decoder = self._new()
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._decoder.eof and not self._next_stream():
                return b""
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(_PIECE)
                if not self._rest:
                    raise EOFError("it ends in the middle")
            found = self._decoder.decompress(self._rest, size)
            self._rest = b""
            if found:
                return found

    def _next_stream(self) -> bool:
        rest = (self._decoder.unused_data or self._file.read(_PIECE)).lstrip(b"\0")  # padding between streams
        if rest:
            self._decoder, self._rest = self._new(), rest
        return bool(rest)

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
