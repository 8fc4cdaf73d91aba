"""Files anywhere: local paths, and what fsspec reads (`s3://`, `gs://`, `memory://`, ...).

A text that does not begin with a scheme (`s3://`, `simplecache::s3://`) is a local path, whatever signs it holds. What
is written appears whole or not at all: local files and those of servers that rename are written beside and moved, an
object store's put is whole by itself.
"""

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sowa.data.layouts_tree import IMAGE_SUFFIXES
from sowa.errors import ArtifactError, ConfigError, DataError, SowaError

__all__ = ["Place", "fetch", "is_remote", "listed", "local_copy", "pictures"]

WHOLE_PUTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"})
"""File systems where a file that is put is there whole or not at all."""
MOST_BYTES = 1_000_000_000
"""Of a picture's file."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::.*://)")
CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://[^:]*)?::.*://")
TRIES, PAUSE = 3, 0.5
ABSENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What trying again does not mend."""


def is_remote(path: str) -> bool:
    """Whether fsspec is asked; `file://` is local."""
    return SCHEME.match(path) is not None and not path.startswith("file://")


def opened(url: str) -> tuple[Any, str]:
    """(file system, path on it). ConfigError for one that is unknown or whose package is not installed."""
    import fsspec  # slow to load

    if not is_remote(url):
        local = fsspec.filesystem("file")
        return local, os.path.abspath(local._strip_protocol(url) if url.startswith("file://") else url)
    try:
        if CHAIN.match(url):
            return fsspec.core.url_to_fs(url)
        kind = fsspec.get_filesystem_class(url.split("://", 1)[0])  # url_to_fs takes any "::" in a name for a chain
        return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"'{url}' cannot be reached: {' '.join(str(error).split())}") from None


class Place:
    """A folder to write results to and read them from."""

    def __init__(self, url: str):
        self.url = url.rstrip("/") or url
        self.remote = is_remote(url)
        self.fs, self.path = opened(self.url)

    @property
    def per_process(self) -> bool:
        """Whether other processes see something else under the same name."""
        return "memory" in _names(self.fs)

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def names(self, folder: str) -> set[str]:
        """Names of the files directly below a folder; empty where there is none."""
        self.fs.invalidate_cache()
        try:
            return {PurePosixPath(path).name for path in self.fs.ls(self._full(folder), detail=False)}
        except FileNotFoundError:
            return set()
        except Exception as error:
            if not _of_storage(error, self.remote):
                raise
            raise SowaError(f"cannot read {self.url}: {_reason(error)}") from None

    def lines(self, name: str) -> Iterator[str]:
        """Lines of a text file without their ends. FileNotFoundError: it is not there; ArtifactError: it is no text."""
        self.fs.invalidate_cache()
        try:
            with self.fs.open(self._full(name), "rb") as file:
                for line in file:
                    yield line.decode("utf-8").rstrip("\n")
        except FileNotFoundError:
            raise
        except UnicodeDecodeError:
            raise ArtifactError(f"{self.url}/{name} is damaged: delete it and run again") from None
        except Exception as error:
            if not _of_storage(error, self.remote):
                raise
            raise SowaError(f"cannot read {self.url}/{name}: {_reason(error)}") from None

    def exists(self, name: str) -> bool:
        folder, _, last = name.rpartition("/")
        return last in self.names(folder)

    def write(self, name: str, lines: Iterable[str]) -> None:
        """A text file of these lines, whole or not at all. SowaError where it cannot be written."""
        try:
            with self._writer(self._full(name)) as file:
                for line in lines:
                    file.write(f"{line}\n".encode())
        except Exception as error:
            if not _of_storage(error, self.remote):
                raise
            raise SowaError(f"cannot write {self.url}/{name}: {_reason(error)}") from None

    @contextmanager
    def _writer(self, path: str) -> Iterator[IO[bytes]]:
        folder, name = path.rsplit("/", 1)
        beside = f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"
        self.fs.makedirs(folder, exist_ok=True)
        if not self.remote:
            try:
                with open(beside, "xb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, path)
            finally:
                with suppress(OSError):
                    os.unlink(beside)
            return
        with tempfile.TemporaryDirectory(prefix="sowa-") as here:
            local = os.path.join(here, "part")
            with open(local, "wb") as file:
                yield file
            if _names(self.fs) & WHOLE_PUTS:
                self.fs.put_file(local, path)
            else:
                self.fs.put_file(local, beside)
                self.fs.mv(beside, path)


def _names(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


# ------------------------------------------------------------------------------------------------------------- reading


def fetch(url: str) -> bytes:
    """Content of a remote picture. DataError where it is absent, forbidden, no file or too large; OSError where the
    connection fails `TRIES` times: that says nothing of the picture."""
    fs, path = opened(url)
    for left in reversed(range(TRIES)):
        try:
            about = fs.info(path)
            if about["type"] != "file":
                raise DataError(f"{url}: not a file")
            if (about["size"] or 0) > MOST_BYTES:
                raise DataError(f"{url}: {about['size']} bytes; at most {MOST_BYTES} are read")
            return fs.cat_file(path)
        except ABSENT as error:
            raise DataError(f"{url}: cannot be opened: {_reason(error)}") from None
        except DataError:
            raise
        except Exception as error:  # clients of object stores have families of errors of their own
            if not left:
                raise OSError(f"{url}: {_reason(error)}") from None
            time.sleep(PAUSE * (TRIES - left))
    raise AssertionError


def local_copy(url: str, folder: Path) -> Path:
    """The file itself if it is local, else a copy in `folder`."""
    if not is_remote(url):
        return Path(opened(url)[1])
    fs, path = opened(url)
    target = folder / PurePosixPath(path).name
    try:
        with fs.open(path, "rb") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except Exception as error:
        if not _of_storage(error, True):
            raise
        raise DataError(f"{url}: cannot be read: {_reason(error)}") from None
    return target


def listed(url: str) -> list[str]:
    """Paths of a text file, one a line, local ones made absolute; empty lines are left out. Nothing is looked up."""
    fs, path = opened(url)
    try:
        with fs.open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except Exception as error:
        if not _of_storage(error, is_remote(url)):
            raise
        raise DataError(f"{url}: is no list of paths: {_reason(error)}") from None
    lines = (line.removesuffix("\r") for line in text.split("\n"))  # names may hold what splitlines takes for an end
    return [line if is_remote(line) else opened(line)[1] for line in lines if line.strip()]


def pictures(sources: Sequence[str]) -> list[str]:
    """Every picture meant, sorted, each once: files, folders with all below them, patterns; local ones absolute.

    DataError for a source that is not there or holds none.
    """
    found: set[str] = set()
    for source in sources:
        mine = _remote_pictures(source) if is_remote(source) else _local_pictures(opened(source)[1])
        if not mine:
            raise DataError(f"{source}: no picture here; give files, folders or patterns such as 'parts/*.png'")
        found.update(mine)
    return sorted(found)


def _local_pictures(path: str) -> list[str]:
    if os.path.isdir(path):
        walked = os.walk(path)
        return [os.path.join(folder, name) for folder, _, names in walked for name in names if _is_picture(name)]
    if os.path.exists(path):
        return [path]
    return [one for one in glob(path, recursive=True) if os.path.isfile(one)]


def _remote_pictures(url: str) -> list[str]:
    fs, path = opened(url)
    try:
        if fs.isdir(path):
            found = [one for one in fs.find(path) if _is_picture(one)]
        elif fs.exists(path):
            found = [path]
        else:
            found = [one for one in fs.glob(path) if fs.isfile(one)] if any(sign in path for sign in "*?[") else []
    except Exception as error:
        raise DataError(f"{url}: cannot be listed: {_reason(error)}") from None
    return [fs.unstrip_protocol(one) for one in found]


def _is_picture(name: str) -> bool:
    last = PurePosixPath(name).name
    return not last.startswith(".") and PurePosixPath(last).suffix.casefold() in IMAGE_SUFFIXES


def _of_storage(error: Exception, remote: bool) -> bool:
    """Whether the storage failed: clients of object stores have families of errors that are no `OSError`."""
    return isinstance(error, OSError) or (remote and not isinstance(error, SowaError))


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
