"""A published data set onto the disk: licence first, then fetch, compare the hash, unpack, and only then its name."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sowa.data.download import download
from sowa.data.sources import SOURCES, Archive, Source
from sowa.data.unpack import Limits, unpack
from sowa.data.web import check_url, shown_url
from sowa.errors import ConfigError, DataError, UnknownNameError
from sowa.wheels import fetch_wheel, file_sha256

__all__ = ["NOTICE", "get", "notice"]

NOTICE = "SOURCE_AND_LICENCE.txt"
"""Kept beside the data."""

Watch = Callable[[str, int, int], None]
"""Told (what is being done, bytes done, bytes in all or 0) now and then."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What every step must know."""

    name: str
    source: Source
    home: Path
    pause: float
    say: Callable[[str], None]
    watch: Watch | None

    @property
    def target(self) -> Path:
        return self.home / self.name

    @property
    def downloads(self) -> Path:
        return self.home / ".sowa-downloads" / self.name

    def watching(self, words: str) -> Callable[[int, int], None] | None:
        """The watch of one step."""
        return partial(self.watch, words) if self.watch else None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An archive on the disk."""

    path: Path
    origin: str
    sha256: str
    recorded: bool
    """Whether its hash was compared with a recorded one."""
    ours: bool
    """Whether it may be deleted when it is unpacked."""


def get(
    name: str,
    *,
    home: Path,
    origin: str | None = None,
    sha256: str | None = None,
    keep_archive: bool = False,
    cache_dir: Path | None = None,
    limits: Limits | None = None,
    pause: float = 1.0,
    say: Callable[[str], None],
    watch: Watch | None = None,
) -> Path:
    """The directory `home/name` with the data set, fetched and unpacked if it is not there.

    origin: URL or path of an archive to take instead of the published one; sha256: its hash where it is another edition
    than the recorded one. say: told the licence, what to cite and what is done; the licence before anything is fetched.
    pause: seconds between attempts. The directory appears whole or not at all; `DataError` or `ConfigError`, one line,
    says why not.
    """
    if name not in SOURCES:
        raise UnknownNameError("data set to get", got=name, known=SOURCES)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"--sha256 '{sha256[:80]}': a sha256 is 64 hexadecimal digits")
    if sha256 is not None and origin is None:
        raise ConfigError("--sha256 is of the archive given by --from; the published ones have theirs recorded")
    work = _Work(name, SOURCES[name], home, pause, say, watch)
    say(notice(work.source))
    if (work.target / NOTICE).is_file():
        say(f"{work.target}: is there already")
        return work.target
    _check_target(work.target)
    fetched = _from(work, origin, sha256) if origin is not None else _published(work, cache_dir)
    _unpack_all(work, fetched, limits)
    if keep_archive:
        for item in fetched:
            say(f"kept {item.path}")
    else:
        shutil.rmtree(work.downloads, ignore_errors=True)
        with suppress(OSError):
            work.downloads.parent.rmdir()
    return work.target


def notice(source: Source) -> str:
    """Title, licence, what to cite and where it comes from, as lines of text."""
    lines = [source.title, f"Licence: {source.licence}", f"Source: {source.page}"]
    return "\n".join(lines + [f"Cite: {work}" for work in source.cite])


def _check_target(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(
            f"{target}: is there already and did not come from here: look at it with sowa data check {target}, "
            f"or give another directory than {target.parent} by --to"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be made: {error.strerror}; give another by --to") from error


# ---------------------------------------------------------------------------------------------------------------- fetch


def _published(work: _Work, cache_dir: Path | None) -> list[_Fetched]:
    """Every archive of the data set as its authors distribute it."""
    if work.source.wheel is not None:
        name, version, digest = work.source.wheel
        path = fetch_wheel(name, version, digest, cache_dir, option="--from FILE", error=DataError)
        return [_Fetched(path, f"{name} {version} of the package index", digest, recorded=True, ours=False)]
    if not work.source.archives:
        raise DataError(f"{work.name}: its authors offer no archive that a program may fetch: {_advice(work)}")
    return [_fetched(work, archive) for archive in work.source.archives]


def _from(work: _Work, origin: str, sha256: str | None) -> list[_Fetched]:
    """The archive that `origin` names; the recorded hash holds for it unless another one is given."""
    source = work.source
    recorded = source.wheel[2] if source.wheel else None
    recorded = source.archives[0].sha256 if len(source.archives) == 1 else recorded
    if "://" in origin:
        check_url(origin)
        file = re.sub(r"[^\w.-]", "_", shown_url(origin).rstrip("/").rpartition("/")[2])[-100:]
        return [_fetched(work, Archive(file.lstrip(".") or "archive", (origin,), sha256=sha256 or recorded))]
    path = Path(origin).expanduser()
    if not path.is_file():
        kind = "is a directory: sowa data check reads it where it is" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {kind}; --from wants an archive or a URL")
    return [_verified(work, path, path.name, sha256 or recorded, ours=False)]


def _fetched(work: _Work, archive: Archive) -> _Fetched:
    """The archive downloaded, in a directory of its own for each URL: two of them may give a file the same name."""
    folder = work.downloads / hashlib.sha256(archive.urls[0].encode()).hexdigest()[:8]
    path, shown = folder / archive.file, shown_url(archive.urls[0])
    if not path.is_file():
        work.say(f"fetching {shown}")
        download(
            archive.urls,
            path,
            size=archive.size,
            advice=_advice(work),
            pause=work.pause,
            watch=work.watching(f"fetching {archive.file}"),
        )
    return _verified(work, path, shown, archive.sha256, ours=True)


def _advice(work: _Work) -> str:
    return f"get it from {work.source.page} by other means, then: sowa data get {work.name} --from FILE"


def _verified(work: _Work, path: Path, origin: str, sha256: str | None, *, ours: bool) -> _Fetched:
    """The archive with its hash, which must be the one recorded; what was fetched and is not is deleted."""
    work.say(f"comparing the sha256 of {path.name}" if sha256 else f"no sha256 of {path.name} is recorded to compare")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if sha256 is not None and found != sha256.lower():
        if ours:
            path.unlink(missing_ok=True)
        gone = "; it was deleted, the same command fetches it anew" if ours else ""
        raise DataError(
            f"{path}: sha256 is {found}, expected {sha256.lower()}: damaged, or another edition (then give its hash by "
            f"--from and --sha256){gone}"
        )
    return _Fetched(path, origin, found, sha256 is not None, ours)


# --------------------------------------------------------------------------------------------------------------- unpack


def _unpack_all(work: _Work, fetched: Sequence[_Fetched], limits: Limits | None) -> None:
    """All archives into one directory that is given its name when everything is in it."""
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{work.name}-", dir=work.home))
    except OSError as error:
        raise DataError(f"{work.home}: cannot be written: {error.strerror}; give another by --to") from error
    try:
        for item in fetched:
            _unpack_one(work, item, part, limits)
        origins = (f"Archive: {item.origin}, sha256 {item.sha256}{_compared(item)}" for item in fetched)
        (part / NOTICE).write_text("\n".join([notice(work.source), *origins, ""]), encoding="utf-8")
        part.chmod(0o755)  # mkdtemp makes it private
        os.replace(part, work.target)
    except OSError as error:
        raise DataError(f"{work.target}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _compared(item: _Fetched) -> str:
    return "" if item.recorded else " (none was recorded to compare)"


def _unpack_one(work: _Work, item: _Fetched, part: Path, limits: Limits | None) -> None:
    work.say(f"unpacking {item.path.name}")
    try:
        unpack(item.path, part, limits=limits, watch=work.watching(f"unpacking {item.path.name}"))
    except DataError:
        if item.ours and not item.recorded:
            item.path.unlink(missing_ok=True)  # else the same file would be found again next time
        raise
