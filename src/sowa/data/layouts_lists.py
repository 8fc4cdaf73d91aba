"""Data sets described by a list: VisA's `split_csv`, the papers' `meta.json`, Real-IAD's JSON."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sowa.data.layouts_rows import Row, label_of, read_csv, read_json, samples_of, text_field
from sowa.data.layouts_tree import Found, Problem, look, plain, some_of
from sowa.errors import DataError

__all__ = ["fits_meta_json", "fits_realiad", "fits_visa", "read_meta_json", "read_realiad", "read_visa"]

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

# ---------------------------------------------------------------------------------------------------------------- VisA


def read_visa(root: Path, split: str) -> Found:
    """`split_csv/<split>.csv` with columns object, split, label, image, mask.

    The masks hold defect numbers 1..9, so they look black. The two-class splits have defects in train.
    """
    path = _split_csv(root, split)
    rows = read_csv(path)
    wanted = {"object", "split", "label", "image"}
    if not rows or not wanted <= rows[0].keys():
        have = some_of(rows[0]) if rows else "no row"
        raise DataError(f"{path}: columns {some_of(sorted(wanted))} expected, got {have}")
    yield from _rows_then_samples((_visa_row(path, number, row) for number, row in enumerate(rows, start=2)), root)


def _split_csv(root: Path, split: str) -> Path:
    folder = look(root).folder("split_csv")
    found = {path.stem.casefold(): path for path in sorted(folder.glob("*.csv"))} if folder else {}
    if split not in found:
        have = some_of(path.name for path in found.values())
        raise DataError(f"{root}: split_csv/{split}.csv of the original VisA is needed, found {have} in split_csv")
    return found[split]


def _visa_row(path: Path, number: int, row: Mapping[str, object]) -> Row | Problem:
    where = f"{path} line {number}"
    try:
        label, split = label_of(text_field(row, "label")), SPLIT_WORDS[text_field(row, "split").casefold()]
    except (ValueError, KeyError) as error:
        return Problem(str(path), "bad_row", f"{where}: {error} is not a label or split of VisA")
    return Row(
        where=where,
        image=text_field(row, "image"),
        mask=text_field(row, "mask"),
        category=text_field(row, "object"),
        split=split,
        label=label,
        defect="anomaly",
    )


def fits_visa(root: Path) -> bool:
    listing = look(root)
    if listing.folder("split_csv"):
        return True
    data = (look(folder).folder("data") for folder in listing.folders)
    images = (look(folder).folder("images") for folder in data if folder)
    return any(folder and look(folder).folder("normal", "anomaly") for folder in images)


# ----------------------------------------------------------------------------------------------------------- meta.json


def read_meta_json(root: Path, split: str) -> Found:
    """The papers' `{"train": {category: [record]}, "test": {...}}`, in all the spellings that are about.

    Phases in any case and `validation` too, extra keys ignored, empty `img_path` passed over (a placeholder), paths
    with doubled or backward slashes; an absolute path only if it lies below the file's directory.
    """
    path = _meta_file(root)
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with train and test, got {type(content).__name__}")
    parts = [(SPLIT_WORDS[key.casefold()], part) for key, part in content.items() if key.casefold() in SPLIT_WORDS]
    if not parts or not all(isinstance(part, dict) for _, part in parts):
        raise DataError(f"{path}: expected train and test with records by category, got keys {some_of(content)}")
    rows = (row for phase, part in parts for row in _meta_rows(path, phase, part))
    yield from _rows_then_samples(rows, path.parent)


def _meta_rows(path: Path, phase: str, part: dict[str, object]) -> Iterator[Row | Problem]:
    for category, records in part.items():
        for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
            where = f"{path} {phase}/{category} record {number}"
            if not isinstance(record, dict):
                yield Problem(str(path), "bad_row", f"{where}: expected an object with img_path and anomaly")
            elif text_field(record, "img_path"):
                yield _meta_row(where, phase, category, record)


def _meta_row(where: str, phase: str, category: str, record: dict[str, object]) -> Row | Problem:
    try:
        label = label_of(record.get("anomaly", ""))
    except ValueError as error:
        return Problem(where, "bad_row", f"{where}: anomaly: {error}")
    return Row(
        where=where,
        image=text_field(record, "img_path"),
        mask=text_field(record, "mask_path"),
        category=text_field(record, "cls_name") or category,
        split=phase,
        label=label,
        defect=text_field(record, "specie_name"),
    )


def fits_meta_json(root: Path) -> bool:
    """A directory by the name of its list, a file by its content: there are lists of other schemata in JSON."""
    if root.is_dir():
        return bool(_meta_files(root))
    try:
        content = read_json(root) if root.suffix.casefold() == ".json" else None
    except DataError:
        return False
    return isinstance(content, dict) and any(key.casefold() in SPLIT_WORDS for key in content)


def _meta_files(root: Path) -> list[Path]:
    files = sorted(path for path in root.glob("*.json") if plain(path.name).startswith("meta"))
    return [path for path in files if path.name.casefold() == "meta.json"] or files


def _meta_file(root: Path) -> Path:
    files = [root] if root.is_file() else _meta_files(root)
    if len(files) != 1:
        have = some_of(path.name for path in files)
        raise DataError(f"{root}: one meta.json is needed, found {have}; give the file itself")
    return files[0]


# ------------------------------------------------------------------------------------------------------------ Real-IAD

_RESOLUTIONS = ("1024", "512", "256", "raw")


def read_realiad(root: Path, split: str) -> Found:
    """`<split>/<category>.json` beside `realiad_{1024,512,256,raw}/<category>/{OK,NG}`; normal is the class `OK`.

    Of several resolutions the first of these that is there is read. The noisy (`fuiad`) splits have defects in train.
    """
    lists = look(root).folder(split.casefold())
    files = sorted(path for path in (lists or root).glob("*.json") if not path.name.startswith("."))
    if not files:
        have = some_of(folder.name for folder in look(root).folders)
        raise DataError(f"{root}: lists {split}/<category>.json are needed, found {have}")
    home = next((path for r in _RESOLUTIONS if (path := look(root).folder(f"realiad_{r}"))), root)
    rows = (row for path in files for row in _realiad_rows(path))
    yield from _rows_then_samples(rows, home)


def _realiad_rows(path: Path) -> Iterator[Row | Problem]:
    content = read_json(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(meta, dict):
        raise DataError(f"{path}: expected Real-IAD's object with meta, train and test")
    normal, prefix = text_field(meta, "normal_class") or "OK", text_field(meta, "prefix")
    prefix = prefix and prefix + "/"
    for phase in ("train", "test"):
        records = content.get(phase) or []
        for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
            where = f"{path} {phase} record {number}"
            if not isinstance(record, dict) or not {"image_path", "anomaly_class"} <= record.keys():
                yield Problem(str(path), "bad_row", f"{where}: expected image_path and anomaly_class")
                continue
            defect, mask = text_field(record, "anomaly_class"), text_field(record, "mask_path")
            yield Row(
                where=where,
                image=prefix + text_field(record, "image_path"),
                mask=mask and prefix + mask,
                category=text_field(record, "category") or path.stem,
                split=phase,
                label=int(defect != normal),
                defect=defect,
            )


def fits_realiad(root: Path) -> bool:
    listing = look(root)
    return any(plain(folder.name).startswith("realiadjsons") for folder in listing.folders) or any(
        inside.folder("ok") and inside.folder("ng") and any(root.glob("*.json"))
        for inside in map(look, listing.folders)
    )


def _rows_then_samples(rows: Iterator[Row | Problem], base: Path) -> Found:
    """Faulty rows as they are, the others as samples."""
    good: list[Row] = []
    for row in rows:
        if isinstance(row, Row):
            good.append(row)
        else:
            yield row
    yield from samples_of(good, base)
