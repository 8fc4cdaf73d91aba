"""`<category>/train/good`, `<category>/test/<defect>`, `<category>/ground_truth/<defect>`: one reader, six data sets.

MVTec AD drew the plan; BTAD says ok and ko, DTD-Synthetic has one defect folder, MPDD follows it, VisA is often
rearranged to it, MVTec LOCO adds `validation` and gives each image a directory of masks, MVTec AD 2 calls its labelled
part `test_public` and keeps the masks inside it (its private parts have no labels and are left out). Accepted besides:
masks without a suffix, `ground_truth/test/<defect>` (VisA's two-class splits, whose `train` has defects too), an extra
`<category>/<category>`, and a single category given as the root.
"""

import re
from collections.abc import Callable
from pathlib import Path

from sowa.data.layouts_tree import Found, Listing, Masks, Problem, look, name_below
from sowa.types import ABNORMAL, NORMAL, Sample

__all__ = ["family_is", "has_categories", "read_mvtec"]

_NORMAL_FOLDERS = ("good", "ok")
_SPLITS = (("train", ("train",)), ("validation", ("validation",)), ("test", ("test", "test_public")))
_TRUTH = ("ground_truth", "groundtruth", "ground-truth")
_DTD = re.compile(r"(blotchy|fibrous|marbled|matted|mesh|perforated|stratified|woven)_\d{3}", re.IGNORECASE)
_MPDD = frozenset({"bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"})
_LOCO = ("logical_anomalies", "structural_anomalies")


def read_mvtec(root: Path, split: str) -> Found:
    """All categories below `root`, or `root` as the one category."""
    categories = _categories(root)
    base = root.parent if root in categories.values() else root
    for category, path in categories.items():
        listing = look(path)
        for name, folders in _SPLITS:
            part = listing.folder(*folders)
            if part is not None:
                yield from _read_part(base, category, name, listing, look(part))


def _read_part(base: Path, category: str, split: str, whole: Listing, part: Listing) -> Found:
    """The images of `<category>/<split>/<defect>`, each folder with its own masks."""
    truth = part.folder(*_TRUTH) or whole.folder(*_TRUTH)
    for folder in part.folders:
        if folder.name.casefold() in _TRUTH:
            continue
        normal = folder.name.casefold() in _NORMAL_FOLDERS
        masks = Masks(None if normal else _truth_of(truth, part.path.name, folder.name))
        for image in look(folder).images:
            yield Sample(
                name=name_below(base, image),
                image=image,
                category=category,
                split=split,
                label=NORMAL if normal else ABNORMAL,
                defect="good" if normal else folder.name,
                masks=() if normal else masks.of(image),
            )
        for path in masks.unused():
            yield Problem(str(path), "orphan_mask", f"{path}: mask without an image in {folder}")


def _truth_of(truth: Path | None, split: str, defect: str) -> Path | None:
    if truth is None:
        return None
    below = look(truth)
    nested = below.folder(split.casefold())
    return (look(nested).folder(defect.casefold()) if nested else None) or below.folder(defect.casefold())


# --------------------------------------------------------------------------------------------------------- recognising


def has_categories(root: Path) -> bool:
    """Whether the plan is found here at all."""
    return bool(_categories(root))


def family_is(name: str) -> Callable[[Path], bool]:
    """Whether the plan is found here and the tree is the named member of the family."""
    return lambda root: _family(root) == name


def _categories(root: Path) -> dict[str, Path]:
    """Category name -> directory that holds train and test; one more level of the same name is looked through."""
    listing = look(root)
    if _is_category(listing):
        return {root.name: root} if listing.folder(*_TRUTH) or listing.folder("test_public") else {}
    found = {}
    for folder in listing.folders:
        inside = look(folder)
        again = inside.folder(folder.name.casefold())
        if again is not None and not _is_category(inside):
            inside = look(again)
        if _is_category(inside):
            found[folder.name] = inside.path
    return found


def _is_category(listing: Listing) -> bool:
    parts = (listing.folder("train"), listing.folder("test", "test_public"))
    return any(part is not None and look(part).folder(*_NORMAL_FOLDERS) for part in parts)


def _family(root: Path) -> str | None:
    categories = _categories(root)
    if not categories:
        return None
    listings = [look(path) for path in categories.values()]
    tests = [look(test) for test in (listing.folder("test") for listing in listings) if test]
    if any(listing.folder("test_public") for listing in listings):
        return "mvtec_ad2"
    if any(test.folder(*_LOCO) for test in tests):
        return "loco"
    if any(test.folder("ko") for test in tests):
        return "btad"
    if all(_DTD.fullmatch(category) for category in categories):
        return "dtd"
    return "mpdd" if categories.keys() <= _MPDD else "mvtec"
