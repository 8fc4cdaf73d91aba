"""A data set for other tools: the same images, split and labels, arranged in the one way everybody reads.

Whatever the format, the directory holds the plan of MVTec AD, which this project and most others read as it is:

    <category>/train/good/NNN.png               the image files themselves, linked or copied, never encoded again
    <category>/test/<defect>/NNN.png
    <category>/ground_truth/<defect>/NNN_mask.png    0 and 255, the union of what the data set has for the image

`meta_json`, `csv`, `coco` and `fiftyone` add a list of these files in their own format (see `export_lists`).
"""

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sowa.data.export_lists import LISTS, Exported
from sowa.data.images import read_mask
from sowa.data.layouts_tree import IMAGE_SUFFIXES
from sowa.data.sound import header_size
from sowa.errors import DataError, UnknownNameError
from sowa.types import Sample

__all__ = ["FORMATS", "export"]

FORMATS = ("folder", *LISTS)
"""What `to` may be."""

Watch = Callable[[int, int], None]
"""Told (images done, images in all) now and then."""

_RESERVED = frozenset({"good", "ok", "normal", "train", "test", "test_public", "validation", "val"})
_RESERVED |= {"ground_truth", "groundtruth", "ground-truth", "masks", "mask", "gt"}


def export(
    samples: Sequence[Sample], out: Path, *, to: str, copy: bool = False, watch: Watch | None = None
) -> list[Exported]:
    """Write the samples to the directory `out`, which must not exist or be empty; where each of them is now.

    to: one of `FORMATS`. copy: copy the image files; else they are symbolic links to where they are. Categories, kinds
    of defect and files whose names cannot be those of a file get one that can. The directory appears whole or not at
    all; `DataError` for a mask that cannot be read.
    """
    if to not in FORMATS:
        raise UnknownNameError("export format", got=to, known=FORMATS)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: is there already; give another directory by --out")
    places = _places(samples)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        written = []
        for number, place in enumerate(places, start=1):
            written.append(_write(place, part, copy))
            if watch:
                watch(number, len(places))
        for category in {place.category for place in places}:
            (part / category / "test/good").mkdir(parents=True, exist_ok=True)  # by which a category is known
        if to in LISTS:
            LISTS[to](written, part, out.absolute())
        part.chmod(0o755)  # mkdtemp makes it private
        os.replace(part, out)
    except OSError as error:
        raise DataError(f"{error.filename or out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return written


# ---------------------------------------------------------------------------------------------------------------- names


@dataclass(frozen=True, slots=True)
class _Place:
    """A sample and the names it gets."""

    sample: Sample
    category: str
    defect: str
    file: str


def _places(samples: Sequence[Sample]) -> list[_Place]:
    """Names by which the readers find everything again: no two images of a folder share a stem, as masks go by it."""
    categories = _renamed(sample.category for sample in samples)
    defects = _renamed((sample.defect for sample in samples if sample.label), reserved=_RESERVED)
    homes = [(s.category, s.split, defects[s.defect] if s.label else "good") for s in samples]
    stems = [_safe(sample.image.stem) for sample in samples]
    often = Counter((home, stem.casefold()) for home, stem in zip(homes, stems, strict=True))
    places, taken = [], set()
    for sample, home, stem in zip(samples, homes, stems, strict=True):
        if often[home, stem.casefold()] > 1:
            stem = _safe(re.sub(r"\.\w+$", "", sample.name).replace("/", "_"))[-150:]
        stem = next(name for name in _numbered(stem) if (home, name.casefold()) not in taken)
        taken.add((home, stem.casefold()))
        suffix = sample.image.suffix if sample.image.suffix.casefold() in IMAGE_SUFFIXES else ".png"
        places.append(_Place(sample, categories[sample.category], home[2], stem + suffix))
    return places


def _renamed(names: Iterable[str], *, reserved: frozenset[str] = frozenset()) -> dict[str, str]:
    """Name -> a name fit for a directory, different for different ones on any file system."""
    found: dict[str, str] = {}
    taken = set(reserved)
    for name in sorted(set(names)):
        found[name] = next(fit for fit in _numbered(_safe(name)) if fit.casefold() not in taken)
        taken.add(found[name].casefold())
    return found


def _numbered(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in range(2, 10**9))


def _safe(name: str) -> str:
    """A name that every file system takes and no reader passes over as hidden or as a copy."""
    plain = re.sub(r"[^\w.\-+ #=@~%,&']", "_", name).strip(" .")[:150]
    return f"x{plain}" if not plain or plain.startswith("__MACOSX") else plain


# ---------------------------------------------------------------------------------------------------------------- files


def _write(place: _Place, out: Path, copy: bool) -> Exported:
    sample = place.sample
    image = f"{place.category}/{sample.split}/{place.defect}/{place.file}"
    mask = ""
    (out / image).parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(sample.image, out / image)
    else:
        _link(sample.image, out / image)
    if sample.label and sample.masks:
        # `ground_truth/<defect>` is of the test images alone: train may hold the same names.
        home = "ground_truth" if sample.split == "test" else f"ground_truth/{sample.split}"
        mask = f"{place.category}/{home}/{place.defect}/{Path(place.file).stem}_mask.png"
        (out / mask).parent.mkdir(parents=True, exist_ok=True)
        pixels = read_mask(sample, header_size(sample.image))
        Image.fromarray(pixels * np.uint8(255)).save(out / mask)
    return Exported(sample, image, mask, place.category, place.defect)


def _link(image: Path, target: Path) -> None:
    try:
        target.symlink_to(os.path.realpath(image))
    except (OSError, NotImplementedError) as error:
        raise DataError(f"{target}: symbolic links cannot be made here ({error}); give --copy") from error
