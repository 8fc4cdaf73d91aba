"""Evaluation of one detector on one target data set: shots, scores, metrics. Plain torch; no Lightning, no Hydra.

A test image passes the frozen backbone once; its tokens are then scored against the reference of every draw of shots.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sowa.data.dataset import ImageDataset, collate
from sowa.data.frames import Frame
from sowa.data.intake import Fit, Intake, intake_of
from sowa.data.shots import Shots, draw_shots, shots_record
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, DataError
from sowa.metrics.legacy import paper_image_score
from sowa.metrics.meters import CategoryMeter
from sowa.metrics.table import json_ready, summarise, write_json, write_scores_csv
from sowa.types import Batch, Prediction, Reference, Sample, Support, Tokens

__all__ = ["Cell", "Evaluation", "cells_of", "evaluate", "support_of", "write_results"]

TRANSDUCTIVE = ("probability", "peak")
"""Parts that make the paper's few-shot image score at the end of a category; a method without them has none."""

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, category)."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One draw: `k` shots from `seed`."""

    k: int
    seed: int


@dataclass(slots=True)
class Evaluation:
    """What an evaluation leaves behind. Rows are plain dicts, ready for JSON and CSV."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One per category and draw: dataset, category, k, seed and the metrics."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """One per image and draw: image, category, label, score, k, seed, defect."""
    shots: list[dict[str, Any]] = field(default_factory=list)
    """One per data set and seed: the normal images drawn."""
    references: dict[tuple[str, Cell], Reference] = field(default_factory=dict)
    """What was learnt for each category ("dataset/category") and draw."""
    skipped: list[str] = field(default_factory=list)
    """Images left out because they could not be read; empty unless that was allowed."""

    def extend(self, other: "Evaluation") -> None:
        """Take the results of another data set."""
        self.rows += other.rows
        self.scores += other.scores
        self.shots += other.shots
        self.skipped += other.skipped
        self.references.update(other.references)


def cells_of(shots: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """All draws; without shots there is nothing to draw, so K = 0 is done once."""
    if not shots or not seeds or any(k < 0 for k in shots):
        raise ConfigError(f"shots={list(shots)}, seeds={list(seeds)}: give at least one of each, shots of 0 or more")
    return sorted({Cell(k, seed if k else min(seeds)) for k in shots for seed in seeds})


def evaluate(
    detector: Detector,
    *,
    dataset: str,
    samples: Sequence[Sample],
    shots: Sequence[int] = (0, 4),
    seeds: Sequence[int] = (0,),
    drawn: Mapping[int, Shots] | None = None,
    protocol: str = "standard",
    fit: Fit = "squash",
    batch_size: int = 8,
    workers: int = 0,
    on_error: str = "raise",
    progress: Progress | None = None,
) -> Evaluation:
    """Score every test image of every category at every draw.

    `protocol`: "standard" compares maps with the masks at their original size and finds exact curves; "paper" repeats
    the reference (masks at model size, its AUPRO, few-shot image scores over the whole test set of the category).
    `drawn`: shots by seed, in place of the draw from the seed.
    `fit`: how pictures that are not square reach the model; maps are compared in the pictures' own frame.
    `on_error`: "raise" stops at an unreadable image, "skip" leaves it out and lists it.
    """
    cells, intake = cells_of(shots, seeds), intake_of(protocol, fit)
    test = [sample for sample in samples if sample.split == "test"]
    if not test:
        raise DataError(f"{dataset}: no test image among {len(samples)}; give a data set with a test split")
    result = Evaluation()
    drawn = _draw(samples, dataset, cells, result, drawn or {})
    done = 0
    for category in sorted({sample.category for sample in test}):
        mine = [sample for sample in test if sample.category == category]
        support = {cell: drawn[cell.seed].get(category, [])[: cell.k] for cell in cells}
        references = _fit_all(detector, category, support, batch_size, intake)
        truth = any(sample.masks for sample in mine)
        run = _CategoryRun(detector, dataset, category, references, protocol, truth, fit)
        loader = _loader(detector, mine, run.masks, protocol, intake, batch_size, workers, on_error)
        for batch in loader:
            if batch.names:
                run.update(batch)
            done += len(batch.names)
            if progress:
                progress(done, len(test), f"{dataset}/{category}")
        result.skipped += [f"{dataset}/{sample.name}" for sample in loader.dataset.skipped()]
        run.finish(result, {sample.name: sample for sample in mine})
    return result


def support_of(samples: Sequence[Sample], image_size: int, intake: Intake | None = None) -> Support:
    """The drawn normal images of one category, decoded as the test images are."""
    images = ImageDataset(samples=samples, image_size=image_size, masks="none", **(intake or {}))
    decoded = [images[i].image for i in range(len(images))]
    empty = torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
    return Support(samples[0].category if samples else "", torch.stack(decoded) if decoded else empty)


def _draw(
    samples: Sequence[Sample],
    dataset: str,
    cells: Sequence[Cell],
    result: Evaluation,
    given: Mapping[int, Shots],
) -> dict[int, Shots]:
    most = max(cell.k for cell in cells)
    drawn: dict[int, Shots] = {}
    for seed in sorted({cell.seed for cell in cells}):
        drawn[seed] = {}
        if most:
            drawn[seed] = given.get(seed) or draw_shots(samples, dataset=dataset, k=most, seed=seed)
            result.shots.append(shots_record(drawn[seed], dataset=dataset, k=most, seed=seed))
    return drawn


def _fit_all(
    detector: Detector, category: str, support: dict[Cell, list[Sample]], batch_size: int, intake: Intake
) -> dict[Cell, Reference]:
    """References of all draws of a category; an image drawn more than once is encoded once."""
    needed = {sample.name: sample for shots in support.values() for sample in shots}
    size = detector.backbone.image_size
    tokens: dict[str, Tokens] = {}
    names = list(needed)
    for start in range(0, len(names), batch_size):
        part = names[start : start + batch_size]
        with torch.inference_mode():
            images = support_of([needed[name] for name in part], size, intake).images
            encoded = detector.encode(images.to(_device(detector)))
        tokens.update({name: encoded.rows(slice(i, i + 1)) for i, name in enumerate(part)})
    return {
        cell: detector.fit_tokens(category, _joined([tokens[sample.name] for sample in shots]) if shots else None)
        for cell, shots in support.items()
    }


def _device(detector: Detector) -> torch.device:
    """Where the detector's backbone lies; images go there, scores and maps come back."""
    return next(detector.backbone.parameters()).device


def _joined(parts: list[Tokens]) -> Tokens:
    return type(parts[0]).join(parts)


def _loader(
    detector: Detector,
    samples: Sequence[Sample],
    masks: str,
    protocol: str,
    intake: Intake,
    batch_size: int,
    workers: int,
    on_error: str,
) -> DataLoader:
    images = ImageDataset(
        samples=samples,
        image_size=detector.backbone.image_size,
        masks=masks,
        mask_rule="paper_test" if protocol == "paper" else "nearest",
        on_error=on_error,
        **intake,
    )
    return DataLoader(images, batch_size=batch_size, num_workers=workers, collate_fn=collate)


class _CategoryRun:
    """Scores of one category at all draws while its images pass by."""

    def __init__(
        self,
        detector: Detector,
        dataset: str,
        category: str,
        references: dict[Cell, Reference],
        protocol: str,
        pixel_truth: bool,
        fit: Fit,
    ):
        self.fit: Fit = fit
        self.detector, self.name = detector, f"{dataset}/{category}"
        self.dataset, self.references, self.protocol = dataset, references, protocol
        self.masks = ("model" if protocol == "paper" else "original") if pixel_truth else "none"
        self.meters = {cell: CategoryMeter(protocol=protocol) for cell in references}
        self.seen: dict[Cell, list[_Scored]] = {cell: [] for cell in references}
        self.transductive = False

    @torch.inference_mode()
    def update(self, batch: Batch) -> None:
        tokens = self.detector.encode(batch.images.to(_device(self.detector)))
        labels = batch.labels.tolist()
        predictions = self.detector.score_each(tokens, list(self.references.values()))
        for cell, prediction in zip(self.references, predictions, strict=True):
            maps = masks = None
            if self.masks != "none" and prediction.score_map is not None:
                maps, masks = _maps_like(prediction.score_map.cpu(), batch.masks, self.fit), list(batch.masks)
            self.meters[cell].update(prediction.score.cpu(), labels, maps, masks)
            self.seen[cell] += _scored(batch, prediction)
            self.transductive = all(part in prediction.parts for part in TRANSDUCTIVE)

    def finish(self, result: Evaluation, samples: dict[str, Sample]) -> None:
        """Write this category's rows into the result and let go of its maps."""
        for cell, reference in self.references.items():
            seen = self.seen[cell]
            scores = [one.score for one in seen]
            if self.protocol == "paper" and cell.k and self.transductive:
                scores = paper_image_score([one.probability for one in seen], [one.peak for one in seen]).tolist()
            where = {"dataset": self.dataset, "category": self.name, "k": cell.k, "seed": cell.seed}
            result.rows.append(where | {"images": len(seen)} | self.meters[cell].compute(scores))
            result.references[self.name, cell] = reference
            result.scores += [
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


def write_results(folder: Path, result: Evaluation, *, about: dict[str, Any]) -> dict[str, Any]:
    """`metrics.json`, `scores.csv`, `shots.json` in the folder; returns the summary that `metrics.json` holds."""
    summary = {"about": about, **json_ready(summarise(result.rows)), "rows": result.rows}
    if result.skipped:
        summary["skipped"] = result.skipped
    folder.mkdir(parents=True, exist_ok=True)
    write_scores_csv(folder / "scores.csv", result.scores)
    write_json(folder / "shots.json", result.shots)
    write_json(folder / "metrics.json", summary)
    return summary
