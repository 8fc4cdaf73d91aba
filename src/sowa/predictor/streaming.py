"""Pictures of a stream, in order and never many at once: decoded by a few threads, judged by one, handed over by the
caller's own, all at the same time. The libraries let go of the interpreter while they decode and compute."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sowa.errors import DataError
from sowa.predictor.view import Looked

__all__ = ["Ready", "judge_ahead", "read_ahead"]

Judged = TypeVar("Judged")

READERS = 2


@dataclass(frozen=True, slots=True)
class Ready:
    """A picture as the model sees it, or why it could not be read."""

    name: str
    looked: Looked | None
    error: DataError | None
    seconds: float
    """What reading it took."""


def read_ahead(items: Iterable[tuple[str, Any]], look: Callable[[str, Any], Looked], *, ahead: int) -> Iterator[Ready]:
    """Every (name, picture) in its order, `ahead` of them in the making; with 0 none is taken before it is wanted."""
    waiting: deque[Future[Ready]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="sowa-read") as pool:
        try:
            for name, item in items:
                waiting.append(pool.submit(_read, look, name, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def judge_ahead(
    pictures: Iterator[Ready],
    judge: Callable[[Sequence[Ready]], Judged],
    *,
    batch_size: int,
    strict: bool,
) -> Iterator[tuple[list[Ready], Judged]]:
    """(batch, what `judge` says of it) in order; while the caller works on one, the next is judged.

    With a batch size of 1 each is answered before the next is taken. strict: an unreadable picture raises its error.
    """
    batches = _batches(pictures, batch_size, strict)
    if batch_size == 1:
        for batch in batches:
            yield batch, judge(batch)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="sowa-judge") as pool:
        waiting: tuple[list[Ready], Future[Judged]] | None = None
        for batch in batches:
            before, waiting = waiting, (batch, pool.submit(judge, batch))
            if before is not None:
                yield before[0], before[1].result()
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _batches(pictures: Iterator[Ready], batch_size: int, strict: bool) -> Iterator[list[Ready]]:
    while batch := list(islice(pictures, batch_size)):
        for ready in batch:
            if strict and ready.error is not None:
                raise ready.error
        yield batch


def _read(look: Callable[[str, Any], Looked], name: str, item: Any) -> Ready:
    began = time.perf_counter()
    try:
        return Ready(name, look(name, item), None, time.perf_counter() - began)
    except DataError as error:
        return Ready(name, None, error, time.perf_counter() - began)
