"""The Lightning shell around a detector: glue only."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from sowa.detectors.base import Detector
from sowa.errors import ConfigError, SowaError, UnknownNameError
from sowa.training.record import refuse_other_training
from sowa.types import Batch

__all__ = ["LitDetector"]

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class LitDetector(pl.LightningModule):
    """Minimises the sum of `detector.losses` with Adam or AdamW; the rate falls when an epoch's mean
    loss no longer does.

    Its state holds only what is trained. Everything a run depends on is either in that state or a pure function of
    (`seed`, global step), so that a resumed run ends with the bits of an uninterrupted one. `about` describes the
    training and is kept in its checkpoints; `identity` are the values a resumed run must share.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.2,
        factor: float = 0.1,
        patience: int = 5,
        seed: int = 0,
        identity: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ):
        """`optimizer`: one of OPTIMIZERS, with its `betas`; `factor`, `patience`: what the rate is multiplied with
        after how many epochs without progress."""
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", got=optimizer, known=OPTIMIZERS)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"betas={list(betas)} cannot be used: give two numbers from 0 to below 1")
        if not (lr > 0 and weight_decay >= 0 and 0 < factor < 1 and patience >= 0):
            raise ConfigError(
                f"lr={lr}, weight_decay={weight_decay}, factor={factor}, patience={patience} cannot be used:"
                " lr > 0, weight_decay >= 0, 0 < factor < 1, patience >= 0"
            )
        self.detector, self.optimizer, self.betas = detector, optimizer, (float(betas[0]), float(betas[1]))
        self.lr, self.weight_decay, self.factor, self.patience = lr, weight_decay, factor, patience
        self.seed, self.identity, self.about = seed, dict(identity or {}), dict(about or {})
        self.loss_sum, self.loss_count = 0.0, 0.0
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [value for _, value in self.detector.trainable_parameters()]
        kind = OPTIMIZERS[self.optimizer]
        optimizer = kind(weights, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        # Stepped here and not by the trainer, which would do so after the epoch's checkpoint is written.
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min", factor=self.factor, patience=self.patience
        )
        if self._plateau_state is not None:
            self.plateau.load_state_dict(self._plateau_state)
        return optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        name = f"{self.seed}/{self.global_step}/{self.global_rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:7], "big"))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        if not len(batch["labels"]):  # no image of it could be read: a step that changes nothing
            return None
        terms = self.detector.losses(Batch(**batch))
        loss = torch.stack(list(terms.values())).sum()
        value, count = loss.item(), len(batch["labels"])
        if not math.isfinite(value):
            raise SowaError(f"the loss became {value} at step {self.global_step}: lower optimisation.lr")
        self.loss_sum, self.loss_count = self.loss_sum + value * count, self.loss_count + count
        self.log("train/loss_step", value, prog_bar=True, batch_size=count, rank_zero_only=True)
        for name, term in terms.items():
            self.log(f"train/{name}", term.detach(), batch_size=count, rank_zero_only=True)
        return loss

    def on_train_epoch_end(self) -> None:
        total, count = self._all_losses()
        self.loss_sum, self.loss_count = 0.0, 0.0
        if count:
            self.plateau.step(total / count)
            self.log("train/loss", total / count, rank_zero_only=True)
        self.log("train/lr", self.plateau.optimizer.param_groups[0]["lr"], rank_zero_only=True)

    def _all_losses(self) -> tuple[float, int]:
        """Sum over the images of this epoch so far and their number, of all devices."""
        if self.trainer.world_size == 1:
            return self.loss_sum, self.loss_count
        own = torch.tensor([self.loss_sum, self.loss_count], device=self.device, dtype=torch.float64)
        total, count = self.trainer.strategy.reduce(own, reduce_op="sum").tolist()
        return total, round(count)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self.detector.trained_state()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> None:
        self.detector.load_trained_state(state_dict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        total, count = self._all_losses()
        world = self.trainer.world_size  # each device takes its share up again
        checkpoint["sowa"] = {
            "identity": self.identity,
            "about": self.about,
            "plateau": self.plateau.state_dict(),
            "loss": [total / world, count / world],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        refuse_other_training(self.identity, checkpoint["sowa"]["identity"])
        self._plateau_state = checkpoint["sowa"]["plateau"]
        self.loss_sum, self.loss_count = checkpoint["sowa"]["loss"]
