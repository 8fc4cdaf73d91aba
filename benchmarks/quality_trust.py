"""What the cells do not say: disturbed images, a defective shot, and where the detector fails."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from sowa.benchmark.jobs import Jobs, Method, Target
from sowa.benchmark.plan import Choice, Plan
from sowa.benchmark.store import key_of
from sowa.data.frames import to_model
from sowa.data.images import read_image, read_mask
from sowa.data.subset import spread
from sowa.detectors.base import Detector
from sowa.figures.verdicts import VerdictRow, verdict_sheet
from sowa.metrics.functional import auroc
from sowa.types import Reference, Sample, Support, Tokens

__all__ = ["DISTURBED", "MOST", "category_trust", "contact_sheets", "images_of", "trust_key"]

FIRST = "elpv_first"
"""The data set of the first round's lists, which SOWA Plus alone is scored on, with nothing beside."""
MOST = 6
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


def trust_key(plan: Plan, method: Method, target: Target, category: str, most: int) -> str:
    """What the figures of a category depend on."""
    own = {"category": category, "listing": target.listing(category), "seeds": list(plan.seeds), "most": most}
    return key_of(method.identity() | own | {"disturbed": list(DISTURBED)})


@torch.inference_mode()
def category_trust(
    detector: Detector, plan: Plan, target: Target, name: str, most: int, touch: Callable[[], None]
) -> dict[str, Any]:
    """`disturbed` and `defective_shot` of a category, from `most` images of each label, and the `seconds` it took."""
    began = time.monotonic()
    tests = [one for one in spread(target.test(name), most) if one.split == "test"]
    category = _Category(name, target, tests)
    shots = _by_name(detector, {one.name: one for seed in plan.seeds for one in category.shots(seed, CONTAMINATED)})
    clean = _encode(detector, [read_image(one.image) for one in tests])
    touch()
    disturbed = _disturbed(detector, category, shots, clean, plan.seeds, touch)
    dirty = _dirty(detector, category, shots, clean, plan.seeds)
    return {"disturbed": disturbed, "defective_shot": dirty, "seconds": time.monotonic() - began}


def _disturbed(
    detector: Detector,
    category: _Category,
    shots: dict[str, Tokens],
    clean: Tokens,
    seeds: Sequence[int],
    touch: Callable[[], None],
) -> dict[str, float]:
    """Mean image AUROC over the draws at 4 shots, of the images as they are and disturbed."""
    references = [_fit(detector, category, shots, seed, SHOTS) for seed in seeds]
    found = {"as they are": _mean_auroc(detector, category.tests, clean, references)}
    for name, change in DISTURBED.items():
        tokens = _encode(detector, [change(read_image(one.image)) for one in category.tests])
        found[name] = _mean_auroc(detector, category.tests, tokens, references)
        touch()
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


def images_of(detector: Detector, images: Sequence[Image.Image]) -> Tensor:
    return torch.stack([to_model(image, detector.backbone.image_size)[0] for image in images])


def _encode(detector: Detector, images: Sequence[Image.Image]) -> Tokens:
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return _join(detector.encode(images_of(detector, part)) for part in parts)


def _by_name(detector: Detector, samples: dict[str, Sample]) -> dict[str, Tokens]:
    tokens = _encode(detector, [read_image(one.image) for one in samples.values()])
    return {name: _rows(tokens, place) for place, name in enumerate(samples)}


def _rows(tokens: Tokens, place: int) -> Tokens:
    return tokens.rows(slice(place, place + 1))


def _join(parts: Any) -> Tokens:
    parts = list(parts)
    return type(parts[0]).join(parts)


# ------------------------------------------------------------------------------------------------- where it fails


@torch.inference_mode()
def contact_sheets(jobs: Jobs, cells: Sequence[Mapping[str, Any]], page: Path) -> dict[str, str]:
    """Of the plan's first method, `DATASET-CATEGORY.jpg` below `page`: category -> name of the file."""
    plan, files = jobs.plan, {}
    for choice in plan.data:
        if choice.name == FIRST:
            continue
        target = jobs.target(choice)
        detector = jobs.method(plan.methods[0], choice, target).detector
        own = {
            cell["category"]: cell
            for cell in cells
            if (cell["method"], cell["dataset"]) == (plan.methods[0].name, choice.name)
            and (cell["k"], cell["seed"]) == (SHOTS, plan.seeds[0])
        }
        for name in target.categories():
            if name in own:
                files[name] = _contact_sheet(detector, choice, target, name, own[name], page)
    return files


def _contact_sheet(
    detector: Detector, data: Choice, target: Target, name: str, cell: Mapping[str, Any], page: Path
) -> str:
    """Per category the defective images with the lowest and the good ones with the highest scores, at 4 shots of the
    first draw; heat 1 is twice what the shots' own most unusual spots show."""
    by_name = {one.name: one for one in target.test(name)}
    ranked = sorted(cell["scores"], key=lambda one: one["score"])
    misses = [one for one in ranked if int(one["label"])][:WORST]
    alarms = [one for one in reversed(ranked) if not int(one["label"])][:WORST]
    shots = [read_image(one.image) for one in target.drawn[cell["seed"]][name][:SHOTS]]
    reference = detector.fit(Support(name, images_of(detector, shots)))
    rows = [
        _row(detector, reference, by_name[one["image"]], one["score"], word)
        for found, word in ((misses, "scored lowest"), (alarms, "scored highest"))
        for one in found
    ]
    page.mkdir(parents=True, exist_ok=True)
    path = page / f"{data.name}-{name}.png"
    title = f"{data.name} {name}: defective images with the lowest scores, good ones with the highest"
    verdict_sheet(rows, path, low=0.0, high=1.0, title=title)
    with Image.open(path) as drawn:
        sheet = drawn.convert("RGB").resize((WIDE, WIDE * drawn.height // drawn.width))
        sheet.save(path.with_suffix(".jpg"), quality=80)
    path.unlink()
    return path.with_suffix(".jpg").name


def _row(detector: Detector, reference: Reference, sample: Sample, score: float, word: str) -> VerdictRow:
    image = read_image(sample.image)
    found = detector(images_of(detector, [image]), reference)
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
