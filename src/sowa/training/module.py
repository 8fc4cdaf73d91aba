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
from sowa.nn.attention import FrozenWindowAttention, Share
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

    Several devices that share a batch train what one would, but for the rounding of sums: the mean over the batch is
    weighted by how many images each device has, and dropout is drawn for the whole batch on each.
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
        self.loss_sum, self.loss_count, self._images = 0.0, 0.0, 0
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
        name = f"{self.seed}/{self.global_step}/0".encode()  # the same on all devices, see `shared_dropout`
        torch.manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:7], "big"))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        count, world = len(batch["labels"]), self.trainer.world_size
        images = round(self._over_devices(count)[0])
        if not images and world == 1:  # no image of it could be read: a step that changes nothing
            return None
        self._tell_share(Share(images, self.global_rank, world))
        terms = self.detector.losses(Batch(**batch)) if count else {"none": self._zero()}
        loss = torch.stack(list(terms.values())).sum()
        total = self._over_devices(loss.item() * count)[0] if images else 0.0
        if not math.isfinite(total):
            raise SowaError(f"the loss became {total} at step {self.global_step}: lower optimisation.lr")
        self.loss_sum, self.loss_count = self.loss_sum + total, self.loss_count + images
        self._images = images
        if not images:
            return loss
        self.log("train/loss_step", total / images, prog_bar=True, batch_size=images, rank_zero_only=True)
        for name, term in terms.items():
            self.log(f"train/{name}", term.detach(), batch_size=count or 1, rank_zero_only=True)
        # The trainer takes the mean of the devices' gradients, which have different numbers of images.
        return loss if world == 1 else loss * (count * world / images)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._images:  # all devices had to take part in the step, and it changes nothing
            optimizer.zero_grad(set_to_none=True)

    def _tell_share(self, share: Share) -> None:
        for module in self.detector.modules():
            if isinstance(module, FrozenWindowAttention):
                module.share = share

    def _zero(self) -> Tensor:
        """A loss of nothing that every trained tensor takes part in, as the exchange of gradients wants it."""
        return torch.stack([value.sum() * 0 for _, value in self.detector.trainable_parameters()]).sum()

    def _over_devices(self, *values: float) -> list[float]:
        """Sums over all devices."""
        if self.trainer.world_size == 1:
            return list(values)
        own = torch.tensor(values, device=self.device, dtype=torch.float64)
        return self.trainer.strategy.reduce(own, reduce_op="sum").tolist()

    def on_train_epoch_end(self) -> None:
        total, count = self.loss_sum, self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0.0
        if count:
            self.plateau.step(total / count)
            self.log("train/loss", total / count, rank_zero_only=True)
        self.log("train/lr", self.plateau.optimizer.param_groups[0]["lr"], rank_zero_only=True)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self.detector.trained_state()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> None:
        self.detector.load_trained_state(state_dict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sowa"] = {
            "identity": self.identity,
            "about": self.about,
            "plateau": self.plateau.state_dict(),
            "loss": [self.loss_sum, self.loss_count],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        refuse_other_training(self.identity, checkpoint["sowa"]["identity"])
        self._plateau_state = checkpoint["sowa"]["plateau"]
        self.loss_sum, self.loss_count = checkpoint["sowa"]["loss"]
