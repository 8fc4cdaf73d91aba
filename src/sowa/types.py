"""Frozen records that travel between the rooms. Shapes use the legend of docs/GLOSSARY.md.

B images, V levels, L tokens, D token width, E joint width, S states, K shots, M bank rows, P prompts, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ABNORMAL", "NORMAL", "Batch", "Prediction", "Reference", "Sample", "Support", "Tokens"]

NORMAL, ABNORMAL = 0, 1

Reference: TypeAlias = "dict[str, Tensor]"
"""What `Detector.fit` learnt from the support: a flat dict of named tensors, a value, never kept on the detector."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set, as a layout found it; nothing has been decoded yet."""

    name: str
    """Path relative to the data set's root with `/` separators: the identity and the sort key of the image."""
    image: Path
    category: str
    split: str
    """`train` or `test`; `validation` where a data set has one and it was asked for."""
    label: int
    """0 normal, 1 anomalous."""
    defect: str = "good"
    """Folder or type name of the defect, `good` for a normal image."""
    group: str = ""
    """Production lot, module or run, where the data set tells: shots are spread over as many groups as there are."""
    masks: tuple[Path, ...] = ()
    """Mask files; their union of pixels > 0 is the defect. Empty for a normal image and where no pixel truth exists."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded images with their truth."""

    images: "Tensor"
    """[B, 3, H, W] uint8 in 0..255, or float in 0..1; RGB, not normalised."""
    labels: "Tensor"
    """[B] int64, 0 normal, 1 anomalous."""
    masks: "Tensor | list[Tensor]"
    """[B, H, W] uint8 in {0, 1}; a list of [h, w] where the original sizes differ."""
    categories: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Support:
    """The K normal images of one category that a detector may learn from; K may be 0."""

    category: str
    images: "Tensor"
    """[K, 3, H, W], as `Batch.images`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a backbone says of a batch of images."""

    cls: "Tensor"
    """[B, E] class token after the final norm and the projection into the joint space."""
    levels: "tuple[Tensor, ...]"
    """One [B, L, D] per tap, in the order of the taps: raw output of that block, class token dropped, row-major."""
    grid: tuple[int, int]
    """(rows, columns) with rows * columns = L."""

    def rows(self, rows: slice) -> "Tokens":
        """Tokens of some of the images."""
        return Tokens(self.cls[rows], tuple(level[rows] for level in self.levels), self.grid)

    def pick(self, places: "Sequence[int]") -> "Tokens":
        """Some of the levels, by their place."""
        return Tokens(self.cls, tuple(self.levels[place] for place in places), self.grid)

    @staticmethod
    def join(parts: "Sequence[Tokens]") -> "Tokens":
        """Tokens of several batches as one batch."""
        from torch import cat

        levels = tuple(cat(same) for same in zip(*(part.levels for part in parts), strict=True))
        return Tokens(cat([part.cls for part in parts]), levels, parts[0].grid)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores of a batch. Larger = more anomalous, everywhere."""

    score: "Tensor"
    """[B] raw image score."""
    score_map: "Tensor | None" = None
    """[B, H, W] raw score per pixel at the detector's input size; None if the method only ranks images."""
    levels: "Tensor | None" = None
    """[B, V, h, w] raw score map of each level on the token grid or at image size."""
    parts: "Mapping[str, Tensor]" = field(default_factory=dict)
    """Un-fused ingredients by name, for figures, ablations and the papers' whole-test-set arithmetic."""
