"""Rows of somebody's list become samples: paths kept inside the data set, files found whatever their case.

CSV, JSON and JSON lines are untrusted input: a row may name a file that is absent, outside, or nothing at all.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sowa.data.layouts_tree import Found, Problem, look, name_below
from sowa.errors import DataError
from sowa.types import Sample

__all__ = [
    "Files",
    "Outside",
    "Row",
    "label_of",
    "read_csv",
    "read_json",
    "read_text",
    "relative_parts",
    "samples_of",
    "text_field",
]

_MAX_LIST_BYTES = 512_000_000
_NORMAL_WORDS = frozenset({"0", "0.0", "false", "normal", "good", "ok", "no"})
_ABNORMAL_WORDS = frozenset({"1", "1.0", "true", "abnormal", "anomaly", "anomalous", "bad", "ko", "ng", "defect"})
_ABNORMAL_WORDS |= {"defective", "yes"}


class Outside(ValueError):
    """A path that leads out of the data set."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image as a list describes it, nothing checked yet."""

    where: str
    """File and line, for messages."""
    image: str
    mask: str
    category: str
    split: str
    label: int
    defect: str
    group: str = ""


class Files:
    """What exists below a directory: exact names first, then upper and lower case alike; each directory read once."""

    def __init__(self, base: Path):
        self.base = base
        self._entries: dict[Path, dict[str, str]] = {}

    def find(self, text: str) -> Path | None:
        """The file or directory that a list calls `text`; `Outside` if that is not below the base."""
        path = self.base
        for part in relative_parts(text, self.base):
            names = self._names(path)
            actual = part if part in names else names.get("/" + part.casefold())
            if actual is None:
                return None
            path = path / actual
        return path

    def _names(self, directory: Path) -> dict[str, str]:
        if directory not in self._entries:
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                names = []
            # "/" cannot be part of a name, so folded keys and exact ones never meet.
            self._entries[directory] = {"/" + name.casefold(): name for name in names} | {name: name for name in names}
        return self._entries[directory]


def relative_parts(text: str, base: Path) -> list[str]:
    """`a\\\\b//./c.png` -> [a, b, c.png]; an absolute path only if it lies in `base`; `..` and drives are `Outside`."""
    text = text.strip().replace("\\", "/")
    if "\0" in text or re.match(r"[A-Za-z]:", text):
        raise Outside(text)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Outside(text)
    if text.startswith("/"):
        inside = base.absolute().parts[1:]
        if tuple(parts[: len(inside)]) != inside:
            raise Outside(text)
        parts = parts[len(inside) :]
    return parts


def samples_of(rows: Iterable[Row], base: Path) -> Found:
    """Each row's sample, or what is wrong with it.

    A category of which not one image exists has not been downloaded and is passed over, as in a tree; a single
    absent image is a problem.
    """
    files, missing = Files(base), []
    present: Counter[str] = Counter()
    for row in rows:
        try:
            image = files.find(row.image)
            mask = files.find(row.mask) if row.label and row.mask else None
        except Outside as error:
            yield Problem(str(error), "escape", f"{row.where}: path '{error}' leads out of {base}; give paths below it")
            continue
        if image is None or not image.is_file():
            missing.append(row)
            continue
        present[row.category] += 1
        if row.label and row.mask and mask is None:
            yield Problem(row.mask, "missing_mask", f"{row.where}: mask {row.mask} does not exist")
        yield _sample(row, base, image, _mask_files(image, mask))
    for row in missing:
        if present[row.category] or not present:
            yield Problem(row.image, "missing_image", f"{row.where}: image {row.image} does not exist below {base}")


def _sample(row: Row, base: Path, image: Path, masks: tuple[Path, ...]) -> Sample:
    return Sample(
        name=name_below(base, image),
        image=image,
        category=row.category,
        split=row.split,
        label=row.label,
        defect=(row.defect or "anomaly") if row.label else "good",
        masks=masks,
        group=row.group,
    )


def _mask_files(image: Path, mask: Path | None) -> tuple[Path, ...]:
    """A directory holds masks only if it is named after the image (MVTec LOCO); others stand for no pixel truth."""
    if mask is None:
        return ()
    if mask.is_dir():
        return look(mask).images if mask.name == image.stem else ()
    return (mask,)


def label_of(value: object) -> int:
    """0 or 1 from a number or a word; `ValueError` for anything else."""
    word = str(value).strip().casefold()
    if word in _NORMAL_WORDS or word in _ABNORMAL_WORDS:
        return int(word in _ABNORMAL_WORDS)
    raise ValueError(f"label '{value}' is neither normal (0, good, ok) nor anomalous (1, bad, ng)")


def read_text(path: Path) -> str:
    """A list file as text, UTF-8 with or without byte-order mark."""
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise DataError(f"{path}: larger than {_MAX_LIST_BYTES} bytes, not read as a list")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_csv(path: Path, delimiters: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header, by column; of several delimiters the one most used in the header."""
    text = read_text(path)
    header = text.partition("\n")[0]
    try:
        rows = csv.reader(io.StringIO(text), delimiter=max(delimiters, key=header.count))
        names = [name.strip() for name in next(rows, [])]
        return [dict(zip(names, row, strict=False)) for row in rows]
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}") from error


def read_json(path: Path) -> object:
    """A JSON file's content."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error


def text_field(record: Mapping[str, object], *names: str) -> str:
    """The first of the fields that is there, as text; null, NaN and absent are ''."""
    value = next((record[name] for name in names if record.get(name) is not None), "")
    text = str(value).strip()
    return "" if text.casefold() in ("nan", "none", "null") else text
