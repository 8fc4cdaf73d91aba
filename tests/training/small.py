"""One tiny training in this process, which can be stopped anywhere."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sowa.artifact import digest
from sowa.detectors.base import Detector
from sowa.training.build import build
from sowa.training.compose import compose_job
from sowa.training.record import RunFolder
from sowa.training.sources import read_source
from sowa.training.train import Training, auxiliary_data

TINY = ("backbone=random_tiny", "backbone.image_size=56", "logger=none", "data.batch_size=4")


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it on its way."""


@dataclass(frozen=True)
class Trained:
    detector: Detector
    training: Training
    facts: dict[str, Any]

    @property
    def bits(self) -> str:
        return digest(self.detector.trained_state())


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return compose_job("train", overrides).settings


def settings_for(data_dir: Path, *more: str) -> dict[str, Any]:
    return deepcopy(_composed((*TINY, f"paths.data_dir={data_dir}", *more)))


def prepare(data_dir: Path, folder: Path, more: Sequence[str] = ()) -> Training:
    """mvtec's 12 labelled images in batches of 4: three steps an epoch."""
    settings = settings_for(data_dir, *more)
    detector = build(settings)
    data = auxiliary_data(read_source(dataset="mvtec", data_dir=str(data_dir)), detector, settings)
    return Training(detector, data, settings, RunFolder(folder))


def train(data_dir: Path, folder: Path, more: Sequence[str] = (), *, kill_before: int | None = None) -> Trained:
    """Train; raise `Killed` before the loss of step `kill_before` of this process is computed.

    A term without gradient makes the loss rise, so that the schedule has to act.
    """
    training = prepare(data_dir, folder, more)
    losses, steps = training.detector.losses, iter(range(10**6))

    def watched(batch):
        if next(steps) == kill_before:
            raise Killed
        return losses(batch) | {"rise": torch.tensor(10.0 * training.shell.global_step)}

    training.detector.losses = watched
    return Trained(training.detector, training, training.fit())
