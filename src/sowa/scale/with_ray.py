"""Ray as the one who starts workers, on this machine or on a cluster; it only schedules blocks.

Nothing is reported to Ray's makers and no dashboard is started, so a local Ray needs no network.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sowa.errors import ConfigError, SowaError
from sowa.scale.blocks import Block
from sowa.scale.turns import ATTEMPTS, Failed, Lost, Turns
from sowa.scale.work import Done, Job, Scorer, load, records

__all__ = ["BatchScorer", "on_ray", "ray_here"]

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@contextmanager
def ray_here(workers: int, address: str | None) -> Iterator[Any]:
    """The module, connected; what was started is stopped at the end. ConfigError without the package or a cluster."""
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'sowa[scale]', or leave --ray out") from None
    if ray.is_initialized():
        yield ray
        return
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update({name: value for name, value in QUIET.items() if before[name] is None})
    own = {"num_cpus": workers, "include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(**own, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"Ray at {address or 'this machine'} does not answer: {reason}") from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
    try:
        yield ray
    finally:
        ray.shutdown()


def on_ray(
    blocks: Sequence[Block], job: Job, workers: int, address: str | None = None
) -> Iterator[Done | Failed | Lost]:
    """`workers` actors of one core each, a block each at a time; one that is lost is replaced, its block redone."""
    turns = Turns(blocks)
    with ray_here(workers, address) as ray:
        kind = ray.remote(num_cpus=1, max_restarts=0)(Scorer)
        busy: dict[Any, tuple[Any, Block | None]] = {}

        def begin() -> None:
            actor = kind.remote(job)
            busy[actor.ready.remote()] = (actor, None)

        for _ in range(min(workers, len(turns))):
            begin()
        never_ready = 0
        while busy:
            (reference,), _ = ray.wait(list(busy), num_returns=1)
            actor, block = busy.pop(reference)
            try:
                done = ray.get(reference)
                never_ready = 0
                if block is not None:
                    yield done
            except ray.exceptions.RayTaskError as error:
                reason = " ".join(str(error.cause).split())
                if not isinstance(error.cause, OSError):
                    raise SowaError(reason) from None
                again = turns.again(block, reason)
                if isinstance(again, Failed):
                    yield again
            except ray.exceptions.ActorDiedError as error:
                if block is None:
                    never_ready += 1
                    if never_ready >= ATTEMPTS:
                        raise SowaError(f"workers end before they have loaded the detector: {_last(error)}") from None
                else:
                    yield turns.again(block, f"its worker was lost, {ATTEMPTS} times")
                if turns:
                    begin()
                continue
            if turns:
                block = turns.next()
                busy[actor.__call__.remote(block)] = (actor, block)


def _last(error: Exception) -> str:
    """The line of a long report that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


class BatchScorer:
    """For pipelines of Ray Data: adds `score`, `verdict` and `record` (the row of results.jsonl) to a batch.

    dataset = ray.data.read_binary_files("s3://bucket/parts/", include_paths=True)
    dataset.map_batches(BatchScorer, fn_constructor_kwargs={"detector": "bottle.sowa"}, batch_size=64, concurrency=2)

    A batch has a column `path`, and `bytes` or pictures that can be read from their paths.
    """

    def __init__(self, detector: str, *, batch_size: int = 8, threads: int = 1, cache_dir: str | None = None):
        import torch

        torch.set_num_threads(threads)
        self.predictor = load(Job(detector, "", batch_size, threads, cache_dir))
        self.batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        paths = [str(path) for path in batch["path"]]
        rows = list(records(self.predictor, paths, batch_size=self.batch_size, contents=batch.get("bytes")))
        return {
            "path": np.array(paths, dtype=object),
            "score": np.array([np.nan if row["score"] is None else row["score"] for row in rows]),
            "verdict": np.array([row["verdict"] for row in rows], dtype=object),
            "record": np.array([json.dumps(row) for row in rows], dtype=object),
        }
