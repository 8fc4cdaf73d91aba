"""A benchmark by several processes of this machine: they share the folder as processes of several machines would."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sowa.benchmark.plan import Plan
from sowa.benchmark.runner import Outcome, Progress, run_benchmark
from sowa.benchmark.store import Store
from sowa.errors import SowaError
from sowa.shards import shard_of

__all__ = ["helpers", "run_shared"]


def run_shared(
    plan: Plan, store: Store, *, shard: str | None, processes: int, workers: int, progress: Progress | None = None
) -> Outcome:
    """`run_benchmark` of a shard "I/N" (None is all) by this process and `processes` - 1 more."""
    part = shard_of(shard)
    with helpers(plan, store, processes, shard=part):
        return run_benchmark(plan, store, workers=workers, shard=part, progress=progress)


@contextmanager
def helpers(plan: Plan, store: Store, processes: int, *, shard: tuple[int, int]) -> Iterator[None]:
    """`processes` - 1 further processes that fill cells meanwhile, the cores shared; ended at the latest at the end.

    What they fail at is tried and told by this process, so nothing of theirs has to be told.
    """
    if processes == 1:
        yield
        return
    import torch

    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // processes)
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    started = [
        context.Process(target=_help, args=(plan, store.folder, store.stale, shard, threads), daemon=True)
        for _ in range(processes - 1)
    ]
    for process in started:
        process.start()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for process in started:
            process.terminate()  # all cells are there, or somebody wants to stop
        for process in started:
            process.join(10)
            process.kill()


def _help(plan: Plan, folder: Path, stale: float, shard: tuple[int, int], threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the locks, which are given back
    try:
        run_benchmark(plan, Store(folder, stale=stale), shard=shard, wait=False)
    except (SowaError, KeyboardInterrupt):  # the same stops the process that was asked, which says it
        sys.exit(2)
