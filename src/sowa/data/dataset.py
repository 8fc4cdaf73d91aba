"""Samples become batches: decoded, brought to the model's size, with their masks.

`ImageDataset` is for evaluation and plain training; `MosaicDataset` is the reference's augmentation of auxiliary
training items (methods: a share of the items is replaced by a 2x2 mosaic of images of the same category).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from sowa.data.frames import mask_to_model, to_model
from sowa.data.images import MAX_PIXELS, MaskRule, read_image, read_mask, read_reduced
from sowa.data.intake import Fit
from sowa.data.layouts_tree import some_of
from sowa.errors import ConfigError, DataError
from sowa.types import ABNORMAL, NORMAL, Batch, Sample

__all__ = ["ImageDataset", "Item", "LabelRule", "MaskKind", "MosaicDataset", "Skipped", "collate", "draw_mosaics"]

MaskKind: TypeAlias = Literal["model", "original", "none"]
"""Masks at the model's size, at the image's own size, or not read at all."""
OnError: TypeAlias = Literal["raise", "skip"]
LabelRule: TypeAlias = Literal["kept", "any"]
"""The label of a mosaic: of the item it replaces (as the reference has it), or anomalous if a defect is to be seen."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One decoded sample."""

    image: Tensor
    """[3, S, S] uint8."""
    label: int
    mask: Tensor | None
    """[S, S] or [h, w] uint8 in {0, 1}; None where masks are not read."""
    category: str
    name: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """What stands in the place of an image that could not be read."""

    name: str
    image_size: int


class ImageDataset(Dataset[Item | Skipped]):
    """Samples decoded one by one, in the order given.

    masks: "model" gives [S, S] by `mask_rule`, "original" the size of the upright image, "none" reads no mask file.
    fit: how a picture that is not square is laid into [S, S] (`sowa.data.frames.Fit`).
    reduce: decode a large JPEG at a fraction of its size (`read_reduced`); False decodes every pixel, as the papers do.
    on_error: "raise" stops at the first image or mask that cannot be read with its `DataError`; "skip" leaves it out of
    its batch, warns in the log at once, and lists it in `skipped()`, also from worker processes.
    """

    def __init__(
        self,
        *,
        samples: Sequence[Sample],
        image_size: int,
        mask_rule: MaskRule = "nearest",
        masks: MaskKind = "model",
        fit: Fit = "squash",
        reduce: bool = True,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ):
        _check_choice("fit", fit, get_args(Fit))
        _check_choice("mask_rule", mask_rule, get_args(MaskRule))
        _check_choice("masks", masks, get_args(MaskKind))
        _check_choice("on_error", on_error, get_args(OnError))
        self.samples = tuple(samples)
        self.image_size = image_size
        self.mask_rule = mask_rule
        self.masks = masks
        self.fit, self.reduce = fit, reduce
        self.on_error = on_error
        self.max_pixels = max_pixels
        # Shared memory, so that what worker processes skip is known to the process that reports it.
        self._failed = torch.zeros(len(self.samples), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item | Skipped:
        try:
            return self._item(index)
        except DataError as error:
            if self.on_error == "raise":
                raise
            if not self._failed[index]:
                _log.warning("image skipped: %s", error)
            self._failed[index] = 1
            return Skipped(self.samples[index].name, self.image_size)

    def skipped(self) -> tuple[Sample, ...]:
        """The samples that could not be read so far."""
        return tuple(sample for sample, failed in zip(self.samples, self._failed.tolist(), strict=True) if failed)

    def skipped_line(self) -> str | None:
        """One line for the end of a run, None if every image asked for could be read."""
        names = [sample.name for sample in self.skipped()]
        if not names:
            return None
        return f"{len(names)} of {len(self)} images skipped as unreadable: {some_of(names)}"

    def _item(self, index: int) -> Item:
        sample = self.samples[index]
        if not self.reduce:
            return self._packed(sample, *self._decode(sample), sample.label)
        image, size = read_reduced(sample.image, side=self.image_size, max_pixels=self.max_pixels)
        return self._packed(sample, image, self._mask(sample, size), sample.label, size)

    def _decode(self, sample: Sample) -> tuple[Image.Image, NDArray[np.uint8] | None]:
        """Picture and mask at full size."""
        image = read_image(sample.image, max_pixels=self.max_pixels)
        return image, self._mask(sample, image.size)

    def _mask(self, sample: Sample, size_wh: tuple[int, int]) -> NDArray[np.uint8] | None:
        return None if self.masks == "none" else read_mask(sample, size_wh, max_pixels=self.max_pixels)

    def _packed(
        self,
        sample: Sample,
        image: Image.Image,
        mask: NDArray[np.uint8] | None,
        label: int,
        full_wh: tuple[int, int] | None = None,
    ) -> Item:
        if mask is not None and self.masks == "model":
            mask = mask_to_model(mask, self.image_size, self.mask_rule, self.fit)
        return Item(
            image=to_model(image, self.image_size, self.fit, full_wh=full_wh)[0],
            label=label,
            mask=None if mask is None else torch.from_numpy(mask),
            category=sample.category,
            name=sample.name,
        )


def collate(items: Sequence[Item | Skipped]) -> Batch:
    """The items that could be read as one batch, which may be empty.

    Masks of one size are stacked [B, H, W]; of different sizes they are a list of [h, w]; where masks are not read the
    list is empty.
    """
    read = [item for item in items if isinstance(item, Item)]
    masks = [item.mask for item in read if item.mask is not None]
    same = bool(masks) and all(mask.shape == masks[0].shape for mask in masks)
    size = next((item.image_size for item in items if isinstance(item, Skipped)), 0)
    return Batch(
        images=torch.stack([item.image for item in read]) if read else torch.zeros(0, 3, size, size, dtype=torch.uint8),
        labels=torch.tensor([item.label for item in read], dtype=torch.int64),
        masks=torch.stack(masks) if same else masks,
        categories=tuple(item.category for item in read),
        names=tuple(item.name for item in read),
    )


# ------------------------------------------------------------------------------------------------------------- mosaics


class MosaicDataset(ImageDataset):
    """Auxiliary training items of which a share is replaced by mosaics, drawn once: the same in every epoch.

    rate, seed: see `draw_mosaics`. label_rule: see `LabelRule`; with "any", a mosaic's label is whether its mask marks
    anything (whether a part is anomalous, where masks are not read). A mosaic keeps name and category of its item, and
    a part that cannot be read skips the item.
    """

    def __init__(
        self,
        *,
        samples: Sequence[Sample],
        image_size: int,
        seed: int,
        rate: float = 0.2,
        label_rule: LabelRule = "any",
        mask_rule: MaskRule = "nearest",
        masks: MaskKind = "model",
        fit: Fit = "squash",
        reduce: bool = True,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(
            samples=samples,
            image_size=image_size,
            mask_rule=mask_rule,
            masks=masks,
            fit=fit,
            reduce=reduce,
            on_error=on_error,
            max_pixels=max_pixels,
        )
        _check_choice("label_rule", label_rule, get_args(LabelRule))
        self.label_rule = label_rule
        self.mosaics = draw_mosaics(self.samples, rate=rate, seed=seed)

    def _item(self, index: int) -> Item:
        if index not in self.mosaics:
            return super()._item(index)
        sample = self.samples[index]
        parts = [self.samples[i] for i in self.mosaics[index]]
        image, mask = paste([self._decode(part) for part in parts])
        label = sample.label
        if self.label_rule == "any":
            seen = mask.any() if mask is not None else any(part.label for part in parts)
            label = ABNORMAL if seen else NORMAL
        return self._packed(sample, image, mask, label)


def draw_mosaics(samples: Sequence[Sample], *, rate: float, seed: int) -> dict[int, tuple[int, int, int, int]]:
    """Which items become mosaics, and of which four: index -> indices, a pure function of (seed, index, samples).

    With probability `rate` an item is replaced. Each of its four parts is drawn with replacement: first one of the
    kinds (`Sample.defect`, good among them) of the item's category, then one of that kind's images, both uniformly.
    """
    if not 0 <= rate <= 1 or seed < 0:
        raise ConfigError(f"mosaics of rate {rate}, seed {seed}: a share from 0 to 1 and a seed from 0 on are wanted")
    kinds: dict[str, dict[str, list[int]]] = {}
    for index, sample in enumerate(samples):
        kinds.setdefault(sample.category, {}).setdefault(sample.defect, []).append(index)
    mosaics = {}
    for index, sample in enumerate(samples):
        generator = np.random.default_rng((seed, index))
        if generator.random() < rate:
            by_kind = [members for _, members in sorted(kinds[sample.category].items())]
            drawn = [_drawn(generator, _drawn(generator, by_kind)) for _ in range(4)]
            mosaics[index] = (drawn[0], drawn[1], drawn[2], drawn[3])
    return mosaics


def _drawn(generator: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(generator.integers(len(choices)))]


def paste(
    parts: Sequence[tuple[Image.Image, NDArray[np.uint8] | None]],
) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Four images row-major in a canvas of twice the first one's size, unresized, cut at its edge; masks likewise."""
    width, height = parts[0][0].size
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    canvas = Image.new("RGB", (2 * width, 2 * height))
    canvas_mask = np.zeros((2 * height, 2 * width), dtype=np.uint8)
    for (image, mask), (x, y) in zip(parts, corners, strict=True):
        canvas.paste(image, (x, y))
        if mask is not None:
            room = canvas_mask[y : y + mask.shape[0], x : x + mask.shape[1]]
            room[...] = mask[: room.shape[0], : room.shape[1]]
    return canvas, None if parts[0][1] is None else canvas_mask


def _check_choice(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{what} '{value}': choose one of {', '.join(allowed)}")
