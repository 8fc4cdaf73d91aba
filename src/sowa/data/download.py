"""One file over HTTP: it goes on where the last attempt was cut, and is never taken for another file.

What has arrived lies beside the target as `<name>.part`, with `<name>.part.json` saying which version of the file it is
the beginning of. The hash is for whoever called.
"""

import http.client
import json
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from sowa.data.web import Refused, check_url, connects, opener, shown_url
from sowa.errors import DataError

__all__ = ["download"]

Watch = Callable[[int, int], None]
"""Told (bytes there, bytes in all or 0 if that is not known) now and then."""

_STALL_SECONDS = 30
"""A connection silent for this long counts as cut."""
_ATTEMPTS = 5
"""In a row without getting further."""
_FURTHER = 1_000_000
"""Bytes that count as getting further: a server that gives a few at a time is not asked for ever."""
_PIECE = 1 << 18
_SPARE_BYTES = 100_000_000


class _Cut(Exception):
    """The connection ended early; another attempt may get further."""


@dataclass(frozen=True, slots=True)
class _Version:
    """Which file a part is the beginning of."""

    url: str
    validator: str
    """The server's strong ETag or its date of the file; empty if it gave neither."""
    total: int
    """Bytes in all, 0 if not known."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    advice: str,
    pause: float = 1.0,
    watch: Watch | None = None,
) -> Path:
    """Fetch the first of `urls` that gives the file to `target`; already fetched parts are gone on with.

    size: bytes it must have, where that is known. advice: what an error tells the user to do instead. pause: seconds
    before the second attempt, growing with each. Without network `DataError` comes within two seconds; after a cut
    that lasts, what has arrived stays for the next call.
    """
    for url in urls:
        check_url(url)
    if not connects(urls[0]):
        raise DataError(f"{shown_url(urls[0])}: no network, or the server does not answer: {advice}")
    part = target.with_name(target.name + ".part")
    begun = _version(part)
    refusals = []
    for url in sorted(urls, key=lambda url: begun is None or url != begun.url):
        try:
            _fetch(url, part, size, pause, watch)
        except Refused as refusal:
            refusals.append(f"{shown_url(url)}: {refusal}")
            continue
        os.replace(part, target)
        _note(part).unlink(missing_ok=True)
        return target
    raise DataError(f"{'; '.join(refusals)}: {advice}")


def _fetch(url: str, part: Path, size: int | None, pause: float, watch: Watch | None) -> None:
    failures = 0
    while True:
        before = _length(part)
        try:
            return _attempt(url, part, size, watch)
        except _Cut as cut:
            failures = 0 if _length(part) - before >= _FURTHER else failures + 1
            if failures >= _ATTEMPTS:
                raise DataError(
                    f"{shown_url(url)}: cut {failures} times, {_length(part)} bytes are there ({cut}); "
                    "the same command goes on from there"
                ) from None
            time.sleep(pause * failures)


def _attempt(url: str, part: Path, size: int | None, watch: Watch | None) -> None:
    """One request for what is missing."""
    there, begun = _length(part), _version(part)
    if begun is None or begun.url != url or not (begun.validator or begun.total):
        there, begun = 0, None  # nothing says that it is the same file
    elif begun.total and there == begun.total:
        return
    headers = {"User-Agent": "sowa", "Accept-Encoding": "identity"}
    if there and begun:
        headers |= {"Range": f"bytes={there}-"} | ({"If-Range": begun.validator} if begun.validator else {})
    try:
        with opener().open(urllib.request.Request(url, headers=headers), timeout=_STALL_SECONDS) as answer:
            _receive(answer, url, part, begun if there else None, size, watch)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is there is longer than the file is now
            part.unlink(missing_ok=True)
            raise _Cut("the file on the server has changed") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Cut(f"the server answers {error.code} {error.reason}") from None
        raise Refused(f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, (socket.gaierror, ValueError)) or "certificate" in str(error.reason).lower():
            raise Refused(str(error.reason)) from None
        raise _Cut(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"{type(error).__name__}: {error}"[:120]) from None


def _receive(
    answer: http.client.HTTPResponse,
    url: str,
    part: Path,
    begun: _Version | None,
    size: int | None,
    watch: Watch | None,
) -> None:
    """The answer's content behind what is there of `begun`, or in its place where the server begins anew."""
    there, total = _place(answer, part, begun)
    if size and total and total != size:
        raise Refused(f"{total} bytes, {size} are recorded: not the file that was published")
    room = _room(part) + there
    if total > room:
        raise DataError(f"{part.parent}: {total} bytes are to come, there is room for {room}; free some or give --to")
    most = size or total or room
    with _stream(part, there) as file:
        _write_note(part, _Version(url, _validator(answer), total))
        while piece := _piece(answer):
            there += len(piece)
            if there > most:
                raise DataError(f"{shown_url(url)}: more than {most} bytes come; stopped")
            _write(file, piece, part)
            if watch:
                watch(there, total or size or 0)
    if there < (total or size or 0):
        raise _Cut(f"{there} of {total or size} bytes")


def _place(answer: http.client.HTTPResponse, part: Path, begun: _Version | None) -> tuple[int, int]:
    """Where the answer's content begins in the file, and how long the file is (0 if not known)."""
    if answer.status != 206:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else 0
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    total = int(found[2]) if found and found[2] != "*" else 0
    if found is None or begun is None or int(found[1]) != _length(part) or (begun.total and total != begun.total):
        part.unlink(missing_ok=True)
        raise _Cut("the server gives another part, or another file, than the one that was begun")
    return int(found[1]), total


def _piece(answer: http.client.HTTPResponse) -> bytes:
    """The next bytes; what the network does to them is a cut, what the disk does is not."""
    try:
        return answer.read(_PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(error) or type(error).__name__) from None


def _validator(answer: http.client.HTTPResponse) -> str:
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


# ---------------------------------------------------------------------------------------------------- parts on the disk


def _write(file: BinaryIO, piece: bytes, part: Path) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise DataError(f"{part}: cannot be written: {error.strerror}; what is there is kept") from error


def _stream(part: Path, there: int) -> BinaryIO:
    """The part opened for writing behind its first `there` bytes."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("r+b" if there else "wb")
        file.seek(there)
        file.truncate()
    except OSError as error:
        raise DataError(f"{part}: cannot be written: {error.strerror}; give another directory by --to") from error
    return file


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _version(part: Path) -> _Version | None:
    """What is there is the beginning of; None if nothing is there or nothing is known of it."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        version = _Version(str(note["url"]), str(note["validator"]), int(note["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if part.is_file() else None


def _write_note(part: Path, version: _Version) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        beside = _note(part).with_suffix(".new")
        beside.write_text(json.dumps(asdict(version)), encoding="utf-8")
        os.replace(beside, _note(part))
    except OSError as error:
        raise DataError(f"{part}: cannot be written: {error.strerror}; give another directory by --to") from error


def _room(part: Path) -> int:
    home = next(folder for folder in part.absolute().parents if folder.is_dir())
    return max(shutil.disk_usage(home).free - _SPARE_BYTES, 0)
