"""A folder that pictures keep coming into, as beside a production line."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import NamedTuple

from sowa.errors import ConfigError, DataError
from sowa.predictor.sources import Item, walk

__all__ = ["watched"]

POLL = 0.2
"""Seconds between two looks into the folder."""
SETTLED, SETTLED_EMPTY = 0.5, 10.0
"""Seconds without a change after which a file counts as fully written; an empty one may be about to be filled."""


class _State(NamedTuple):
    size: int
    changed: int


def watched(
    folder: Path,
    *,
    idle: float | None = None,
    skip: Path | None = None,
    poll: float = POLL,
    stop: Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Pictures that are in the folder or below, then those that come, each once its file stopped changing.

    A file that changes after it was given is given again. idle: end after so many seconds in which no file was new or
    changing; None: never. stop: end as soon as it is set. A file moved in under its final name is never seen half.
    """
    if not folder.is_dir():
        raise ConfigError(f"--watch {folder}: no such folder; make it first")
    return _watched(folder, idle, None if skip is None else skip.resolve(), poll, stop or Event(), clock)


def _watched(
    folder: Path,
    idle: float | None,
    away: Path | None,
    poll: float,
    stop: Event,
    clock: Callable[[], float],
) -> Iterator[Item]:
    given: dict[Path, _State] = {}
    waiting: dict[Path, tuple[_State, float]] = {}
    quiet_since = clock()
    while not stop.is_set():
        present = _present(folder, away)
        given = {path: state for path, state in given.items() if path in present}
        waiting = {path: entry for path, entry in waiting.items() if path in present}
        ready = []
        for path, state in present.items():
            if given.get(path) == state:
                continue
            if path not in waiting or waiting[path][0] != state:
                waiting[path] = (state, clock())
                quiet_since = clock()
            elif clock() - waiting[path][1] >= (SETTLED if state.size else SETTLED_EMPTY):
                ready.append((path, state))
        for path, state in ready:
            if stop.is_set():
                return
            del waiting[path]
            given[path] = state
            yield Item(path.relative_to(folder).as_posix(), str(path), path)
            quiet_since = clock()
        if idle is not None and not waiting and clock() - quiet_since >= idle:
            return
        stop.wait(poll)


def _present(folder: Path, away: Path | None) -> dict[Path, _State]:
    """Size and time of each picture; what vanishes meanwhile is left out, and so is all if the folder itself does."""
    found = {}
    try:
        for path in walk(folder, away=away):
            try:
                status = path.stat()
            except OSError:
                continue
            found[path] = _State(status.st_size, status.st_mtime_ns)
    except DataError:  # a network folder may come back
        pass
    return found
