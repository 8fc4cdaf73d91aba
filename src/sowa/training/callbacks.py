"""What happens beside the training: the state is saved, progress is shown, the library's advice is kept quiet."""

import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from sowa.artifact import read_state, write_whole
from sowa.errors import ConfigError

__all__ = ["AtomicCheckpoints", "PlainProgress", "SaveState", "quiet"]


class SaveState(Checkpoint):
    """Writes everything a resumed run needs to `path`, every `every_steps` optimiser steps and at each epoch's end."""

    def __init__(self, *, path: Path, every_steps: int):
        if every_steps < 1:
            raise ConfigError(f"save_every_steps={every_steps} cannot be used: give a whole number above 0")
        self.path, self.every_steps = path, every_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        ends_epoch = batch_idx + 1 >= trainer.num_training_batches  # saved a moment later, by the hook below
        if trainer.global_step % self.every_steps == 0 and not ends_epoch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints appear complete or not at all, and nothing in them is executed when they are read."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class PlainProgress(pl.Callback):
    """One line every few seconds, for output that goes to a file."""

    def __init__(self, *, seconds: float = 10.0):
        self.seconds, self._last = seconds, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, total = batch_idx + 1, trainer.num_training_batches
        if trainer.is_global_zero and (done == total or time.monotonic() - self._last >= self.seconds):
            self._last = time.monotonic()
            loss = f", loss {float(outputs['loss']):.4f}" if outputs else ""
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            print(f"training: {epoch}, step {done}/{total}{loss}", file=sys.stderr, flush=True)


NOISE = (
    r".*`training_step` returned `None`.*",  # a batch of which no image could be read; the images are reported
    r".*does not have many workers.*",
    r".*in eval mode at the start of training.*",
    r".*smaller than the logging interval.*",
    r".*ended before the epoch ended and your dataloader is not resumable.*",  # its order is a function of the step
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*It is recommended to use `self.log.*sync_dist=True.*",  # the mean is reduced by hand
    r".*Grad strides do not match bucket view strides.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice and announcements; its errors and everybody else's warnings stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for pattern in NOISE:
            warnings.filterwarnings("ignore", message=pattern)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
