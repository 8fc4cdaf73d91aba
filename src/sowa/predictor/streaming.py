"""Pictures of a stream, decoded ahead of their turn by a few threads, in order and never many at once."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sowa.errors import DataError
from sowa.predictor.view import Looked

__all__ = ["Ready", "read_ahead"]

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


def _read(look: Callable[[str, Any], Looked], name: str, item: Any) -> Ready:
    began = time.perf_counter()
    try:
        return Ready(name, look(name, item), None, time.perf_counter() - began)
    except DataError as error:
        return Ready(name, None, error, time.perf_counter() - began)
