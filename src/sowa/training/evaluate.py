"""Evaluation of one detector on one target data set: shots, scores, metrics. Plain torch; no Lightning, no Hydra.

A test image passes the frozen backbone once; its tokens are then scored against the reference of every draw of shots.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sowa.data.intake import Fit, intake_of
from sowa.data.shots import Shots, draw_shots, shots_record
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, DataError
from sowa.metrics.table import json_ready, summarise, write_json, write_scores_csv
from sowa.training.scoring import (
    CategoryRun,
    Cell,
    device_of,
    encode_support,
    image_loader,
    masks_for,
    references_of,
    support_of,
)
from sowa.types import Reference, Sample

__all__ = ["Cell", "Evaluation", "cells_of", "evaluate", "support_of", "write_results"]

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, category)."""


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
    exact_gb: float = math.inf,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every test image of every category at every draw.

    `protocol`: "standard" compares maps with the masks at their original size and finds exact curves; "paper" repeats
    the reference (masks at model size, its AUPRO, few-shot image scores over the whole test set of the category).
    `drawn`: shots by seed, in place of the draw from the seed.
    `fit`: how pictures that are not square reach the model; maps are compared in the pictures' own frame.
    `on_error`: "raise" stops at an unreadable image, "skip" leaves it out and lists it.
    `exact_gb`: 10^9 bytes of maps that the draws of a category may hold together; beyond, pixel metrics are counted in
    bins (`sowa.metrics.streaming`) and rows say with which error.
    """
    cells, intake = cells_of(shots, seeds), intake_of(protocol, fit)
    test = [sample for sample in samples if sample.split == "test"]
    if not test:
        raise DataError(f"{dataset}: no test image among {len(samples)}; give a data set with a test split")
    result = Evaluation()
    drawn = _draw(samples, dataset, cells, result, drawn or {})
    done, size, device = 0, detector.backbone.image_size, device_of(detector)
    for category in sorted({sample.category for sample in test}):
        mine = [sample for sample in test if sample.category == category]
        support = {cell: drawn[cell.seed].get(category, [])[: cell.k] for cell in cells}
        needed = {sample.name: sample for shots in support.values() for sample in shots}.values()
        tokens = encode_support(detector.encode, needed, size, batch_size, intake, device)
        references = references_of(detector, category, support, tokens)
        masks = masks_for(mine, protocol)
        run = CategoryRun(detector, dataset, category, references, protocol, masks, fit, exact_gb * 1e9)
        loader = image_loader(mine, size, masks, protocol, intake, batch_size, workers, on_error)
        for batch in loader:
            if batch.names:
                run.update(batch)
            done += len(batch.names)
            if progress:
                progress(done, len(test), f"{dataset}/{category}")
        result.skipped += [f"{dataset}/{sample.name}" for sample in loader.dataset.skipped()]
        rows, scores = run.finish({sample.name: sample for sample in mine})
        result.rows += rows
        result.scores += scores
        result.references.update({(run.name, cell): reference for cell, reference in references.items()})
    return result


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
