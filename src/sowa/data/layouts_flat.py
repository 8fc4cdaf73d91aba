"""Data sets whose directories do not say good or bad: DAGM 2007, KolektorSDD and SDD2, ELPV.

The label stands in a mask file, in the mask's pixels or in a table.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sowa.data.images import mask_is_empty
from sowa.data.layouts_rows import Row, read_text, samples_of
from sowa.data.layouts_tree import Found, Listing, Masks, Problem, half_by_hash, look, name_below
from sowa.errors import DataError
from sowa.types import ABNORMAL, NORMAL, Sample

__all__ = ["fits_dagm", "fits_elpv", "fits_ksdd", "fits_ksdd2", "read_dagm", "read_elpv", "read_ksdd", "read_ksdd2"]

# ---------------------------------------------------------------------------------------------------------------- DAGM


def read_dagm(root: Path, split: str) -> Found:
    """`ClassN/{Train,Test}/NNNN.PNG`, defective where `Label/NNNN_label.PNG` exists or `Labels.txt` says so.

    Train holds defective images too: they keep the split `train` and the label 1, so no shot is drawn from them.
    """
    classes = _dagm_classes(root)
    base = root.parent if root in classes.values() else root
    for category, path in classes.items():
        listing = look(path)
        for name in ("train", "test"):
            part = listing.folder(name)
            if part is not None:
                yield from _read_dagm_part(base, category, name, look(part))


def _read_dagm_part(base: Path, category: str, split: str, part: Listing) -> Found:
    label_folder = part.folder("label")
    masks, said = Masks(label_folder), _dagm_labels(label_folder)
    for image in part.images:
        found = masks.of(image)
        bad = bool(found) or said.get(image.stem.casefold(), False)
        if found and said.get(image.stem.casefold()) is False:
            yield Problem(str(image), "label_conflict", f"{image}: good in Labels.txt but there is a mask: defective")
        yield Sample(
            name=name_below(base, image),
            image=image,
            category=category,
            split=split,
            label=ABNORMAL if bad else NORMAL,
            defect="defect" if bad else "good",
            masks=found,
        )
    for path in masks.unused():
        yield Problem(str(path), "orphan_mask", f"{path}: mask without an image in {part.path}")


def _dagm_labels(folder: Path | None) -> dict[str, bool]:
    """Stem -> defective, from the tab-separated `Labels.txt`; its first line is a header of one word."""
    path = next((p for p in folder.iterdir() if p.name.casefold() == "labels.txt"), None) if folder else None
    rows = [line.split("\t") for line in read_text(path).splitlines()] if path else []
    return {Path(row[2].strip()).stem.casefold(): row[1].strip() == "1" for row in rows if len(row) >= 3}


def fits_dagm(root: Path) -> bool:
    return bool(_dagm_classes(root))


def _dagm_classes(root: Path) -> dict[str, Path]:
    """Class name -> directory with Train and Test; archives unpacked into their own name give `Class1/Class1`."""
    listing = look(root)
    if _is_dagm_class(listing):
        return {root.name: root}
    found = {}
    for folder in listing.folders:
        inside = look(folder)
        again = inside.folder(folder.name.casefold())
        inside = look(again) if again is not None and not _is_dagm_class(inside) else inside
        if _is_dagm_class(inside):
            found[folder.name] = inside.path
    return found


def _is_dagm_class(listing: Listing) -> bool:
    parts = [look(part) for part in (listing.folder("train"), listing.folder("test")) if part is not None]
    return any(part.images and part.folder("label") for part in parts)


# ------------------------------------------------------------------------------------------------------------ Kolektor

_KSDD_ITEM = re.compile(r"kos\d+", re.IGNORECASE)
_KSDD_PART = re.compile(r"part\d+", re.IGNORECASE)
_KSDD2_IMAGE = re.compile(r"\d{5}")


def read_ksdd(root: Path, split: str) -> Found:
    """`kosNN/PartN.jpg` with `PartN_label.bmp`, all zero where the part is good.

    There is no published split for anomaly detection: the good parts of half of the items (`half_by_hash`) are for
    training, so that no item is on both sides with its good parts; everything else is test.
    """
    items = [folder for folder in look(root).folders if _KSDD_ITEM.fullmatch(folder.name)]
    train = half_by_hash(item.name for item in items)
    for item in items:
        for sample in _labelled_by_mask(root, look(item), _KSDD_PART, "electrical_commutators", "test"):
            if isinstance(sample, Sample) and not sample.label and item.name in train:
                sample = replace(sample, split="train")
            yield sample


def fits_ksdd(root: Path) -> bool:
    listing = look(root)
    return any(_KSDD_ITEM.fullmatch(folder.name) for folder in listing.folders)


def read_ksdd2(root: Path, split: str) -> Found:
    """`{train,test}/NNNNN.png` with `NNNNN_GT.png`, all zero where the surface is good; train holds defects too."""
    listing = look(root)
    for name in ("train", "test"):
        part = listing.folder(name)
        if part is not None:
            yield from _labelled_by_mask(root, look(part), _KSDD2_IMAGE, "metal", name)


def fits_ksdd2(root: Path) -> bool:
    listing = look(root)
    parts = [look(part) for part in (listing.folder("train"), listing.folder("test")) if part is not None]
    return any(image.stem.casefold().endswith("_gt") for part in parts for image in part.images)


def _labelled_by_mask(root: Path, part: Listing, stem: re.Pattern[str], category: str, split: str) -> Found:
    masks = Masks(part.path, beside_images=True)
    for image in part.images:
        if not stem.fullmatch(image.stem):
            continue
        found = masks.of(image)
        if not found:
            yield Problem(str(image), "unreadable", f"{image}: no mask beside it, so good or bad is not known")
            continue
        try:
            bad = not mask_is_empty(found[0])
        except DataError as error:
            yield Problem(str(found[0]), "unreadable", str(error))
            continue
        yield Sample(
            name=name_below(root, image),
            image=image,
            category=category,
            split=split,
            label=ABNORMAL if bad else NORMAL,
            defect="defect" if bad else "good",
            masks=found if bad else (),
        )


# ---------------------------------------------------------------------------------------------------------------- ELPV

_ELPV_HOMES = (".", "data", "elpv_dataset/data", "src/elpv_dataset/data")
# The cells of ten of the 44 solar modules, every fourth module of a type. The data set does not publish where a module
# ends: the borders are where type, brightness and busbars change together, and there are 44 modules between them.
_ELPV_POOL = (
    *(range(481, 541), range(1135, 1195), range(1375, 1435), range(2145, 2217)),  # mono
    *(range(241, 301), range(661, 721), range(1615, 1675), range(1845, 1905), range(2085, 2145), range(2445, 2505)),
)


def read_elpv(root: Path, split: str) -> Found:
    """`labels.csv` (`images/cellNNNN.png  p  type`, no header); categories `mono` and `poly`; no masks.

    Ten modules give their cells of p = 0 to `train`: 113 mono, 189 poly; the module is their group. Cells with a defect
    are test; good test cells come from the other modules only, so a shot never shares a module with them. Split
    `certain` keeps p = 0 against p = 1, the usual protocol; `half` takes all cells, anomalous from p = 1/2.
    """
    home = _elpv_home(root) or root
    table = home / "labels.csv"
    rows = [_elpv_row(f"{table} line {number}", line, split) for number, line in _lines(table)]
    yield from samples_of((row for row in rows if row), home)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip())


def _elpv_row(where: str, line: str, split: str) -> Row | None:
    """The row in its place, or None where the protocol leaves the cell out."""
    try:
        image, p, kind = line.split()
        probability = float(p)
        if not 0 <= probability <= 1 or kind not in ("mono", "poly"):
            raise ValueError
    except ValueError:
        raise DataError(f"{where}: expected 'images/cellNNNN.png probability mono|poly', got '{line[:80]}'") from None
    certain, label = probability in (0.0, 1.0), int(probability >= 0.5)
    module = "" if label else _elpv_module(image)
    if not certain and (module or split == "certain"):
        return None
    return Row(
        where=where,
        image=image,
        mask="",
        category=kind,
        split="train" if module else "test",
        label=label,
        defect="defective",
        group=module,
    )


def _elpv_module(image: str) -> str:
    """First and last cell of the module of the pool that holds the image, empty if none does."""
    digits = re.search(r"(\d+)\.\w+$", image)
    number = int(digits[1]) if digits else 0
    return next((f"{module[0]:04}-{module[-1]:04}" for module in _ELPV_POOL if number in module), "")


def fits_elpv(root: Path) -> bool:
    return _elpv_home(root) is not None


def _elpv_home(root: Path) -> Path | None:
    for below in _ELPV_HOMES:
        table = root / below / "labels.csv"
        if table.is_file():
            with table.open(encoding="utf-8", errors="replace") as file:
                fields = file.readline(200).split()
            if len(fields) == 3 and fields[2] in ("mono", "poly"):
                return table.parent
    return None
