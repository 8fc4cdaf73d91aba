"""Verdicts on a work list by workers of this machine or of a Ray cluster; merged when all of it is there."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sowa.errors import ConfigError, DataError
from sowa.scale.blocks import Block, Work, open_work
from sowa.scale.files import Place, is_remote, listed, local_copy, opened, pictures
from sowa.scale.merge import Merged, merge, missing
from sowa.shards import shard_of
from sowa.wheels import file_sha256

if TYPE_CHECKING:
    from sowa.scale.work import Job

__all__ = ["Outcome", "predict_many"]

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures to do) of this run."""


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    pictures: int = 0
    """Scored in this run."""
    unreadable: int = 0
    core_seconds: float = 0.0
    """Of the processor, spent on these pictures by all workers; their start is not in it."""
    found: int = 0
    """Blocks that were there already."""
    lost: int = 0
    """Workers that were lost and replaced."""
    failed: list[str] = field(default_factory=list)
    """Blocks that were given up, each with its reason."""
    merged: Merged | None = None


def predict_many(
    detector: str,
    sources: Sequence[str],
    out: str,
    *,
    lists: Sequence[str] = (),
    workers: int = 1,
    threads: int | None = None,
    shard: str | None = None,
    ray: str | None = None,
    block: int = 256,
    batch_size: int = 8,
    cache_dir: str | None = None,
    weights: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Score every picture of `sources` and `lists` once and leave one row each in `out/results.jsonl`.

    detector, sources, out: local paths or what fsspec reads. lists: text files of paths.
    workers: 1 is this process. threads: of each worker; None shares the cores between several.
    shard: "I/N", this machine's part of the blocks; the folder is then merged by `sowa.scale.merge.merge`.
    ray: "local" or the address of a cluster; None without Ray.
    block: pictures that are scored and written together, and lost together with their worker.
    A block that is written is never computed again, so a run that was stopped goes on.
    Raises SowaError for what is wrong before or with the work as a whole; what fails of it is in the outcome.
    """
    for name, value in (("workers", workers), ("block", block), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name}={value}: give a whole number of 1 or more")
    first, count = shard_of(shard)
    place = Place(out)
    if place.per_process and (workers > 1 or ray):
        raise ConfigError(f"{out} is the memory of one process: give a folder that all workers see, or workers=1")
    detector = detector if is_remote(detector) else opened(detector)[1]
    work = _work(detector, sources, lists, block)
    open_work(place, work)
    todo = [one for one in missing(place, work) if one.number % count == first]
    mine = len(range(first, len(work), count))
    if threads is None and workers > 1 and not ray:
        threads = max(1, (os.cpu_count() or 1) // workers)
    outcome = Outcome(found=mine - len(todo))
    if todo:
        from sowa.scale.work import Job  # loads torch

        where = opened(out)[1] if not place.remote else out
        job = Job(detector, where, batch_size, threads, cache_dir, weights, offline)
        _score(todo, job, workers, ray, outcome, progress)
    if count == 1 and not outcome.failed:
        outcome.merged = merge(place)
    return outcome


def _work(detector: str, sources: Sequence[str], lists: Sequence[str], block: int) -> Work:
    with tempfile.TemporaryDirectory(prefix="sowa-") as here:
        path = local_copy(detector, Path(here))
        if not path.is_file():
            raise DataError(f"{detector}: no such detector; make one with sowa fit")
        digest = file_sha256(path)
    paths = {*pictures(sources), *(path for one in lists for path in listed(one))}
    if not paths:
        raise DataError("no picture to score: give files, folders, patterns, or a list of paths")
    return Work(digest, block, tuple(sorted(paths)))


def _score(
    todo: Sequence[Block], job: "Job", workers: int, ray: str | None, outcome: Outcome, progress: Progress | None
) -> None:
    from sowa.scale.local import in_processes, in_this_process
    from sowa.scale.turns import Failed, Lost

    if ray is not None:
        from sowa.scale.with_ray import on_ray

        events = on_ray(todo, job, workers, None if ray == "local" else ray)
    else:
        events = in_processes(todo, job, workers) if workers > 1 else in_this_process(todo, job)
    total = sum(len(block.paths) for block in todo)
    for event in events:
        if isinstance(event, Failed):
            outcome.failed.append(f"block {event.block}: {event.reason}")
        elif isinstance(event, Lost):
            outcome.lost += 1
        else:
            outcome.pictures += event.pictures
            outcome.unreadable += event.unreadable
            outcome.core_seconds += event.core_seconds
            if progress:
                progress(outcome.pictures, total)
