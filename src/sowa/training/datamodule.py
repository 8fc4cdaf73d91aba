"""Auxiliary data for training, in an order that is a pure function of (seed, step)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from sowa.data.dataset import collate
from sowa.errors import ConfigError

__all__ = ["AuxiliaryData", "StepSampler"]


class StepSampler(Sampler[list[int]]):
    """Batches of indices: epoch e is the permutation drawn from (seed, e), cut into pieces.

    `step()` says how many steps were taken so far: an iteration begun in the middle of an epoch yields the rest of that
    epoch and nothing else. Of each batch rank r of `world` takes every `world`-th index; an uneven last batch is filled
    up from its own start, so that all ranks take part in every step.
    """

    def __init__(
        self, *, count: int, batch_size: int, seed: int, step: Callable[[], int], rank: int = 0, world: int = 1
    ):
        if batch_size < 1 or batch_size % world:
            raise ConfigError(
                f"batch_size={batch_size} cannot be used: give a whole number above 0, a multiple of {world} device(s)"
            )
        self.count, self.batch_size, self.seed, self.step = count, batch_size, seed, step
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = divmod(self.step(), len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count).tolist()
        for start in range(done * self.batch_size, self.count, self.batch_size):
            batch = order[start : start + self.batch_size]
            missing = -len(batch) % self.world
            batch += (batch * self.world)[:missing]
            yield batch[self.rank :: self.world]


class AuxiliaryData(pl.LightningDataModule):
    """Serves a labelled data set to the trainer. The result does not depend on `num_workers`."""

    def __init__(self, *, dataset: Dataset, batch_size: int = 8, num_workers: int = 0, seed: int = 0):
        super().__init__()
        if num_workers < 0:
            raise ConfigError(f"num_workers={num_workers} cannot be used: give 0 or more")
        if not len(dataset):
            raise ConfigError("the auxiliary data set is empty")
        self.dataset, self.batch_size, self.num_workers, self.seed = dataset, batch_size, num_workers, seed

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        sampler = StepSampler(
            count=len(self.dataset),
            batch_size=self.batch_size,
            seed=self.seed,
            step=lambda: trainer.global_step,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            collate_fn=_as_fields,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )


def _as_fields(items: Sequence[Any]) -> dict[str, Any]:
    """A `Batch` as a dict of its fields: the trainer moves dicts to its device, but no frozen record."""
    batch = collate(items)
    return {field.name: getattr(batch, field.name) for field in fields(batch)}
