"""Auxiliary data for training, in an order that is a pure function of (seed, step)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from sowa.data.dataset import collate
from sowa.errors import ConfigError
from sowa.types import ABNORMAL, NORMAL

__all__ = ["AuxiliaryData", "BalancedSampler", "RepeatingSampler", "StepSampler"]


class StepSampler(Sampler[list[int]]):
    """Batches of indices: epoch e is the permutation drawn from (seed, e), cut into pieces.

    `step()` says how many steps were taken so far: an iteration begun in the middle of an epoch yields the rest of that
    epoch and nothing else. Of each batch rank r of `world` takes every `world`-th index, from the r-th on. All
    ranks take part in every step: of an uneven last batch they have different numbers of images, perhaps none.
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
        order = self.order(epoch)
        for start in range(done * self.batch_size, self.count, self.batch_size):
            batch = order[start : start + self.batch_size]
            yield batch[self.rank :: self.world]

    def order(self, epoch: int) -> list[int]:
        """`count` indices in the order of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.count).tolist()


class BalancedSampler(StepSampler):
    """Batches of which half is anomalous, `steps` of them an epoch: both labels are gone through again and again, each
    time in an order of its own. A label that no image has is an error."""

    def __init__(self, *, labels: Sequence[int], steps: int | None, batch_size: int, **options: Any):
        count = (steps or -(-len(labels) // max(batch_size, 1))) * batch_size
        super().__init__(count=count, batch_size=batch_size, **options)
        self.members = [[i for i, label in enumerate(labels) if label == value] for value in (NORMAL, ABNORMAL)]
        if batch_size % 2 or not all(self.members):
            raise ConfigError(
                f"data.balanced=true needs an even batch_size (got {batch_size}) and images of both labels"
                f" (got {len(self.members[NORMAL])} normal, {len(self.members[ABNORMAL])} anomalous)"
            )

    def order(self, epoch: int) -> list[int]:
        generator = np.random.default_rng([self.seed, epoch])
        halves = []
        for members in self.members:
            rounds = -(-self.count // 2 // len(members))
            drawn = np.concatenate([generator.permutation(members) for _ in range(rounds)])
            halves.append(drawn[: self.count // 2].reshape(-1, self.batch_size // 2))
        return np.concatenate(halves, axis=1).ravel().tolist()


class RepeatingSampler(StepSampler):
    """`steps` batches an epoch, of all images in turn: as many rounds through them as that takes."""

    def __init__(self, *, images: int, steps: int, batch_size: int, **options: Any):
        super().__init__(count=steps * batch_size, batch_size=batch_size, **options)
        self.images = images

    def order(self, epoch: int) -> list[int]:
        generator = np.random.default_rng([self.seed, epoch])
        rounds = -(-self.count // self.images)
        return np.concatenate([generator.permutation(self.images) for _ in range(rounds)])[: self.count].tolist()


class AuxiliaryData(pl.LightningDataModule):
    """Serves a labelled data set to the trainer. The result does not depend on `num_workers`."""

    def __init__(
        self,
        *,
        dataset: Dataset,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        balanced: bool = False,
        steps_per_epoch: int | None = None,
    ):
        """`balanced`: half of every batch anomalous; `steps_per_epoch`: None is one pass over the images."""
        super().__init__()
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ConfigError(f"steps_per_epoch={steps_per_epoch} cannot be used: give 1 or more, or null")
        if num_workers < 0:
            raise ConfigError(f"num_workers={num_workers} cannot be used: give 0 or more")
        if not len(dataset):
            raise ConfigError("the auxiliary data set is empty")
        self.dataset, self.batch_size, self.num_workers, self.seed = dataset, batch_size, num_workers, seed
        self.balanced, self.steps_per_epoch = balanced, steps_per_epoch
        self.check_world(1)

    def check_world(self, world: int) -> None:
        """ConfigError for batches that cannot be drawn or shared by `world` devices, before anything starts."""
        self._sampler(step=lambda: 0, world=world)

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        sampler = self._sampler(step=lambda: trainer.global_step, rank=trainer.global_rank, world=trainer.world_size)
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            collate_fn=_as_fields,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def _sampler(self, *, step: Callable[[], int], rank: int = 0, world: int = 1) -> StepSampler:
        shared = {"batch_size": self.batch_size, "seed": self.seed, "step": step, "rank": rank, "world": world}
        if self.balanced:
            labels = [sample.label for sample in self.dataset.samples]
            return BalancedSampler(labels=labels, steps=self.steps_per_epoch, **shared)
        if self.steps_per_epoch is not None:
            return RepeatingSampler(images=len(self.dataset), steps=self.steps_per_epoch, **shared)
        return StepSampler(count=len(self.dataset), **shared)


def _as_fields(items: Sequence[Any]) -> dict[str, Any]:
    """A `Batch` as a dict of its fields: the trainer moves dicts to its device, but no frozen record."""
    batch = collate(items)
    return {field.name: getattr(batch, field.name) for field in fields(batch)}
