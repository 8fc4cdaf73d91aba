"""Where the images of a data set are and what is known of each: one literal table, one reader for each layout.

`read_samples` answers with records and opens no image, except where the label stands in a mask's pixels (KolektorSDD,
SDD2). A defective image whose mask is missing is read all the same, with `masks=()`: whoever needs pixel truth asks
`has_pixel_truth` or meets the error of `read_mask`. `scan` lists such things as problems.

To add a layout: write a generator of `Sample` and `Problem` in a `layouts_*` module and add its row here.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sowa.data import layouts_flat as flat
from sowa.data import layouts_folder as folder
from sowa.data import layouts_lists as lists
from sowa.data import layouts_mvtec as mvtec
from sowa.data import layouts_table as table
from sowa.data.layouts_tree import FATAL, Found, Problem, look, some_of, unwrap
from sowa.errors import ConfigError, DataError, UnknownNameError
from sowa.types import Sample

__all__ = ["LAYOUTS", "Layout", "Problem", "Reading", "has_pixel_truth", "read_samples", "recognise", "scan"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one arrangement of files is recognised and read."""

    read: Callable[[Path, str], Found]
    """(root, split) -> samples and problems, in any order; `split` is one of `splits`."""
    fits: Callable[[Path], bool]
    """Whether a directory looks like this layout and no other."""
    looks_for: str
    """What it looks for, in a few words for messages."""
    accepts: Callable[[Path], bool] | None = None
    """What it can read when asked for by name; `fits` if None."""
    splits: tuple[str, ...] = ("",)
    """The data set's own splits, the default first."""
    masks: bool = True
    """Whether a defective image without a mask is a problem."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of the list files that may be given in place of a directory."""


_PLAN = "<category>/train/good and <category>/test/<defect>"
_REALIAD = ("realiad_jsons", "realiad_jsons_sv", *(f"realiad_jsons_fuiad_{n}" for n in ("0.0", "0.1", "0.2", "0.4")))
_LISTS = (".csv", ".tsv", ".jsonl", ".json")


def _of_family(name: str, looks_for: str = _PLAN) -> Layout:
    return Layout(mvtec.read_mvtec, mvtec.family_is(name), looks_for, accepts=mvtec.has_categories)


LAYOUTS: dict[str, Layout] = {
    "mvtec": _of_family("mvtec"),
    "visa": Layout(
        lists.read_visa,
        lists.fits_visa,
        "split_csv/1cls.csv and <category>/Data/Images",
        splits=("1cls", "2cls_highshot", "2cls_fewshot"),
    ),
    "btad": _of_family("btad", "<category>/train/ok and <category>/test/ko"),
    "dagm": Layout(flat.read_dagm, flat.fits_dagm, "<class>/Train/Label"),
    "dtd": _of_family("dtd"),
    "mpdd": _of_family("mpdd"),
    "ksdd": Layout(flat.read_ksdd, flat.fits_ksdd, "kosNN/PartN.jpg"),
    "ksdd2": Layout(flat.read_ksdd2, flat.fits_ksdd2, "train/NNNNN.png with NNNNN_GT.png"),
    "loco": _of_family("loco", "<category>/test/logical_anomalies"),
    "mvtec_ad2": _of_family("mvtec_ad2", "<category>/test_public"),
    "realiad": Layout(lists.read_realiad, lists.fits_realiad, "realiad_jsons/<category>.json", splits=_REALIAD),
    "elpv": Layout(
        flat.read_elpv, flat.fits_elpv, "labels.csv beside images/", splits=("certain", "half"), masks=False
    ),
    "meta_json": Layout(lists.read_meta_json, lists.fits_meta_json, "meta.json", masks=False, suffixes=(".json",)),
    "table": Layout(table.read_table, table.fits_table, "a list of images", masks=False, suffixes=_LISTS),
    "folder": Layout(
        folder.read_folder,
        folder.fits_folder,
        "good/ beside other folders",
        accepts=lambda root: folder.fits_folder(root) or folder.fits_loose_images(root),
        masks=False,
    ),
}
"""Layout name -> how to read it. A tree that fits a published data set is read as such even if lists lie beside it."""

# Such names break tables and cannot be written as UTF-8.
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_GENERIC = ("meta_json", "table", "folder")


@dataclass(frozen=True, slots=True)
class Reading:
    """A data set as it was found."""

    layout: str
    root: Path
    """Where the layout begins: the directory given, one below it, or a list file."""
    samples: tuple[Sample, ...]
    """Sorted by name, each once."""
    problems: tuple[Problem, ...]


def read_samples(
    root: str | os.PathLike[str],
    layout: str = "auto",
    *,
    categories: Sequence[str] | None = None,
    split: str | None = None,
    validation: bool = False,
) -> list[Sample]:
    """Every image of a data set, sorted by name, each once, labelled; `categories` keeps those named.

    `layout` is a name of `LAYOUTS` or `auto`; `split` one of that layout's own splits (VisA's CSVs). Images that a
    data set sets aside for validation come only with `validation=True` and say so in `Sample.split`. `DataError`, one
    line, if nothing can be read or a record contradicts the files.
    """
    reading = scan(root, layout, split=split)
    fatal = [problem for problem in reading.problems if problem.kind in FATAL]
    if fatal:
        more = f" (and {len(fatal) - 1} more such problems)" if len(fatal) > 1 else ""
        raise DataError(fatal[0].message + more)
    known = {sample.category for sample in reading.samples}
    for category in categories or ():
        if category not in known:
            raise UnknownNameError(f"category of {reading.root}", got=category, known=known)
    kept = (sample for sample in reading.samples if categories is None or sample.category in categories)
    return [sample for sample in kept if validation or sample.split != "validation"]


def scan(root: str | os.PathLike[str], layout: str = "auto", *, split: str | None = None) -> Reading:
    """All samples and all problems that the files' names and lists show; `DataError` only if nothing can be read."""
    root = Path(os.path.abspath(root))
    name = recognise(root) if layout == "auto" else layout
    if name not in LAYOUTS:
        raise UnknownNameError("layout", got=name, known=[*LAYOUTS, "auto"])
    entry = LAYOUTS[name]
    if split is not None and split not in entry.splits:
        allowed = some_of(entry.splits) if entry.splits != ("",) else "none"
        raise ConfigError(f"split '{split}' of layout {name}: allowed are {allowed}")
    home = _home(root, name)
    samples: list[Sample] = []
    problems: list[Problem] = []
    for item in entry.read(home, split or entry.splits[0]):
        if isinstance(item, Sample):
            samples.append(item)
        else:
            problems.append(item)
    if not samples and not any(problem.kind in FATAL for problem in problems):
        raise DataError(f"{root}: no image found as {name} ({entry.looks_for}); found {_contents(home)}")
    unique, conflicts = _unique(samples)
    absent = [_no_mask(sample) for sample in unique if entry.masks and sample.label and not sample.masks]
    return Reading(name, home, tuple(unique), tuple(problems + conflicts + absent))


def has_pixel_truth(samples: Sequence[Sample]) -> bool:
    """Whether pixel metrics are possible: there are defective images and each has a mask."""
    bad = [sample for sample in samples if sample.label]
    return bool(bad) and all(sample.masks for sample in bad)


# --------------------------------------------------------------------------------------------------------- recognising


def recognise(root: str | os.PathLike[str]) -> str:
    """The name of the layout of a directory or list file; `DataError` says why if none or several fit."""
    root = Path(os.path.abspath(root))
    _check_exists(root)
    if root.is_file():
        return _only(root, [name for name in ("meta_json", "table") if _fits(name, root)][:1])
    published = [name for name in LAYOUTS if name not in _GENERIC]
    homes = {name: root for name in published if _fits(name, root)} or _homes_below(root, published)
    # A list is made on purpose, but so is a folder named good: only the papers' meta.json settles it by its name.
    homes = homes or _homes_below(root, _GENERIC)
    if "meta_json" in homes:
        homes = {"meta_json": homes["meta_json"]}
    if not homes and folder.fits_loose_images(root):
        homes = {"folder": root}
    if len(set(homes.values())) > 1:
        raise DataError(f"{root}: holds several data sets ({some_of(home.name for home in homes.values())}); give one")
    return _only(root, list(homes))


def _homes_below(root: Path, names: Sequence[str]) -> dict[str, Path]:
    homes = {name: unwrap(root, partial(_fits, name)) for name in names}
    return {name: home for name, home in homes.items() if home}


def _only(root: Path, fitting: list[str]) -> str:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"{root}: fits several layouts ({some_of(fitting)}); say which one is meant")
    found = _contents(root) if root.is_dir() else "a file of another kind"
    looked_for = some_of(LAYOUTS, most=len(LAYOUTS))
    raise DataError(
        f"{root}: no data set recognised; found {found}, looked for {looked_for}; "
        "simplest: good images in good/, each kind of defect in a folder of its own beside it"
    )


def _fits(name: str, root: Path) -> bool:
    entry = LAYOUTS[name]
    return entry.fits(root) if root.is_dir() else root.suffix.casefold() in entry.suffixes and entry.fits(root)


def _home(root: Path, name: str) -> Path:
    """Where the named layout begins, at or below the directory given."""
    _check_exists(root)
    entry = LAYOUTS[name]
    if root.is_file():
        if root.suffix.casefold() not in entry.suffixes:
            raise DataError(f"{root}: layout {name} reads a directory ({entry.looks_for}), this is a file")
        return root
    home = unwrap(root, entry.accepts or entry.fits)
    if home is None:
        raise DataError(f"{root}: not laid out as {name} ({entry.looks_for}); found {_contents(root)}")
    return home


def _check_exists(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: no such directory")


def _contents(path: Path) -> str:
    if path.is_file():
        return "a file without a usable line"
    listing = look(path)
    folders = some_of(folder.name for folder in listing.folders)
    return f"{len(listing.images)} images and {len(listing.folders)} folders ({folders})"


# ------------------------------------------------------------------------------------------------------------- samples


def _unique(samples: list[Sample]) -> tuple[list[Sample], list[Problem]]:
    """Sorted by name, each image once; an image that is said to be two different things is a conflict."""
    by_name: dict[str, Sample] = {}
    problems = []
    for sample in sorted(samples, key=lambda s: (s.name, s.split, s.label)):
        first = by_name.setdefault(sample.name, sample)
        if (first.label, first.split, first.category) != (sample.label, sample.split, sample.category):
            said = " and ".join(f"{s.category}/{s.split}/{('good', 'defective')[s.label]}" for s in (first, sample))
            problems.append(Problem(sample.name, "conflict", f"{sample.image}: listed both as {said}"))
        elif first is not sample:
            problems.append(Problem(sample.name, "duplicate", f"{sample.image}: listed more than once"))
        if _UNSPEAKABLE.search(sample.name):
            message = f"{sample.name!r}: control or undecodable characters in the name; rename the file"
            problems.append(Problem(repr(sample.name), "bad_name", message))
    return list(by_name.values()), problems


def _no_mask(sample: Sample) -> Problem:
    return Problem(str(sample.image), "missing_mask", f"{sample.image}: defective image without a mask")
