"""Pictures of a stream, in order and never many at once: decoded by a few threads, judged by others, handed over by the
caller's own, all at the same time. The libraries let go of the interpreter while they decode and compute.

On a processor each judge has a share of torch's threads and of the batch. Were there one judge with all of them, each
of its products would wait for the thread whose core is decoding, and the others would spin meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch

from sowa.errors import DataError
from sowa.predictor.view import Looked

__all__ = ["Ready", "judge_ahead", "judges_on", "read_ahead"]

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


def judges_on(device: torch.device, batch_size: int) -> int:
    """How many judges share the batches of a stream: on a processor one for each of torch's threads, if there are
    pictures for all, else one."""
    return min(batch_size, torch.get_num_threads()) if device.type == "cpu" else 1


def judge_ahead(
    pictures: Iterator[Ready],
    judge: Callable[[Sequence[Ready]], Judged],
    *,
    batch_size: int,
    strict: bool,
    judges: int = 1,
) -> Iterator[tuple[list[Ready], Judged]]:
    """(batch, what `judge` says of it) in order; while the caller works on one, the next are judged.

    With a batch size of 1 each is answered before the next is taken. `judges` threads share torch's threads and the
    batch size: each takes batches of its own, smaller ones. strict: an unreadable picture raises its error.
    """
    if batch_size == 1:
        for batch in _batches(pictures, 1, strict):
            yield batch, judge(batch)
        return
    own = -(-batch_size // judges)
    ahead = 2 * batch_size // own - 1
    waiting: deque[tuple[list[Ready], Future[Judged]]] = deque()
    with _threads(judges) as pool:
        try:
            for batch in _batches(pictures, own, strict):
                waiting.append((batch, pool.submit(judge, batch)))
                if len(waiting) > ahead:
                    first, judged = waiting.popleft()
                    yield first, judged.result()
            while waiting:
                first, judged = waiting.popleft()
                yield first, judged.result()
        finally:
            for _, judged in waiting:
                judged.cancel()


@contextmanager
def _threads(judges: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share those of torch. A part of torch has one number of threads for the whole process: it is set
    back to the number of the thread that asked."""
    share = max(1, torch.get_num_threads() // judges)
    try:
        with ThreadPoolExecutor(judges, "sowa-judge", torch.set_num_threads, (share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(torch.get_num_threads())


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
