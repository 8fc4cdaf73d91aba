"""Anybody's pictures: `good/` beside any other folders, with or without train and test, masks if there are any.

    good/ scratch/ dent/          flat; every folder that is not good is a kind of defect, subfolders included
    train/good/ test/good/ test/scratch/
    <category>/...                several of either
    *.png                         images and nothing else: all good

Masks are looked for by name in `ground_truth/` or `masks/` of the category or of its test part (below a folder named
after the defect, or flat), in a `masks/` inside the defect's folder, and beside the image (`000_mask.png`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sowa.data.layouts_tree import Found, Listing, Masks, Problem, half_by_hash, look, name_below, some_of
from sowa.errors import DataError
from sowa.types import ABNORMAL, NORMAL, Sample

__all__ = ["fits_folder", "fits_loose_images", "read_folder"]

NORMAL_FOLDERS = ("good", "ok", "normal")
MASK_FOLDERS = ("ground_truth", "groundtruth", "ground-truth", "masks", "mask", "gt")
_SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_MOST_LEVELS = 5


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image, the folders between its part and itself, and the masks that lie beside it."""

    path: Path
    label: int
    defect: str
    beside: tuple[Path, ...]


def read_folder(root: Path, split: str) -> Found:
    """Every category below `root`, or `root` as the one category, named after its directory.

    Without train and test folders, half of the good images of a category (`half_by_hash`) are for training and the
    rest is test; where there is no defect at all, every image is for training.
    """
    listing = look(root)
    if not _is_category(listing) and not listing.images:
        for folder in listing.folders:
            if _is_category(look(folder)):
                yield from _read_category(root, look(folder))
    else:
        yield from _read_category(root, listing)


def _read_category(root: Path, listing: Listing) -> Found:
    parts = [(folder, _SPLIT_FOLDERS.get(folder.name.casefold())) for folder in listing.folders]
    splits = [(look(folder), split) for folder, split in parts if split]
    if splits and listing.folder(*NORMAL_FOLDERS):
        have = some_of(folder.name for folder in listing.folders)
        raise DataError(f"{listing.path}: good images both beside and inside train or test ({have}): keep one way")
    if not splits:
        yield from _halved(_read_part(root, listing, listing, ""))
    for part, split in splits:
        yield from _read_part(root, listing, part, split)


def _halved(found: Found) -> Found:
    """Without a split on disk: half of the good images train, all of them if nothing is defective."""
    samples: list[Sample] = []
    for item in found:
        if isinstance(item, Sample):
            samples.append(item)
        else:
            yield item
    good = [sample.name for sample in samples if not sample.label]
    train = half_by_hash(good) if len(good) < len(samples) else frozenset(good)
    for sample in samples:
        yield replace(sample, split="train" if sample.name in train else "test")


def _read_part(root: Path, category: Listing, part: Listing, split: str) -> Found:
    """The images below one directory that holds the good folder and the defects, or good images and nothing else."""
    folders = [folder for folder in part.folders if folder.name.casefold() not in MASK_FOLDERS]
    normal = [folder for folder in folders if folder.name.casefold() in NORMAL_FOLDERS]
    if part.images and not normal and (split == "test" or any(_any_image(folder) for folder in folders)):
        have = some_of(folder.name for folder in folders)
        raise DataError(f"{part.path}: loose images beside folders ({have}): put the good ones into {part.path}/good")
    for path in part.images if normal else ():
        yield Problem(str(path), "stray_image", f"{path}: lies beside the folders and is not read")
    pictures = [] if normal else [_Picture(path, NORMAL, "good", ()) for path in part.images]
    for folder in folders:
        label = NORMAL if folder in normal else ABNORMAL
        pictures += _pictures(folder, label, folder.name if label else "good")
    places = _Places(category, part, pictures)
    for picture in pictures:
        yield Sample(
            name=name_below(root, picture.path),
            image=picture.path,
            category=category.path.name,
            split=split,
            label=picture.label,
            defect=picture.defect if picture.label else "good",
            masks=places.of(picture) if picture.label else (),
        )


def _pictures(folder: Path, label: int, defect: str, level: int = 0) -> Iterator[_Picture]:
    """The images below a folder; a subfolder is a finer kind of the same defect, mask files are not images."""
    listing = look(folder)
    beside = Masks(folder, beside_images=True)
    masks = {image: beside.of(image) for image in listing.images}
    taken = {path for found in masks.values() for path in found}
    for image in listing.images:
        if image not in taken:
            yield _Picture(image, label, defect, masks[image])
    for inner in listing.folders:
        looped = folder.resolve().is_relative_to(inner.resolve())
        if inner.name.casefold() not in MASK_FOLDERS and not looped and level < _MOST_LEVELS:
            yield from _pictures(inner, label, f"{defect}/{inner.name}", level + 1)


class _Places:
    """Where the masks of one part may lie, each directory read once."""

    def __init__(self, category: Listing, part: Listing, pictures: list[_Picture]):
        roots = (listing.folder(*MASK_FOLDERS) for listing in (part, category))
        self._roots = [folder for folder in dict.fromkeys(roots) if folder]
        self._split = part.path.name.casefold()
        self._stems = Counter(picture.path.stem.casefold() for picture in pictures if picture.label)
        self._own = {folder: look(folder).folder(*MASK_FOLDERS) for folder in {p.path.parent for p in pictures}}
        self._read: dict[Path, Masks] = {}

    def of(self, picture: _Picture) -> tuple[Path, ...]:
        if picture.beside:
            return picture.beside
        for folder in self._folders(picture):
            found = self._masks(folder).of(picture.path)
            if found:
                return found
        return self._flat(picture)

    def _folders(self, picture: _Picture) -> Iterator[Path]:
        own = self._own[picture.path.parent]
        if own and own not in self._roots:
            yield own
        for root in self._roots:
            for start in (root, root / self._split):
                folder = start / picture.defect
                if folder.is_dir():
                    yield folder

    def _flat(self, picture: _Picture) -> tuple[Path, ...]:
        found = next((found for root in self._roots if (found := self._masks(root).of(picture.path))), ())
        if found and self._stems[picture.path.stem.casefold()] > 1:
            raise DataError(
                f"{found[0]}: fits images of several folders named {picture.path.stem}; put masks below "
                f"{found[0].parent}/{picture.defect}"
            )
        return found

    def _masks(self, folder: Path) -> Masks:
        if folder not in self._read:
            self._read[folder] = Masks(folder)
        return self._read[folder]


# --------------------------------------------------------------------------------------------------------- recognising


def fits_folder(root: Path) -> bool:
    """A folder of good images, here or in a subdirectory."""
    listing = look(root)
    return _is_category(listing) or any(_is_category(look(folder)) for folder in listing.folders)


def fits_loose_images(root: Path) -> bool:
    """Images that lie directly in the directory."""
    return bool(look(root).images)


def _is_category(listing: Listing) -> bool:
    parts = [look(f) for f in listing.folders if f.name.casefold() in _SPLIT_FOLDERS]
    return any(part.folder(*NORMAL_FOLDERS) for part in (listing, *parts)) or any(
        part.images for part in parts if part.path.name.casefold() == "train"
    )


def _any_image(folder: Path) -> bool:
    return next(_pictures(folder, NORMAL, ""), None) is not None
