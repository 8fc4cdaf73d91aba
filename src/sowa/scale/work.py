"""One block: read, scored, written. The same object serves in this process, in others, and as an actor of Ray."""

import json
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sowa.errors import DataError
from sowa.predictor import Predictor, Result
from sowa.predictor.results import ERROR, unreadable
from sowa.scale.blocks import Block
from sowa.scale.files import Place, fetch, is_remote, local_copy

__all__ = ["Done", "Job", "Scorer", "records"]

READERS = 8
"""Remote pictures that are on their way at the same time: more of waiting than of work."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know before its first block. Plain values, so that it travels."""

    detector: str
    out: str
    batch_size: int = 8
    threads: int | None = None
    """Of torch; None leaves them as they are."""
    cache_dir: str | None = None
    weights: str | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A block whose results are written."""

    block: int
    pictures: int
    unreadable: int
    seconds: float
    core_seconds: float
    """Of the processor, of all threads of the worker: what a picture costs, on a busy machine too."""


class Scorer:
    """A loaded detector that scores blocks into a folder."""

    def __init__(self, job: Job):
        if job.threads is not None:
            import torch

            torch.set_num_threads(job.threads)
        self.job, self.place = job, Place(job.out)
        self.predictor = load(job)

    def ready(self) -> None:
        """Answers once everything is loaded."""

    def __call__(self, block: Block) -> Done:
        """Score and write; a block that is written twice is the same file. OSError where pictures cannot be reached."""
        began, spent, failed = time.perf_counter(), time.process_time(), 0
        lines = []
        for record in records(self.predictor, block.paths, batch_size=self.job.batch_size):
            failed += record["verdict"] == ERROR
            lines.append(json.dumps(record))
        self.place.write(block.file, lines)
        seconds, core_seconds = time.perf_counter() - began, time.process_time() - spent
        return Done(block.number, len(lines), failed, seconds, core_seconds)


def load(job: Job) -> Predictor:
    """The detector of a job, from wherever it lies."""
    with tempfile.TemporaryDirectory(prefix="sowa-") as here:
        return Predictor.load(
            local_copy(job.detector, Path(here)),
            cache_dir=None if job.cache_dir is None else Path(job.cache_dir),
            offline=job.offline,
            weights=job.weights,
            precision="fp32",  # the machines of one run may be of several kinds
        )


def records(
    predictor: Predictor, paths: Iterable[str], *, batch_size: int, contents: Iterable[bytes] | None = None
) -> Iterator[dict[str, Any]]:
    """A row of `results.jsonl` for each path, in order: `Result.record()` and the path.

    contents: of the files, where they are at hand already; nothing is then read.
    """
    order: deque[tuple[str, DataError | None]] = deque()

    def whole() -> Iterator[tuple[str, Any]]:
        for path, item in _ahead(paths) if contents is None else zip(paths, contents, strict=True):
            error = item if isinstance(item, DataError) else None
            order.append((path, error))
            if error is None:
                yield path, item

    def row(path: str, result: Result) -> dict[str, Any]:
        return {**result.record(), "path": path}

    for result in predictor.stream(whole(), batch_size=batch_size):
        while order[0][1] is not None:
            yield row(order[0][0], _absent(predictor, *order.popleft()))
        yield row(order.popleft()[0], result)
    while order:
        yield row(order[0][0], _absent(predictor, *order.popleft()))


def _absent(predictor: Predictor, path: str, error: DataError | None) -> Result:
    line = " ".join(str(error).split())
    known = {"threshold": predictor.threshold, "threshold_source": predictor.info()["threshold_source"]}
    return unreadable(path, line, **known, artifact=predictor.id)


def _ahead(paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """(path, picture) in order. Local pictures are read by the stream itself, remote ones are fetched ahead."""
    waiting: deque[tuple[str, Future[bytes | DataError] | Path]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="sowa-fetch") as pool:
        try:
            for path in paths:
                waiting.append((path, pool.submit(_fetched, path) if is_remote(path) else Path(path)))
                if len(waiting) > 2 * READERS:
                    yield _arrived(*waiting.popleft())
            while waiting:
                yield _arrived(*waiting.popleft())
        finally:
            for _, one in waiting:
                if isinstance(one, Future):
                    one.cancel()


def _arrived(path: str, item: "Future[bytes | DataError] | Path") -> tuple[str, Any]:
    return path, item.result() if isinstance(item, Future) else item


def _fetched(url: str) -> bytes | DataError:
    try:
        return fetch(url)
    except DataError as error:
        return error
