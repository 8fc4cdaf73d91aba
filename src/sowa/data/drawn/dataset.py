"""Drawn categories on disk, in the layout of MVTec AD."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sowa.data.drawn.catalogue import CATEGORIES
from sowa.data.drawn.fields import generator
from sowa.data.drawn.sample import SIZES, VERSION, draw_sample
from sowa.errors import ConfigError, DataError, UnknownNameError

__all__ = ["MANIFEST", "draw_dataset", "image_index"]

MANIFEST = "drawn.json"
"""Written last: a directory that holds it is complete."""

_Entry = tuple[str, str, str | None, int]  # category, split, defect, number


def image_index(split: str, defect: str | None, number: int) -> int:
    """The `index` under which `draw_sample` draws file `number` of a folder; no two files of a category share one.

    Hence no test picture is the twin of a training picture, and asking for more files changes none of the earlier ones.
    """
    key = f"{split}/{defect or 'good'}/{number}".encode()
    return int.from_bytes(blake2b(key, digest_size=6).digest(), "little")


def draw_dataset(
    root: Path,
    *,
    seed: int,
    categories: Sequence[str],
    train_good: int,
    test_good: int,
    test_bad: int,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a data set into the directory `root` and return it; counts are per category.

    Files: `<category>/train/good/NNN.png`, `<category>/test/good/NNN.png`, `<category>/test/<defect>/NNN.png` and
    `<category>/ground_truth/<defect>/NNN_mask.png` (0 or 255), the defects of a category taking turns. The directory
    appears complete or not at all. If it is there already with the same settings nothing is drawn.
    `progress(done, total)` is called after each picture.

    Raises UnknownNameError for a category that is not drawn here, ConfigError for settings that cannot be used,
    DataError if `root` holds anything else, another drawing included, or cannot be written.
    """
    root = Path(root)
    wanted = _settings(seed, categories, train_good, test_good, test_bad, size)
    if _is_drawn(root, wanted):
        return root
    try:
        _draw_whole(root, wanted, progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be written: {error.strerror}; draw elsewhere (SOWA_CACHE moves it)"
        ) from error
    return root


def _draw_whole(root: Path, wanted: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent))
    try:
        entries = list(_entries(wanted))
        for done, entry in enumerate(entries, start=1):
            _draw_file(beside, entry, seed=wanted["seed"], size=wanted["size"])
            if progress is not None:
                progress(done, len(entries))
        (beside / MANIFEST).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        beside.chmod(0o755)  # mkdtemp makes it private
        _move(beside, root, wanted)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _settings(seed: int, categories: Sequence[str], train_good: int, test_good: int, test_bad: int, size: int):
    """The arguments as the manifest records them, checked."""
    if isinstance(categories, str) or not categories:
        raise ConfigError(f"categories {categories!r}: give at least one name in a list, of {', '.join(CATEGORIES)}")
    for name in categories:
        if name not in CATEGORIES:
            raise UnknownNameError("drawn category", got=name, known=CATEGORIES)
    counts = {"train_good": int(train_good), "test_good": int(test_good), "test_bad": int(test_bad)}
    for name, count in counts.items():
        if count < 0:
            raise ConfigError(f"{name}={count}: a number of pictures is 0 or more; choose one")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(
            f"size={size}: drawn pictures are {SIZES[0]} to {SIZES[1]} pixels a side; choose one of those"
        )
    names = sorted(set(categories))
    return {
        "format": "sowa-drawn",
        "version": VERSION,
        "seed": int(seed),
        "size": int(size),
        **counts,
        "categories": names,
    }


def _is_drawn(root: Path, wanted: dict[str, object]) -> bool:
    """True if `root` holds exactly this drawing, False if it is free; DataError if it holds something else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise DataError(f"{root} is a file: a drawn data set needs a directory; choose another one")
    manifest = root / MANIFEST
    if not manifest.is_file():
        if any(root.iterdir()):
            raise DataError(f"{root} holds other files and no {MANIFEST}: choose an empty or a new directory")
        return False
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{manifest} cannot be read: remove {root} or choose another directory") from error
    if found == wanted:
        return True
    found = found if isinstance(found, dict) else {}
    changed = ", ".join(
        f"{key} {found.get(key)!r} not {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]
    )
    raise DataError(
        f"{root} holds another drawing ({changed or 'unknown settings'}): remove it or choose another directory"
    )


def _entries(wanted: dict[str, object]) -> Iterator[_Entry]:
    """Every picture of the data set."""
    for category in wanted["categories"]:
        defects = CATEGORIES[category].defects
        turns = generator("turns", VERSION, wanted["seed"], category).permutation(len(defects))
        for number in range(wanted["train_good"]):
            yield category, "train", None, number
        for number in range(wanted["test_good"]):
            yield category, "test", None, number
        for number in range(wanted["test_bad"]):
            yield category, "test", defects[turns[number % len(defects)]], number // len(defects)


def _draw_file(root: Path, entry: _Entry, *, seed: int, size: int) -> None:
    category, split, defect, number = entry
    index = image_index(split, defect, number)
    image, mask = draw_sample(category, seed=seed, index=index, defect=defect, size=size)
    _save(root / category / split / (defect or "good") / f"{number:03d}.png", image)
    if defect is not None:
        _save(root / category / "ground_truth" / defect / f"{number:03d}_mask.png", mask * np.uint8(255))


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # grain does not compress: more effort would only cost time


def _move(beside: Path, root: Path, wanted: dict[str, object]) -> None:
    """Give the finished directory its name; if another process was faster, its equal drawing stays."""
    try:
        os.rename(beside, root)
    except OSError:
        if not _is_drawn(root, wanted):
            if root.is_dir():  # empty, on a system that does not rename onto an empty directory
                root.rmdir()
            os.rename(beside, root)
