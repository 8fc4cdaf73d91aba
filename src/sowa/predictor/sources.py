"""Where the pictures of a prediction come from: folders, files, patterns, lists, videos, standard input.

A source gives one picture after the other and holds no more than the names of one folder. `watching.py` has the one
source that waits.
"""

import glob
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from sowa.data.images import read_frames, read_image
from sowa.data.layouts_tree import IMAGE_SUFFIXES, look
from sowa.errors import ConfigError, DataError
from sowa.predictor.pictures import Given
from sowa.predictor.video import VIDEO_SUFFIXES, require_reader, video_frames

__all__ = ["FRAMES", "LISTS", "Item", "expected", "good_pictures", "open_sources", "walk"]

LISTS = (".txt", ".lst")
"""Files that hold a path on each line."""
FRAMES = (".gif", ".tif", ".tiff", ".webp")
"""Pictures that may hold several; all of them are judged where such a file is named itself."""
STDIN = "-"
MOST_STDIN = 512 * 2**20
MOST_LEVELS = 30
"""Folders inside folders."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to be judged."""

    path: str
    """Relative to the folder, pattern or list that it comes from, with / between folders; else as given."""
    name: str
    """The path under which it can be opened, with "#" and a number for one frame of several."""
    picture: "Given | DataError"
    """The error stands for a picture that its source could not give."""


def open_sources(
    words: Sequence[str], *, every: int = 1, skip: Path | None = None, stdin: BinaryIO | None = None
) -> Iterator[Item]:
    """The pictures of all sources, one after the other, each source in the order of names.

    A word is a folder (searched with its subfolders), a picture or video, a pattern such as `parts/*.png`, a list
    (`.txt`, `.lst`) or `-` for one picture from standard input. every: of several frames take each such one.
    skip: a folder that is not searched, where results are written. DataError at once if a word names nothing.
    """
    if not words:
        raise ConfigError("nothing to judge: name pictures, a folder, a pattern in quotes, a list, a video or -")
    if words.count(STDIN) > 1:
        raise ConfigError("- stands for one picture from standard input: give it once")
    away = None if skip is None else skip.resolve()
    sources = [_source(word, every, away, stdin) for word in words]
    return (item for source in sources for item in source())


def expected(words: Sequence[str], *, skip: Path | None = None) -> int | None:
    """How many pictures `open_sources` will give; None where nobody can tell before they are read."""
    away, number = None if skip is None else skip.resolve(), 0
    for word in words:
        path = Path(word)
        if path.is_dir():
            number += sum(1 for _ in walk(path, away=away))
        elif path.suffix.casefold() in LISTS and path.exists():
            number += sum(1 for _ in _lines(path))
        else:
            names = [path] if path.exists() else [Path(name) for name in _matches(word)] if glob.has_magic(word) else []
            if not names or any(one.is_dir() or one.suffix.casefold() in (*FRAMES, *VIDEO_SUFFIXES) for one in names):
                return None
            number += len(names)
    return number


def good_pictures(words: Sequence[str]) -> list[str | Path]:
    """Paths of the pictures to learn from: those of folders (without their subfolders), lists, patterns and files."""
    found: list[str | Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            images = look(path).images
            if not images:
                raise DataError(f"{word}: no picture in this folder; its subfolders are not searched")
            found += images
        elif path.is_file() and path.suffix.casefold() in LISTS:
            listed = [path.parent / line for line in _lines(path)]
            if not listed:
                raise DataError(f"{word}: no line with a path in this list")
            found += listed
        elif path.exists() or not glob.has_magic(word):
            if not path.exists():
                raise DataError(_nothing(word))
            found.append(path)
        else:
            found += [Path(name) for name in _matches(word)]
    return found


def walk(folder: Path, *, away: Path | None = None) -> Iterator[Path]:
    """The pictures of a folder and of those inside it, sorted by name; hidden folders and `away` are left out."""
    yield from _walk(folder, away, (folder.resolve(),))


def _walk(folder: Path, away: Path | None, above: tuple[Path, ...]) -> Iterator[Path]:
    listing = look(folder)
    yield from listing.images
    for inner in listing.folders:
        place = inner.resolve()
        if place != away and place not in above and len(above) <= MOST_LEVELS:  # a link may lead back up
            yield from _walk(inner, away, (*above, place))


# -------------------------------------------------------------------------------------------------------------- kinds


def _source(word: str, every: int, away: Path | None, stdin: BinaryIO | None) -> Callable[[], Iterator[Item]]:
    """What gives the pictures of one word; DataError if it names nothing."""
    if word == STDIN:
        return partial(_standard_input, stdin)
    path = Path(word)
    if path.is_dir():
        if next(walk(path, away=away), None) is None:
            raise DataError(f"{word}: no picture in this folder or below it ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return partial(_folder, path, away)
    if path.exists():
        if path.suffix.casefold() in LISTS:
            return partial(_list, path)
        return _named_file(word, word, every)
    if not glob.has_magic(word):
        raise DataError(_nothing(word))
    names = _matches(word)
    for name in names:
        if Path(name).suffix.casefold() in VIDEO_SUFFIXES:
            require_reader(name)
    return partial(_pattern, word, names, every, away)


def _nothing(word: str) -> str:
    return f"{word}: no such file or folder; patterns such as 'parts/*.png' go in quotes"


def _matches(word: str) -> list[str]:
    """Sorted, because a file system has no order; only names are held."""
    found = sorted(glob.iglob(word, recursive=True))
    if not found:
        raise DataError(f"{word}: nothing fits this pattern")
    return found


def _folder(root: Path, away: Path | None) -> Iterator[Item]:
    for path in walk(root, away=away):
        yield Item(path.relative_to(root).as_posix(), str(path), path)


def _pattern(word: str, names: Sequence[str], every: int, away: Path | None) -> Iterator[Item]:
    root = _fixed_part(word)
    for name in names:
        path = Path(name)
        short = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        if not path.is_dir():
            yield from _named_file(name, short, every)()
        elif not word.rstrip("/").endswith("**"):  # which lists the folders' own pictures, too
            for item in _folder(path, away):
                yield Item(f"{short}/{item.path}", item.name, item.picture)


def _fixed_part(word: str) -> Path:
    """The folders of a pattern ahead of its first sign that stands for others."""
    fixed: list[str] = []
    for part in Path(word).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _list(path: Path) -> Iterator[Item]:
    for line in _lines(path):
        picture = path.parent / line
        yield Item(line, str(picture), picture)


def _lines(path: Path) -> Iterator[str]:
    """The paths of a list, relative ones as seen from the list; empty lines and those with # first are no paths."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for line in file:
                if (line := line.strip()) and not line.startswith("#"):
                    yield line.replace("\0", "�")
    except OSError as error:
        raise DataError(f"{path}: list cannot be read: {error.strerror}") from error


def _named_file(name: str, short: str, every: int) -> Callable[[], Iterator[Item]]:
    """One file that was named itself."""
    path = Path(name)
    suffix = path.suffix.casefold()
    if suffix in VIDEO_SUFFIXES:
        require_reader(name)
        return partial(_frames, path, short, partial(video_frames, path, every=every))
    if suffix in FRAMES:
        return partial(_frames, path, short, partial(read_frames, path, every=every))
    return lambda: iter((Item(short, str(path), path),))


def _frames(path: Path, short: str, read: Callable[[], Iterable[tuple[int | None, Any]]]) -> Iterator[Item]:
    """Every frame, then the error that ended them, if one did."""
    try:
        for number, picture in read():
            at = "" if number is None else f"#{number:06d}"
            yield Item(f"{short}{at}", f"{path}{at}", picture)
    except DataError as error:
        yield Item(short, str(path), error)


def _standard_input(stdin: BinaryIO | None) -> Iterator[Item]:
    """One picture; through a file, so that it is read by the same rules as any other."""
    data = (stdin or sys.stdin.buffer).read(MOST_STDIN + 1)
    with tempfile.TemporaryDirectory(prefix="sowa-") as folder:
        copy = Path(folder) / "picture"
        try:
            if len(data) > MOST_STDIN:
                raise DataError(f"standard input: more than {MOST_STDIN} bytes are not read")
            copy.write_bytes(data)
            yield Item(STDIN, STDIN, read_image(copy))
        except DataError as error:
            yield Item(STDIN, STDIN, DataError(str(error).replace(str(copy), "standard input")))
