"""The content of a data set's files: whether each can be read, fits its mask and is there only once.

Files are read one at a time in each process, in pieces where that is possible, so memory grows neither with their
number nor with their size.
"""

import hashlib
import multiprocessing
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sowa.data.images import mask_is_empty, read_mask
from sowa.data.layouts import Problem, Reading
from sowa.data.layouts_tree import Masks, look
from sowa.data.sound import sound_size
from sowa.errors import DataError
from sowa.types import Sample

__all__ = ["Watch", "by_content"]

Watch = Callable[[int, int], None]
"""Told (files done, files in all) now and then."""

_TRUTH = ("ground_truth", "groundtruth", "ground-truth", "masks", "mask", "gt")
_BY_FOLDER = ("mvtec", "btad", "dtd", "mpdd", "loco", "mvtec_ad2", "folder")
# Starting processes costs more than reading this much.
_FEW_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class _Job:
    sample: Sample
    truth: tuple[Path, ...]
    """Masks that lie where those of this normal image would, were it defective."""
    twins: bool
    """Whether another image has as many bytes, so that the content must be compared."""


@dataclass(frozen=True, slots=True)
class _Finding:
    problems: tuple[Problem, ...]
    digest: bytes | None


def by_content(reading: Reading, workers: int, max_pixels: int, watch: Watch | None) -> Iterator[Problem]:
    """The problems that only the content of the files shows; `workers` processes read those of larger data sets."""
    sizes = [_size(sample.image) for sample in reading.samples]
    often = Counter(sizes)
    truths = _normal_truths(reading)
    jobs = [
        _Job(sample, truths.get(sample.name, ()), often[size] > 1)
        for sample, size in zip(reading.samples, sizes, strict=True)
    ]
    same: dict[bytes, Sample] = {}
    workers = min(workers, len(jobs)) if sum(sizes) > _FEW_BYTES else 1
    for number, finding in enumerate(_findings(jobs, workers, max_pixels)):
        yield from finding.problems
        if finding.digest is not None:
            sample = jobs[number].sample
            first = same.setdefault(finding.digest, sample)
            if first is not sample:
                yield _twin(first, sample)
        if watch:
            watch(number + 1, len(jobs))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _findings(jobs: Sequence[_Job], workers: int, max_pixels: int) -> Iterator[_Finding]:
    examine = partial(_examine, max_pixels=max_pixels)
    if workers <= 1:
        yield from map(examine, jobs)
        return
    # A fork has everything loaded already; elsewhere than on Linux system libraries do not survive it.
    start = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=start, initializer=_deaf)
    try:
        yield from pool.map(examine, jobs, chunksize=8)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads images was killed (out of memory?): use one worker, or --quick"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _deaf() -> None:
    """An interrupt is for the parent, which then stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _examine(job: _Job, *, max_pixels: int) -> _Finding:
    """One image with its masks; every fault becomes a problem."""
    sample, problems, size = job.sample, [], None
    try:
        size = sound_size(sample.image, max_pixels=max_pixels)
    except DataError as error:
        problems.append(Problem(str(sample.image), "unreadable_image", str(error)))
    problems += _of_masks(sample, size, max_pixels)
    problems += _of_truth(sample, job.truth, max_pixels)
    # Files that cannot be read are alike in many ways; that they are alike is not news.
    return _Finding(tuple(problems), _digest(sample.image) if job.twins and size else None)


def _of_masks(sample: Sample, size: tuple[int, int] | None, max_pixels: int) -> Iterator[Problem]:
    if not (sample.label and sample.masks):
        return
    try:
        empty = not read_mask(sample, size, max_pixels=max_pixels).any() if size else _all_empty(sample, max_pixels)
    except DataError:
        yield _mask_fault(sample, size, max_pixels)
        return
    if empty:
        path = sample.masks[0]
        yield Problem(str(path), "empty_mask", f"{path}: marks nothing, but the image is defective ({sample.image})")


def _all_empty(sample: Sample, max_pixels: int) -> bool:
    return all(mask_is_empty(path, max_pixels=max_pixels) for path in sample.masks)


def _mask_fault(sample: Sample, size: tuple[int, int] | None, max_pixels: int) -> Problem:
    """Which mask of a sample is at fault, and of what."""
    for path in sample.masks:
        try:
            mask_is_empty(path, max_pixels=max_pixels)
        except DataError as error:
            return Problem(str(path), "unreadable_mask", str(error))
    for path in sample.masks:
        try:
            read_mask(replace(sample, masks=(path,)), size or (0, 0), max_pixels=max_pixels)
        except DataError as error:
            return Problem(str(path), "size_mismatch", str(error))
    raise AssertionError("masks that cannot be read together can be read one by one")


def _of_truth(sample: Sample, truth: Iterable[Path], max_pixels: int) -> Iterator[Problem]:
    for path in truth:
        try:
            if not mask_is_empty(path, max_pixels=max_pixels):
                message = f"{sample.image}: said to be good, but {path} marks a defect"
                yield Problem(str(sample.image), "defective_among_normals", message)
        except DataError as error:
            yield Problem(str(path), "unreadable_mask", str(error))


def _digest(path: Path) -> bytes | None:
    """Of the whole content; None if the file went away."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(1 << 18):
                digest.update(piece)
    except OSError:
        return None
    return digest.digest()


def _twin(first: Sample, second: Sample) -> Problem:
    if first.label != second.label:
        good, bad = (second, first) if first.label else (first, second)
        message = f"{good.image}: said to be good, but it is byte for byte the defective image {bad.image}"
        return Problem(str(good.image), "defective_among_normals", message)
    sides = f" ({first.split} and {second.split})" if first.split != second.split else ""
    message = f"{second.image}: same content as {first.image}{sides}"
    return Problem(str(second.image), "duplicate", message)


# ----------------------------------------------------------------------------------------------- masks of good images


def _normal_truths(reading: Reading) -> dict[str, tuple[Path, ...]]:
    """Name of a normal image -> masks that lie where a defective image has its own, in layouts that go by folders."""
    if reading.layout not in _BY_FOLDER:
        return {}
    folders: dict[Path, list[Sample]] = defaultdict(list)
    for sample in reading.samples:
        if not sample.label:
            folders[sample.image.parent].append(sample)
    found = {}
    for folder, samples in folders.items():
        places = [Masks(folder, beside_images=True), *map(Masks, _truth_folders(folder, reading.root))]
        for sample in samples:
            masks = next((masks for place in places if (masks := place.of(sample.image))), ())
            if masks:
                found[sample.name] = masks
    return found


def _truth_folders(folder: Path, root: Path) -> Iterator[Path]:
    """Existing `<split>/<truth>/<folder>` and `<category>/<truth>/[<split>/]<folder>`; train needs its own."""
    split, home = folder.parent, folder.parent.parent
    if not folder.is_relative_to(root) or folder == root:
        return
    places = [(split, folder.name)]
    if home.is_relative_to(root):
        places += [(home, f"{split.name}/{folder.name}")]
        places += [(home, folder.name)] if split.name.casefold().startswith("test") else []
    for place, below in places:
        truth = look(place).folder(*_TRUTH)
        if truth is not None and (truth / below).is_dir():
            yield truth / below
