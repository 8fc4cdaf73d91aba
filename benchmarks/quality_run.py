"""The work behind the quality figures, shared by processes of one thread each: cells, then disturbed images.

Every cell and every part of the trust page is a file of its own; a killed run goes on with what is missing.
"""

import json
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from quality_trust import FIRST, MOST, category_trust, trust_key

from sowa.benchmark.jobs import Jobs
from sowa.benchmark.plan import Plan
from sowa.benchmark.runner import run_benchmark
from sowa.benchmark.store import Store
from sowa.metrics import write_json
from sowa.training.evaluate import cells_of

__all__ = ["Work", "alone", "fill"]

WEIGHTS = {"sowa_plus": 5.0, "nearest_dinov2": 6.0, "sowa": 6.0, "winclip": 4.0, "spade": 5.0, "sowa_plus_fast": 1.5}
"""Seconds of a cell, roughly, to tell the time left; others cost OTHER."""
OTHER, TRUST_WEIGHT, EVERY = 3.0, 40.0, 20.0
PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do."""

    plans: tuple[Plan, ...]
    """One after the other; the first begins with the method that the trust page is about."""
    folder: Path
    trust: int = MOST
    """Images of each category and label that are disturbed; 0: none, and no defective shot."""


def fill(
    work: Work, all_jobs: Sequence[Jobs], processes: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float], list[str]]:
    """Compute what is missing: (trust by category, seconds by part of what is no cell, what failed)."""
    before = torch.get_num_threads()
    threads = max(1, before // processes)
    torch.set_num_threads(threads)
    began = time.monotonic()
    try:
        with _helpers(work, processes - 1, threads), _told(work, all_jobs, began):
            trained = _train(work, all_jobs)
            _pass(work, all_jobs, wait=False)
            failed, found = _pass(work, all_jobs, wait=True)
    finally:
        torch.set_num_threads(before)
    spent = {"training of sowa": trained} if trained else {}
    if found:
        spent["disturbed images, defective shot"] = sum(part["seconds"] for part in found.values())
    return found, spent, failed


def _pass(work: Work, all_jobs: Sequence[Jobs], *, wait: bool) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Once through everything; what others hold is left to them, or waited for."""
    failed: list[str] = []
    for jobs in all_jobs:
        failed += run_benchmark(jobs.plan, jobs.store, wait=wait, jobs=jobs).failed
    return failed, _trust(work, alone(all_jobs[0]), wait) if work.trust else {}


def alone(jobs: Jobs, place: int = 0) -> Jobs:
    """One method of a plan with towers of its own: a shared one runs all blocks that any of its readers asked for."""
    return Jobs(replace(jobs.plan, methods=(jobs.plan.methods[place],)), jobs.store)


def _trust(work: Work, jobs: Jobs, wait: bool) -> dict[str, dict[str, Any]]:
    plan, store, found = jobs.plan, jobs.store, {}
    for choice in plan.data:
        if choice.name == FIRST:
            continue
        target = jobs.target(choice)
        method = jobs.method(plan.methods[0], choice, target)
        for category in target.categories():
            key = trust_key(plan, method, target, category, work.trust)
            path = store.folder / "trust" / f"{choice.name}-{category.replace('/', '_')}-{key}.json"
            while not path.exists():
                with store.claim(f"trust-{choice.name}-{category}") as lock:
                    if lock is not None and not path.exists():
                        path.parent.mkdir(exist_ok=True)
                        write_json(
                            path, category_trust(method.detector, plan, target, category, work.trust, lock.touch)
                        )
                if not wait:
                    break
                if not path.exists():
                    time.sleep(PAUSE)
            if path.exists():
                found[f"{choice.name}/{category.rpartition('/')[2]}"] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _train(work: Work, all_jobs: Sequence[Jobs]) -> float:
    """Train what has to be while the helpers score; seconds, also of an earlier run, 0 if nothing is trained."""
    noted = work.folder / "training.json"
    for jobs in all_jobs:
        for data in jobs.plan.data:
            for choice in jobs.plan.methods:
                method = jobs.method(choice, data, target := jobs.target(data))
                if method.trained_path is None or method.trained_path.exists():
                    continue
                began = time.monotonic()
                jobs.make_ready(method, target, data, choice)
                write_json(noted, {"seconds": _noted(noted) + time.monotonic() - began})
    return _noted(noted)


def _noted(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.exists() else 0.0


@contextmanager
def _helpers(work: Work, count: int, threads: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    started = [context.Process(target=_help, args=(work, threads), daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join(10)
            process.kill()


def _help(work: Work, threads: int) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the locks, which are given back
    store = Store(work.folder)
    with suppress(KeyboardInterrupt):
        _pass(work, [Jobs(plan, store) for plan in work.plans], wait=False)


# ------------------------------------------------------------------------------------------------------- progress


@contextmanager
def _told(work: Work, all_jobs: Sequence[Jobs], began: float) -> Iterator[None]:
    """A line now and then with the time left, guessed from what each kind of cell costs."""
    stop = threading.Event()
    todo, start = _expected(work, all_jobs), _done(work)

    def tell() -> None:
        while not stop.wait(EVERY):
            done, passed = _done(work), time.monotonic() - began
            print(f"quality: {_words(done, start, todo, passed)}", flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _words(done: Mapping[str, int], start: Mapping[str, int], todo: Mapping[str, int], passed: float) -> str:
    have, had, all_ = (sum(weight(kind) * some.get(kind, 0) for kind in todo) for some in (done, start, todo))
    said = f"{sum(done.get(kind, 0) for kind in todo)} of {sum(todo.values())} cells and parts, {passed:.0f} s"
    if have <= had:
        return said
    return f"{said}, about {passed * max(all_ - have, 0) / (have - had):.0f} s left"


def weight(kind: str) -> float:
    return TRUST_WEIGHT if kind == "trust" else WEIGHTS.get(kind, OTHER)


def _expected(work: Work, all_jobs: Sequence[Jobs]) -> dict[str, int]:
    todo: dict[str, int] = {}
    categories = sum(len(all_jobs[0].target(choice).categories()) for choice in work.plans[0].data)
    for plan in work.plans:
        for method in plan.methods:
            todo[method.name] = categories * len(cells_of(plan.shots_for(method.name), plan.seeds))
    return todo | ({"trust": categories} if work.trust else {})


def _done(work: Work) -> dict[str, int]:
    names = [method.name for plan in work.plans for method in plan.methods]
    patterns = {name: f"cells/*/*/{name}-k*.json" for name in names} | {"trust": "trust/*.json"}
    return {kind: sum(1 for _ in work.folder.glob(pattern)) for kind, pattern in patterns.items()}
