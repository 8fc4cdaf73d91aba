"""What is wrong with a data set: its names and lists, its counts against the published ones, the content of its files.

Kinds of problem found here, besides those of the readers (see `layouts`):

    unreadable_image          an image that `read_image` refuses, for the reason it gives
    unreadable_mask           likewise a mask
    missing_mask              a defective image without a mask where others have one
    empty_mask                the masks of a defective image mark nothing
    size_mismatch             a mask of another size than its image
    duplicate                 an image with the same bytes as an earlier one
    defective_among_normals   a normal image that is also a defective one, or that a mask marks, or a defective image
                              in the training split of a data set that was not published so
    count                     a category with other numbers than published
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from sowa.data.check_content import Watch, by_content
from sowa.data.images import MAX_PIXELS
from sowa.data.layouts import LAYOUTS, Problem, scan
from sowa.data.layouts_counts import KINDS, Counts, count, differences, published_counts
from sowa.data.layouts_tree import FATAL
from sowa.errors import DataError, UnknownNameError
from sowa.types import Sample

__all__ = ["Record", "Report", "check", "published_as", "unusable"]


class Record(TypedDict):
    """What `sowa data check --json` prints; `problems` have path, kind and message."""

    layout: str | None
    categories: Counts
    problems: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; nothing in it is read again from the files."""

    layout: str | None
    """None where none was recognised."""
    root: Path
    counts: Counts
    problems: tuple[Problem, ...]
    """Sorted by path."""
    published: str | None = None
    """The data set whose published counts were compared."""
    usable: bool = True
    """False where `read_samples` would refuse the data set or not one image can be read."""

    @property
    def exit_code(self) -> int:
        """0 clean, 1 warnings, 2 unusable."""
        if not self.usable:
            return 2
        return 1 if self.problems else 0

    def record(self) -> Record:
        """Plain values for JSON."""
        problems = [{"path": p.path, "kind": p.kind, "message": p.message} for p in self.problems]
        return Record(layout=self.layout, categories=self.counts, problems=problems)


def check(
    root: str | os.PathLike[str],
    layout: str = "auto",
    *,
    split: str | None = None,
    quick: bool = False,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    watch: Watch | None = None,
) -> Report:
    """Everything that is wrong with a data set; `DataError` only if no data set is there at all.

    quick: names, lists and counts only, no file is opened. workers: processes that read the files of larger data sets;
    more than one needs a main module that may be imported. Memory does not grow with the size of the files.
    """
    reading = scan(root, layout, split=split)
    counts = count(reading.samples)
    published = published_as(reading.layout, counts)
    if split is not None and split != LAYOUTS[reading.layout].splits[0]:
        published = None  # the published counts are those of the default split
    problems = [_located(problem, reading.root) for problem in reading.problems]
    problems += [_located(p, reading.root) for p in (differences(counts, published) if published else ())]
    problems += _trained_on(reading.samples, published)
    if not LAYOUTS[reading.layout].masks:
        problems += _some_without_mask(reading.samples)
    if not quick:
        problems += by_content(reading, workers, max_pixels, watch)
    unreadable = sum(problem.kind == "unreadable_image" for problem in problems)
    usable = unreadable < len(reading.samples) and not any(problem.kind in FATAL for problem in problems)
    ordered = tuple(sorted(set(problems), key=lambda p: (p.path, p.kind, p.message)))
    return Report(reading.layout, reading.root, counts, ordered, published, usable)


def unusable(root: str | os.PathLike[str], error: DataError) -> Report:
    """The report on a path where `check` found no data set."""
    path = Path(os.path.abspath(root))
    return Report(None, path, {}, (Problem(str(path), "unusable", str(error)),), usable=False)


def published_as(layout: str, counts: Iterable[str]) -> str | None:
    """The data set with published counts that the categories belong to, None if there is none.

    Some trees and the papers' `meta.json` hold several data sets, told apart by their categories. A category
    that nobody published makes it somebody's own data.
    """
    found = set(counts)
    candidates = [layout, *(name for name in LAYOUTS if layout in ("mvtec", "meta_json") and name != layout)]
    for name in candidates:
        try:
            known = published_counts(name).keys()
        except UnknownNameError:
            continue
        if found <= known:
            return name
    return None


def _located(problem: Problem, home: Path) -> Problem:
    """The same problem with a path that can be opened, where there is one."""
    if os.path.isabs(problem.path) or "\0" in problem.path:
        return problem
    path = home / problem.path
    if problem.kind == "count" or os.path.lexists(path):
        return replace(problem, path=str(path if os.path.lexists(path) else home))
    return problem


def _trained_on(samples: Sequence[Sample], published: str | None) -> Iterator[Problem]:
    """Defective images of the training split, but not where the data set was published with them."""
    known = published_counts(published) if published else {}
    for sample in samples:
        by_design = known.get(sample.category, dict.fromkeys(KINDS, 0))["train_bad"] > 0
        if sample.label and sample.split == "train" and not by_design:
            message = f"{sample.image}: defective image in the training split; it is not drawn as a shot"
            yield Problem(str(sample.image), "defective_among_normals", message)


def _some_without_mask(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Where masks are optional, only a category that has some may lack some."""
    having = {sample.category for sample in samples if sample.masks}
    for sample in samples:
        if sample.label and not sample.masks and sample.category in having:
            message = f"{sample.image}: defective image without a mask, others of {sample.category} have one"
            yield Problem(str(sample.image), "missing_mask", message)
