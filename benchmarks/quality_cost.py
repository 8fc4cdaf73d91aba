"""What SOWA Plus costs, seconds and bytes, and whether the machine was quiet meanwhile."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_run import alone
from quality_trust import images_of

from sowa.benchmark.jobs import Jobs
from sowa.benchmark.plan import Choice
from sowa.data.images import read_image
from sowa.types import Support

__all__ = ["QUIET", "cost"]

METHODS = ("sowa_plus", "sowa_plus_fast")
THREADS, SHOTS = 2, 4
LISTEN = 3.0
"""Seconds in which nothing is done, to hear what other programs do."""
QUIET = 0.1
"""Busy share of the processors beyond which seconds are not claimed."""


def cost(all_jobs: Sequence[Jobs]) -> dict[str, Any]:
    """`methods`: seconds for an image from its pixels, for learning four, bytes of what is kept; medians of several, on
    two threads. `busy`: share of the processors that others took just before; `load`: the load average, in which this
    run's own work is."""
    found: dict[str, Any] = {"busy": _busy(), "load": list(os.getloadavg()), "methods": {}}
    before = torch.get_num_threads()
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    try:
        for jobs in all_jobs:
            for place, choice in enumerate(jobs.plan.methods):
                if choice.name in METHODS:
                    found["methods"][choice.name] = _of_method(alone(jobs, place), choice)
    finally:
        torch.set_num_threads(before)
    return found


@torch.inference_mode()
def _of_method(jobs: Jobs, choice: Choice) -> dict[str, float]:
    plan, data = jobs.plan, jobs.plan.data[0]
    target = jobs.target(data)
    name = target.categories()[0]
    detector = jobs.method(choice, data, target).detector
    batch = images_of(detector, [read_image(one.image) for one in target.drawn[plan.seeds[0]][name][:SHOTS]])
    reference = detector.fit(Support(name, batch))
    other = torch.roll(batch, 1, dims=-1)  # no image is met twice in a row: what the tower remembers is no help
    fit = [_seconds(lambda one=one: detector.fit(Support(name, one))) for one in (other, batch, other)]
    score = [_seconds(lambda i=i: detector(batch[i % SHOTS : i % SHOTS + 1], reference)) for i in range(2 * SHOTS)]
    return {
        "seconds_per_image": float(np.median(score)),
        "seconds_to_learn_4": float(np.median(fit)),
        "bytes_of_4_shots": sum(value.numel() * value.element_size() for value in reference.values()),
        "threads": torch.get_num_threads(),
    }


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _busy() -> float | None:
    """Share 0..1 of all processors' time that was used while this process slept; None where that is not told."""
    first = _ticks()
    time.sleep(LISTEN)
    last = _ticks()
    if first is None or last is None or last[1] == first[1]:
        return None
    return 1 - (last[0] - first[0]) / (last[1] - first[1])


def _ticks() -> tuple[int, int] | None:
    """(idle, all)"""
    try:
        numbers = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return numbers[3] + numbers[4], sum(numbers)
