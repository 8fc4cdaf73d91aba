"""What the benchmarks of training share: pictures of the size of MVTec AD's, one timed training, the machine.

A module, not a command.
"""

import shutil
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from skimage import data as photographs

from sowa.backbones import build_backbone
from sowa.backbones.base import Backbone
from sowa.detectors import build_detector
from sowa.detectors.base import Detector
from sowa.training.build import call
from sowa.training.compose import compose_job
from sowa.training.record import RunFolder, machine_facts
from sowa.training.sources import read_source
from sowa.training.tokens import remember_tokens
from sowa.training.train import Training, auxiliary_data

FULL = ("backbone=clip", "backbone.weights=random")
QUICK = ("backbone=random_tiny",)


def write_pictures(root: Path, *, good: int, bad: int, train: int, side: int = 1024) -> Path:
    """One category in MVTec's layout: noisy photographs as PNG, defects painted in with their masks."""
    picture = Image.fromarray(photographs.astronaut()).resize((side, side))
    generator = np.random.default_rng(0)
    counts = {"train/good": train, "test/good": good, "test/scratch": bad}
    for part, count in counts.items():
        folder = root / "part" / part
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noisy = np.clip(np.asarray(picture) + generator.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)
            if part == "test/scratch":
                row, column = generator.integers(0, side * 3 // 4, 2)
                box = (slice(row, row + side // 8), slice(column, column + side // 5))
                noisy[box] = 255 - noisy[box]
                mask = np.zeros((side, side), np.uint8)
                mask[box] = 255
                truth = root / "part" / "ground_truth" / "scratch"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{number:03}_mask.png", compress_level=1)
            Image.fromarray(noisy).save(folder / f"{number:03}.png", compress_level=1)
    return root


class Clock(pl.Callback):
    """Seconds of every epoch and of every step, decoding included."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.steps: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, shell: pl.LightningModule) -> None:
        self._epoch = self._step = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.perf_counter()
        self.steps.append(now - self._step)
        self._step = now

    def on_train_epoch_end(self, trainer: pl.Trainer, shell: pl.LightningModule) -> None:
        self.epochs.append(time.perf_counter() - self._epoch)


@cache
def tower(words: tuple[str, ...]) -> Backbone:
    """The backbone of the settings, built once."""
    return call(build_backbone, compose_job("train", words).settings["backbone"], what="backbone")


def detector_on(inner: Backbone, settings: dict[str, Any]) -> Detector:
    """`sowa.training.build.build` on a backbone that is at hand."""
    model = dict(settings["model"])
    detector = build_detector(model.pop("name"), backbone=inner, **model)
    options = dict(settings["token_cache"])
    del options["images_gb"]
    if options.pop("enabled"):
        remember_tokens(detector=detector, **options)
    return detector


def timed_training(root: Path, folder: Path, inner: Backbone, words: Sequence[str]) -> tuple[Clock, Detector]:
    """(clock, detector) of a training on all pictures under the root, as `sowa train` would do it."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = compose_job("train", ["logger=none", "save_every_steps=1000000", *words]).settings
    detector = detector_on(inner, settings)
    source = read_source(dataset="mvtec", root=str(root), layout="mvtec")
    training = Training(detector, auxiliary_data(source, detector, settings), settings, RunFolder(folder))
    clock = Clock()
    training.trainer.callbacks.append(clock)
    training.fit()
    return clock, detector


def hardware() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return machine_facts() | {
        "threads": torch.get_num_threads(),
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
    }
