"""One image a line: CSV, JSON lines or a JSON list, with the column names people use.

Among them: AA-CLIP's `full-shot.jsonl` (image_path, label, class_name, mask_path), the `train.json` and `test.json` of
UniAD (filename, label, clsname, maskname), InCTRL's `<category>_val_normal.json` (image_path, target, type), and
tables somebody wrote by hand.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sowa.data.layouts_lists import SPLIT_WORDS
from sowa.data.layouts_rows import Files, Outside, Row, label_of, read_csv, read_text, samples_of, text_field
from sowa.data.layouts_tree import Found, Problem, half_by_hash, look, some_of
from sowa.errors import DataError

__all__ = ["fits_table", "read_table"]

Record = Mapping[str, object]

COLUMNS = {
    "image": ("image", "image_path", "img_path", "filename", "file_name", "file", "path"),
    "label": ("label", "target", "anomaly", "is_anomaly", "defective"),
    "mask": ("mask", "mask_path", "maskname", "mask_file"),
    "category": ("category", "class_name", "clsname", "cls_name", "object", "product", "type"),
    "split": ("split", "phase", "set", "subset"),
    "defect": ("defect", "specie_name", "label_name", "anomaly_class", "defect_type"),
}
"""What a column means and the names it is known by, the first that is there wins; image and label are needed."""

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
_INCTRL = re.compile(r"(?P<category>.+)_(?P<split>train|val|test)_(normal|outlier|anomaly)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _List:
    """One file of a listing, and what its name says about the images in it."""

    path: Path
    split: str = ""
    category: str = ""


def read_table(root: Path, split: str) -> Found:
    """The rows of one list file, or of the list files of a directory that belong together.

    Labels are 0/1, 0.0/1.0 or words (good, ok, normal, bad, ng, ...). Where no column tells the split, the file's
    name does, or `train` and `test` in every path, or half of the good images (`half_by_hash`) are for training.
    """
    lists = _lists(root)
    base = root.parent if root.is_file() else root
    rows = []
    for item in lists:
        for row in _rows(item, base.name):
            if isinstance(row, Row):
                rows.append(row)
            else:
                yield row
    yield from samples_of(_with_splits(rows), _image_home(base, rows))


def _rows(item: _List, name: str) -> Iterator[Row | Problem]:
    records = list(_records(item.path))
    fields = {key: [n for n in names if any(n in r for _, r in records)] for key, names in COLUMNS.items()}
    if records and not (fields["image"] and fields["label"]):
        have = some_of(sorted({key for _, record in records for key in record}))
        raise DataError(f"{item.path}: a column for the image and one for the label are needed, found {have}")
    for number, record in records:
        where = f"{item.path} line {number}"
        split = text_field(record, *fields["split"]).casefold()
        try:
            label = label_of(text_field(record, *fields["label"]))
            split = SPLIT_WORDS[split] if split else item.split
        except ValueError as error:
            yield Problem(str(item.path), "bad_row", f"{where}: {error}")
        except KeyError:
            yield Problem(str(item.path), "bad_row", f"{where}: split '{split}' is not train, validation or test")
        else:
            yield Row(
                where=where,
                image=text_field(record, *fields["image"]),
                mask=text_field(record, *fields["mask"]),
                category=text_field(record, *fields["category"]) or item.category or name,
                split=split,
                label=label,
                defect=text_field(record, *fields["defect"]),
            )


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    """(line, fields) of a CSV with a header, of JSON lines or of one JSON list."""
    if path.suffix.casefold() in (".csv", ".tsv"):
        yield from enumerate(read_csv(path, ",;\t"), start=2)
        return
    text = read_text(path)
    try:
        if text.lstrip().startswith("["):
            records = list(enumerate(json.loads(text), start=1))
        else:
            records = [(n, json.loads(line)) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither a JSON list nor JSON lines: {error}") from error
    for number, record in records:
        if not isinstance(record, dict):
            raise DataError(f"{path} line {number}: expected an object with fields, got {type(record).__name__}")
        yield number, record


# ------------------------------------------------------------------------------------------------------- split, images


def _with_splits(rows: list[Row]) -> list[Row]:
    """The rows with a split each, by path or by `half_by_hash` where nothing else told it."""
    if all(row.split for row in rows):
        return rows
    by_path = [row.split or _split_in(row.image) for row in rows]
    if all(by_path):
        return [replace(row, split=split) for row, split in zip(rows, by_path, strict=True)]
    by_category: dict[str, list[str]] = {}
    for row in rows:
        if not row.label:
            by_category.setdefault(row.category, []).append(row.image)
    train = {(category, image) for category, images in by_category.items() for image in half_by_hash(images)}
    placed = ("train" if not row.label and (row.category, row.image) in train else "test" for row in rows)
    return [replace(row, split=row.split or split) for row, split in zip(rows, placed, strict=True)]


def _split_in(path: str) -> str:
    folders = path.replace("\\", "/").casefold().split("/")[:-1]
    found = {SPLIT_WORDS[folder] for folder in folders if folder in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def _image_home(base: Path, rows: list[Row]) -> Path:
    """The directory that the paths start from: the list's own or one just below it."""
    if rows:
        for home in (base, *look(base).folders):
            try:
                if Files(home).find(rows[0].image) is not None:
                    return home
            except Outside:
                break
    return base


# --------------------------------------------------------------------------------------------------------- recognising


def fits_table(root: Path) -> bool:
    """A list file, or a directory with list files whose first record names an image."""
    return root.suffix.casefold() in _SUFFIXES if root.is_file() else bool(_candidates(root))


def _candidates(root: Path) -> list[Path]:
    files = (path for path in sorted(root.iterdir()) if path.suffix.casefold() in _SUFFIXES and path.is_file())
    return [path for path in files if not path.name.startswith(".") and _names_images(path)]


def _names_images(path: Path) -> bool:
    try:
        _, record = next(_records(path), (0, {}))
    except DataError:
        return False
    return all(any(name in record for name in COLUMNS[key]) for key in ("image", "label"))


def _lists(root: Path) -> list[_List]:
    """The files to read: the one, a train/test set of files, or InCTRL's files by category."""
    lists = [_named(path) for path in ([root] if root.is_file() else _candidates(root))]
    stems = {item.path.stem.casefold() for item in lists}
    if len(lists) == 1 or (lists and len(stems) == len(lists) and all(item.split for item in lists)):
        return lists
    have = some_of(item.path.name for item in lists)
    raise DataError(f"{root}: one list of images is needed (or train and test), found {have}; give the file itself")


def _named(path: Path) -> _List:
    """InCTRL calls its test part `val`."""
    if match := _INCTRL.fullmatch(path.stem):
        split = "train" if match["split"].casefold() == "train" else "test"
        return _List(path, split=split, category=match["category"])
    split = SPLIT_WORDS.get(path.stem.casefold(), "")
    return _List(path, split=split or ("test" if path.stem.casefold() == "full-shot" else ""))
