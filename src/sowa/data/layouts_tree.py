"""What every layout needs: looking into directories, finding a mask by its image's name, half of the good images.

A layout is a generator of `Sample` and `Problem`. Problems of the kinds in `FATAL` stop `read_samples`; the others
are for whoever checks a data set.
"""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sowa.errors import DataError
from sowa.types import Sample

__all__ = [
    "FATAL",
    "IMAGE_SUFFIXES",
    "Found",
    "Listing",
    "Masks",
    "Problem",
    "half_by_hash",
    "look",
    "name_below",
    "plain",
    "some_of",
    "unwrap",
]

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm"))
_COPY = re.compile(r"\((?:[^()]* )?copy(?: \d+)?\)", re.IGNORECASE)

FATAL = frozenset({"bad_row", "conflict", "escape", "missing_image", "bad_name", "ambiguous_mask", "unreadable"})
"""Kinds of problem after which the samples cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a data set, said where it is."""

    path: str
    kind: str
    message: str
    """One line, complete without `path` and `kind`."""


Found = Iterator[Sample | Problem]
"""What a layout's reader yields."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The visible contents of one directory, sorted by name: stray and hidden files are not in it."""

    path: Path
    folders: tuple[Path, ...]
    images: tuple[Path, ...]

    def folder(self, *names: str) -> Path | None:
        """The first of `names` that is a folder here, upper and lower case alike."""
        by_name = {folder.name.casefold(): folder for folder in reversed(self.folders)}
        return next((by_name[name] for name in names if name in by_name), None)


def look(path: Path) -> Listing:
    """Read one directory; `Thumbs.db`, `.DS_Store`, texts, `__MACOSX` and `* (copy)*` are passed over."""
    folders, images = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")) or _COPY.search(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(path / entry.name)
                elif _suffix(entry.name) in IMAGE_SUFFIXES:
                    images.append(path / entry.name)
    except OSError as error:
        raise DataError(f"{path}: directory cannot be read: {error.strerror}") from error
    return Listing(path=path, folders=tuple(sorted(folders)), images=tuple(sorted(images)))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].casefold()


class Masks:
    """The masks of one directory by the stem of their image, and which of them were asked for."""

    _ENDINGS = ("_mask", "", "_label", "_gt")
    _PREFERRED = (".png", ".bmp", ".tif", ".tiff")

    def __init__(self, directory: Path | None, *, beside_images: bool = False):
        self._endings = tuple(end for end in self._ENDINGS if end) if beside_images else self._ENDINGS
        listing = look(directory) if directory else Listing(path=Path(), folders=(), images=())
        self.images = listing.images
        self._files: dict[str, Path] = {}
        for path in sorted(self.images, key=self._rank):
            self._files.setdefault(path.stem.casefold(), path)
        self._folders = {folder.name.casefold(): folder for folder in listing.folders}
        self._used: set[Path] = set()

    def of(self, image: Path) -> tuple[Path, ...]:
        """`<stem>_mask.*`, `<stem>.*`, `<stem>_label.*`, `<stem>_GT.*` or all images of the directory `<stem>/`.

        Where masks lie beside the images, a file of the same stem is an image and not a mask.
        """
        stem = image.stem.casefold()
        found = next((self._files[stem + end] for end in self._endings if stem + end in self._files), None)
        if found is not None:
            self._used.add(found)
            return (found,)
        return look(self._folders[stem]).images if stem in self._folders else ()

    def unused(self) -> list[Path]:
        return [path for path in self.images if path not in self._used]

    def _rank(self, path: Path) -> tuple[int, str]:
        suffix = path.suffix.casefold()
        known = suffix in self._PREFERRED
        return (self._PREFERRED.index(suffix) if known else len(self._PREFERRED), path.name)


def unwrap(root: Path, fits: Callable[[Path], bool], *, depth: int = 3) -> Path | None:
    """The directory at or below `root` where a layout begins, looking through wrapper directories.

    A wrapper is a directory of which one subdirectory fits, or which has only one. Of several reorganised VisA splits
    `1cls` is taken.
    """
    if fits(root):
        return root
    if depth == 0:
        return None
    folders = look(root).folders
    fitting = [folder for folder in folders if fits(folder)]
    fitting = [folder for folder in fitting if folder.name == "1cls"] or fitting
    if len(fitting) == 1:
        return fitting[0]
    return unwrap(folders[0], fits, depth=depth - 1) if len(folders) == 1 else None


def half_by_hash(names: Iterable[str]) -> frozenset[str]:
    """Which of the good images are for training where a data set has no split: half of them, but four if there are.

    By the order of crc32 of their names, so that neither the file system nor a seed nor the numbering decides.
    """
    ranked = sorted(set(names), key=lambda name: (zlib.crc32(name.encode(errors="surrogateescape")), name))
    return frozenset(ranked[: max(-(-len(ranked) // 2), 4)])


def name_below(root: Path, path: Path) -> str:
    """`Sample.name` of a file below the data set's root."""
    return path.relative_to(root).as_posix()


def some_of(names: Iterable[str], *, most: int = 6) -> str:
    """`a, b, c ... and 4 more`, for messages."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def plain(text: str) -> str:
    """Lower-case letters and digits only: one spelling for `DTD-Synthetic`, `DTDSynthetic`, `dtd_synthetic`."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())
