"""Decoded items kept in memory: for training, where every item is the same in every epoch."""

from typing import Any

from torch.utils.data import Dataset

from sowa.data.dataset import ImageDataset, Item, Skipped

__all__ = ["RememberedImages"]


class RememberedImages(Dataset[Item | Skipped]):
    """An `ImageDataset` whose items are decoded once, as far as `limit_bytes` go; in all else the dataset itself.

    Each worker process keeps what it has decoded: give each its share of the memory. What cannot be read is tried
    again. Items are shared between epochs: nobody may write into them.
    """

    def __init__(self, *, images: ImageDataset, limit_bytes: float):
        self.images, self.limit_bytes = images, limit_bytes
        self._kept: dict[int, Item] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item | Skipped:
        if index in self._kept:
            return self._kept[index]
        item = self.images[index]
        if isinstance(item, Item):
            size = item.image.nbytes + (0 if item.mask is None else item.mask.nbytes)
            if self._held + size <= self.limit_bytes:
                self._kept[index] = item
                self._held += size
        return item

    def __getattr__(self, name: str) -> Any:
        if name == "images":  # not there yet while a worker process unpacks its copy
            raise AttributeError(name)
        return getattr(self.images, name)
