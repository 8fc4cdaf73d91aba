"""Rows of the pictures: which images are shown, and what the detector says of them, on one scale for all."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sowa.calibration import support_threshold
from sowa.data.images import read_image, read_mask
from sowa.detectors.base import Detector
from sowa.figures import MechanismRow, VerdictRow
from sowa.training.evaluate import Cell, Evaluation, support_of
from sowa.types import ABNORMAL, NORMAL, Prediction, Reference, Sample

__all__ = ["HIGH", "LOW", "chosen_samples", "mechanism_row", "mechanism_rows", "verdict_rows"]

LOW, HIGH = 0.0, 2.25
"""Heat scale of all pictures in doublings: 0 is the most unusual spot of the good pictures themselves, 1 twice that."""

SHOWN = {NORMAL: 1, ABNORMAL: 2}
"""Images per category that are shown, by label."""


def chosen_samples(samples: Sequence[Sample]) -> list[Sample]:
    """For each category one normal and two anomalous test images, by place in the list and not by score."""
    chosen = []
    for category in sorted({sample.category for sample in samples}):
        for label, count in SHOWN.items():
            mine = [s for s in samples if s.split == "test" and s.category == category and s.label == label]
            places = [(2 * i + 1) * len(mine) // (2 * count) for i in range(count)]
            chosen += [mine[place] for place in dict.fromkeys(places) if mine]
    return chosen


def verdict_rows(
    detector: Detector, chosen: Mapping[str, Sequence[Sample]], result: Evaluation, *, k: int, seed: int
) -> list[VerdictRow]:
    """Image, truth, fused map in doublings of the support's level, score and verdict at the support's threshold."""
    rows = []
    for dataset, samples in chosen.items():
        for sample in samples:
            reference = result.references[f"{dataset}/{sample.category}", Cell(k, seed)]
            prediction, image, mask = _seen(detector, sample, reference)
            threshold, score = support_threshold(reference["support_scores"]), prediction.score.item()
            rows.append(
                VerdictRow(
                    image=image,
                    mask=mask,
                    score_map=_doublings(prediction, reference),
                    category=f"{dataset}/{sample.category}",
                    name=sample.name,
                    label=sample.label,
                    score=score,
                    threshold=threshold,
                    verdict="defective" if score > threshold else "good",
                )
            )
    return rows


def mechanism_rows(
    detector: Detector, chosen: Mapping[str, Sequence[Sample]], result: Evaluation, *, k: int, seed: int
) -> list[MechanismRow]:
    """One anomalous image of each category."""
    rows = []
    for dataset, samples in chosen.items():
        shown: set[str] = set()
        for sample in samples:
            if sample.label != ABNORMAL or sample.category in shown:
                continue
            shown.add(sample.category)
            reference = result.references[f"{dataset}/{sample.category}", Cell(k, seed)]
            rows.append(mechanism_row(detector, sample, reference, category=f"{dataset}/{sample.category}"))
    return rows


def mechanism_row(detector: Detector, sample: Sample, reference: Reference, *, category: str) -> MechanismRow:
    """Levels, text map, memory map and fusion of one image."""
    prediction, image, mask = _seen(detector, sample, reference)
    parts = {name: prediction.parts.get(name) for name in ("text_map", "memory_map")}
    return MechanismRow(
        image=image,
        mask=mask,
        category=category,
        levels=[] if prediction.levels is None else list(prediction.levels[0].numpy()),
        score_map=prediction.score_map[0].numpy(),
        **{name: None if value is None else value[0].numpy() for name, value in parts.items()},
    )


def _doublings(prediction: Prediction, reference: Reference) -> np.ndarray:
    """[H, W]; the logarithm shows a faint crack and a strange surface on one scale."""
    return (prediction.score_map[0] / reference["support_level"]).clamp(min=1e-6).log2().numpy()


@torch.inference_mode()
def _seen(detector: Detector, sample: Sample, reference: Reference) -> tuple[Prediction, np.ndarray, np.ndarray | None]:
    picture = read_image(sample.image)
    mask = read_mask(sample, picture.size) if sample.masks else None
    prediction = detector(support_of([sample], detector.backbone.image_size).images, reference)
    return prediction, np.asarray(picture), mask
