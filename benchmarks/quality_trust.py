"""What the cells do not say: disturbed images, a defective shot, seconds, bytes, and where the detector fails."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from sowa.benchmark.jobs import Jobs, Target
from sowa.benchmark.plan import Choice, Plan
from sowa.benchmark.store import Store
from sowa.data.frames import to_model
from sowa.data.images import read_image, read_mask
from sowa.data.subset import spread
from sowa.detectors.base import Detector
from sowa.figures.verdicts import VerdictRow, verdict_sheet
from sowa.metrics.functional import auroc
from sowa.types import Reference, Sample, Support, Tokens

__all__ = ["DISTURBED", "trust"]

MOST = 10
"""Images of each category and label that are disturbed."""
SHOTS, CONTAMINATED = 4, 8
BATCH = 4
WIDE = 1200
"""Pixels of a contact sheet, which lies in the repository."""
WORST = 3
"""Misses, and false alarms, of a category on its contact sheet."""


def turned(image: Image.Image) -> Image.Image:
    return _framed(image, lambda wide: wide.rotate(5, resample=Image.Resampling.BICUBIC))


def moved(image: Image.Image) -> Image.Image:
    return _framed(image, lambda wide: wide.rotate(0, translate=(2, 2)))


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.1)


def darker(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.9)


def packed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


DISTURBED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "turned by 5 degrees": turned,
    "moved by 2 pixels": moved,
    "10 % brighter": brighter,
    "10 % darker": darker,
    "JPEG quality 60": packed,
}


def _framed(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """What comes in from beyond the border is its mirror."""
    width, height = image.size
    x, y = width // 8, height // 8
    wide = change(Image.fromarray(np.pad(np.asarray(image), ((y, y), (x, x), (0, 0)), mode="symmetric")))
    return wide.crop((x, y, x + width, y + height))


@dataclass(frozen=True, slots=True)
class _Category:
    name: str
    target: Target
    tests: list[Sample]

    def shots(self, seed: int, k: int) -> list[Sample]:
        return self.target.drawn[seed][self.name][:k]


@torch.inference_mode()
def trust(plan: Plan, store: Store, page: Path | None) -> dict[str, Any]:
    """Everything, as plain values; contact sheets go below `page`."""
    jobs = Jobs(plan, store)
    detector = jobs.method(plan.methods[0], plan.data[0], jobs.target(plan.data[0])).detector
    disturbed: dict[str, dict[str, float]] = {}
    dirty: dict[str, dict[str, float]] = {}
    for choice in plan.data:
        target = jobs.target(choice)
        for name in target.categories():
            tests = [one for one in spread(target.test(name), MOST) if one.split == "test"]
            category = _Category(name, target, tests)
            print(f"quality: {choice.name}/{name}, disturbed images and a defective shot", flush=True)
            shots = _by_name(detector, {one.name: one for seed in plan.seeds for one in category.shots(seed, 8)})
            clean = _encode(detector, [read_image(one.image) for one in tests])
            disturbed[name] = _disturbed(detector, category, shots, clean, plan.seeds)
            dirty[name] = _dirty(detector, category, shots, clean, plan.seeds)
        if page is not None:
            _contact_sheets(detector, choice, target, store, page)
    return {"disturbed": disturbed, "defective_shot": dirty, "cost": _cost(plan, jobs)}


def _disturbed(
    detector: Detector, category: _Category, shots: dict[str, Tokens], clean: Tokens, seeds: Sequence[int]
) -> dict[str, float]:
    """Mean image AUROC over the draws at 4 shots, of the images as they are and disturbed."""
    references = [_fit(detector, category, shots, seed, SHOTS) for seed in seeds]
    found = {"as they are": _mean_auroc(detector, category.tests, clean, references)}
    for name, change in DISTURBED.items():
        tokens = _encode(detector, [change(read_image(one.image)) for one in category.tests])
        found[name] = _mean_auroc(detector, category.tests, tokens, references)
    return found


def _dirty(
    detector: Detector, category: _Category, shots: dict[str, Tokens], clean: Tokens, seeds: Sequence[int]
) -> dict[str, float]:
    """Mean image AUROC with 8 good shots, and with the first of them replaced by a defective image, which both leave
    out of the test."""
    pure, mixed = [], []
    bad = [place for place, one in enumerate(category.tests) if one.label]
    for seed in seeds:
        chosen = bad[int(np.random.default_rng(seed).integers(len(bad)))]
        rest = [place for place in range(len(category.tests)) if place != chosen]
        tests, tokens = [category.tests[place] for place in rest], _join(_rows(clean, place) for place in rest)
        good = [shots[one.name] for one in category.shots(seed, CONTAMINATED)]
        for taught, found in ((good, pure), ([_rows(clean, chosen), *good[1:]], mixed)):
            reference = detector.fit_tokens(category.name, _join(taught))
            found.append(_mean_auroc(detector, tests, tokens, [reference]))
    return {"8 good": float(np.mean(pure)), "7 good, 1 defective": float(np.mean(mixed))}


def _fit(detector: Detector, category: _Category, shots: dict[str, Tokens], seed: int, k: int) -> Reference:
    return detector.fit_tokens(category.name, _join(shots[one.name] for one in category.shots(seed, k)))


def _mean_auroc(detector: Detector, tests: Sequence[Sample], tokens: Tokens, references: Sequence[Reference]) -> float:
    labels = [one.label for one in tests]
    return float(np.mean([auroc(detector.score(tokens, reference).score, labels) for reference in references]))


def _images(detector: Detector, images: Sequence[Image.Image]) -> Tensor:
    return torch.stack([to_model(image, detector.backbone.image_size)[0] for image in images])


def _encode(detector: Detector, images: Sequence[Image.Image]) -> Tokens:
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return _join(detector.encode(_images(detector, part)) for part in parts)


def _by_name(detector: Detector, samples: dict[str, Sample]) -> dict[str, Tokens]:
    tokens = _encode(detector, [read_image(one.image) for one in samples.values()])
    return {name: _rows(tokens, place) for place, name in enumerate(samples)}


def _rows(tokens: Tokens, place: int) -> Tokens:
    return tokens.rows(slice(place, place + 1))


def _join(parts: Any) -> Tokens:
    parts = list(parts)
    return type(parts[0]).join(parts)


# ------------------------------------------------------------------------------------------------- where it fails


def _contact_sheets(detector: Detector, data: Choice, target: Target, store: Store, page: Path) -> None:
    """Per category the defective images with the lowest and the good ones with the highest scores, at 4 shots of the
    first draw; heat 1 is twice what the shots' own most unusual spots show."""
    for name in target.categories():
        cell = next(
            one
            for one in store.cells()[0]
            if (one["method"], one["dataset"], one["category"]) == ("sowa_plus", data.name, name)
            and (one["k"], one["seed"]) == (SHOTS, 0)
        )
        by_name = {one.name: one for one in target.test(name)}
        ranked = sorted(cell["scores"], key=lambda one: one["score"])
        misses = [one for one in ranked if int(one["label"])][:WORST]
        alarms = [one for one in reversed(ranked) if not int(one["label"])][:WORST]
        shots = [read_image(one.image) for one in target.drawn[0][name][:SHOTS]]
        reference = detector.fit(Support(name, _images(detector, shots)))
        rows = [
            _row(detector, reference, by_name[one["image"]], one["score"], word)
            for found, word in ((misses, "scored lowest"), (alarms, "scored highest"))
            for one in found
        ]
        path = page / f"{data.name}-{name}.png"
        title = f"{data.name} {name}: defective images with the lowest scores, good ones with the highest"
        verdict_sheet(rows, path, low=0.0, high=1.0, title=title)
        with Image.open(path) as drawn:
            drawn.convert("RGB").resize((WIDE, WIDE * drawn.height // drawn.width)).save(
                path.with_suffix(".jpg"), quality=80
            )
        path.unlink()


def _row(detector: Detector, reference: Reference, sample: Sample, score: float, word: str) -> VerdictRow:
    image = read_image(sample.image)
    found = detector(_images(detector, [image]), reference)
    heat = (found.score_map[0] / (2 * reference["support_level"])).clamp(0, 1)
    return VerdictRow(
        image=np.asarray(image),
        score_map=heat.numpy(),
        category=sample.category,
        name=f"{Path(sample.name).stem} ({sample.defect})",
        score=score,
        verdict=word,
        mask=read_mask(sample, image.size) if sample.masks else None,
        label=sample.label,
    )


# ----------------------------------------------------------------------------------------------------------- cost


def _cost(plan: Plan, jobs: Jobs) -> dict[str, dict[str, float]]:
    """Seconds for an image from its pixels, for learning four, and bytes of what is kept; median of several. Only worth
    reading from a machine that does nothing else."""
    target = jobs.target(plan.data[0])
    name = target.categories()[0]
    images = [read_image(one.image) for one in target.drawn[0][name][:SHOTS]]
    found = {}
    for method in ("sowa_plus", "sowa_plus_fast"):
        chosen = next((one for one in plan.methods if one.name == method), None)
        if chosen is None:
            continue
        detector = jobs.method(chosen, plan.data[0], target).detector
        batch = _images(detector, images)
        reference = detector.fit(Support(name, batch))
        score = [_seconds(lambda d=detector, r=reference, b=batch: d(b[:1], r)) for _ in range(7)]
        fit = [_seconds(lambda d=detector, b=batch: d.fit(Support(name, b))) for _ in range(3)]
        found[method] = {
            "seconds_per_image": float(np.median(score)),
            "seconds_to_learn_4": float(np.median(fit)),
            "bytes_of_4_shots": sum(value.numel() * value.element_size() for value in reference.values()),
            "threads": torch.get_num_threads(),
        }
    return found


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
