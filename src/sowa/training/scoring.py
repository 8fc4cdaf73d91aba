"""One detector on one category: support to references, test images to scores, scores to metrics.

Split so that several detectors may share one pass of a backbone: `encode_support` and `CategoryRun.update` take tokens
that somebody else has encoded.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sowa.data.dataset import ImageDataset, MaskKind, collate
from sowa.data.frames import Frame
from sowa.data.intake import Fit, Intake
from sowa.detectors.base import Detector
from sowa.metrics.legacy import paper_image_score
from sowa.metrics.meters import CategoryMeter
from sowa.types import Batch, Prediction, Reference, Sample, Support, Tokens

__all__ = [
    "CategoryRun",
    "Cell",
    "device_of",
    "encode_support",
    "image_loader",
    "masks_for",
    "references_of",
    "support_of",
]

TRANSDUCTIVE = ("probability", "peak")
"""Parts that make the paper's few-shot image score at the end of a category; a method without them has none."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One draw: `k` shots from `seed`."""

    k: int
    seed: int


def support_of(samples: Sequence[Sample], image_size: int, intake: Intake | None = None) -> Support:
    """The drawn normal images of one category, decoded as the test images are."""
    images = ImageDataset(samples=samples, image_size=image_size, masks="none", **(intake or {}))
    decoded = [images[i].image for i in range(len(images))]
    empty = torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
    return Support(samples[0].category if samples else "", torch.stack(decoded) if decoded else empty)


@torch.inference_mode()
def encode_support(
    encode: Callable[[Tensor], Tokens],
    samples: Iterable[Sample],
    image_size: int,
    batch_size: int,
    intake: Intake,
    device: torch.device,
) -> dict[str, Tokens]:
    """Tokens of each of the drawn images by name, one image each."""
    samples = list(samples)
    tokens: dict[str, Tokens] = {}
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        encoded = encode(support_of(part, image_size, intake).images.to(device))
        tokens.update({sample.name: encoded.rows(slice(i, i + 1)) for i, sample in enumerate(part)})
    return tokens


def references_of(
    detector: Detector, category: str, support: Mapping[Cell, Sequence[Sample]], tokens: Mapping[str, Tokens]
) -> dict[Cell, Reference]:
    """What the detector learns of a category in every draw."""
    references = {}
    for cell, shots in support.items():
        parts = [tokens[sample.name] for sample in shots]
        references[cell] = detector.fit_tokens(category, type(parts[0]).join(parts) if parts else None)
    return references


def device_of(detector: Detector) -> torch.device:
    """Where the detector's backbone lies; images go there, scores and maps come back."""
    return next(detector.backbone.parameters()).device


def masks_for(samples: Iterable[Sample], protocol: str) -> MaskKind:
    """Which masks the protocol compares maps with; none where the test images of a category have none."""
    if not any(sample.masks for sample in samples):
        return "none"
    return "model" if protocol == "paper" else "original"


def image_loader(
    samples: Sequence[Sample],
    image_size: int,
    masks: MaskKind,
    protocol: str,
    intake: Intake,
    batch_size: int,
    workers: int,
    on_error: str,
) -> DataLoader:
    """Test images in batches, in their order."""
    images = ImageDataset(
        samples=samples,
        image_size=image_size,
        masks=masks,
        mask_rule="paper_test" if protocol == "paper" else "nearest",
        on_error=on_error,
        **intake,
    )
    return DataLoader(images, batch_size=batch_size, num_workers=workers, collate_fn=collate)


class CategoryRun:
    """Scores of one category at all draws while its images pass by."""

    def __init__(
        self,
        detector: Detector,
        dataset: str,
        category: str,
        references: dict[Cell, Reference],
        protocol: str,
        masks: MaskKind,
        fit: Fit,
        exact_bytes: float = math.inf,
    ):
        """`exact_bytes`: maps that all draws together may hold; beyond, pixel metrics are counted in bins and a row's
        `metrics_error` says how far they can be from the exact ones."""
        self.fit: Fit = fit
        self.detector, self.name = detector, f"{dataset}/{category}"
        self.dataset, self.references, self.protocol, self.masks = dataset, references, protocol, masks
        share = exact_bytes / max(len(references), 1)
        self.meters = {cell: CategoryMeter(protocol=protocol, exact_bytes=share) for cell in references}
        self.seen: dict[Cell, list[_Scored]] = {cell: [] for cell in references}
        self.transductive = False

    @torch.inference_mode()
    def update(self, batch: Batch, tokens: Tokens | None = None) -> None:
        """Score a batch against all references; `tokens` are its own if they are at hand already."""
        if tokens is None:
            tokens = self.detector.encode(batch.images.to(device_of(self.detector)))
        labels = batch.labels.tolist()
        predictions = self.detector.score_each(tokens, list(self.references.values()))
        for cell, prediction in zip(self.references, predictions, strict=True):
            maps = masks = None
            if self.masks != "none" and prediction.score_map is not None:
                maps, masks = _maps_like(prediction.score_map.cpu(), batch.masks, self.fit), list(batch.masks)
            self.meters[cell].update(prediction.score.cpu(), labels, maps, masks)
            self.seen[cell] += _scored(batch, prediction)
            self.transductive = all(part in prediction.parts for part in TRANSDUCTIVE)

    def finish(self, samples: Mapping[str, Sample]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(a row of metrics per draw, a row per image and draw); lets go of the maps."""
        rows, scored = [], []
        for cell in self.references:
            seen = self.seen[cell]
            scores = [one.score for one in seen]
            if self.protocol == "paper" and cell.k and self.transductive:
                scores = paper_image_score([one.probability for one in seen], [one.peak for one in seen]).tolist()
            where = {"dataset": self.dataset, "category": self.name, "k": cell.k, "seed": cell.seed}
            metrics = self.meters[cell].compute(scores)
            error = self.meters[cell].pixel_error
            rows.append(where | {"images": len(seen)} | metrics | ({"metrics_error": error} if error else {}))
            scored += [
                {
                    "image": one.name,
                    "category": self.name,
                    "label": one.label,
                    "score": score,
                    "k": cell.k,
                    "seed": cell.seed,
                    "defect": samples[one.name].defect,
                }
                for one, score in zip(seen, scores, strict=True)
            ]
        return rows, scored


class _Scored(NamedTuple):
    name: str
    label: int
    score: float
    probability: float
    peak: float


def _scored(batch: Batch, prediction: Prediction) -> list[_Scored]:
    score = prediction.score
    columns = (score, *(prediction.parts.get(part, score) for part in TRANSDUCTIVE))
    return [
        _Scored(*values)
        for values in zip(batch.names, batch.labels.tolist(), *(column.tolist() for column in columns), strict=True)
    ]


def _maps_like(maps_BHW: Tensor, masks: Tensor | list[Tensor], fit: Fit) -> list[Tensor]:
    """Maps in the frame and at the size of their masks."""
    return [
        one if one.shape == mask.shape else Frame(mask.shape[1], mask.shape[0], one.shape[-1], fit).restore(one)
        for one, mask in zip(maps_BHW, masks, strict=True)
    ]
