"""Pictures of a benchmark: what each method sees in the same images, and what SOWA's map is made of.

Images are chosen by name or by their place in the list, never by their score. A method's heat map has one scale for all
images of a category, set by normal images that are not among its shots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sowa.benchmark.jobs import Jobs, Method, Target
from sowa.benchmark.plan import Plan
from sowa.benchmark.store import Store
from sowa.data.frames import Frame
from sowa.data.images import read_image, read_mask
from sowa.data.shots import draw_shots
from sowa.detectors.base import Detector
from sowa.detectors.sowa import Sowa
from sowa.errors import ConfigError, NeedsSupportError
from sowa.figures import GridRow, mechanism_figure, method_grid
from sowa.metrics.table import write_json
from sowa.training.gallery import chosen_samples, mechanism_row
from sowa.training.scoring import support_of
from sowa.types import Reference, Sample, Support

__all__ = ["figure_main"]

HELD_OUT = 4
"""Normal images, not among the shots, that set the scale of a method's heat maps."""
MOST = 24
"""Images of one figure."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A method that has learnt a category, with the scale of its maps there."""

    detector: Detector
    reference: Reference
    scale: tuple[float, float]


def figure_main(plan: Plan, store: Store, *, names: Sequence[str] = (), k: int | None = None) -> list[Path]:
    """Draw `figures/methods.png`, `figures/mechanism.png` and `figures/images.json` into the store's folder.

    names: images by name (or the end of one); none are one good and two defective of each category by place. k: shots,
    the plan's largest if None. Auxiliary methods use the weights that the benchmark trained, or train them.
    """
    k, seed = max(plan.shots) if k is None else k, plan.seeds[0]
    jobs, rows, mechanism, shown = Jobs(plan, store), [], [], []
    for data in plan.data:
        target = jobs.target(data)
        methods = []
        for choice in plan.methods:
            method = jobs.method(choice, data, target)
            jobs.make_ready(method, target, data, choice)
            methods.append(method)
        learnt: dict[str, list[_Seen | None]] = {}
        for sample in _chosen(target, names):
            if sample.category not in learnt:
                learnt[sample.category] = [_learnt(method, target, sample.category, k, seed) for method in methods]
            seen = learnt[sample.category]
            rows.append(_row(target, sample, seen))
            shown.append({"dataset": target.name, "image": sample.name, "label": sample.label, "defect": sample.defect})
            first = seen[0]
            if sample.label and first is not None and isinstance(first.detector, Sowa):
                name = f"{target.name}/{sample.category}"
                mechanism.append(mechanism_row(first.detector, sample, first.reference, category=name))
    if not rows:
        raise ConfigError(f"no image to show: none of {', '.join(names)} is a test image of the data sets")
    folder, heads = store.folder / "figures", [choice.name for choice in plan.methods]
    below = f"k={k}, seed {seed}. Each method on a scale of its own, set by good images that it was not shown."
    files = [method_grid(rows[:MOST], folder / "methods.png", methods=heads, note_below=below)]
    if mechanism:
        files.append(mechanism_figure(mechanism[:MOST], folder / "mechanism.png"))
    write_json(folder / "images.json", {"k": k, "seed": seed, "methods": heads, "images": shown[:MOST]})
    return [*files, folder / "images.json"]


def _chosen(target: Target, names: Sequence[str]) -> list[Sample]:
    if not names:
        return chosen_samples(target.samples)
    test = [sample for sample in target.samples if sample.split == "test"]
    return [sample for name in names for sample in test if f"/{sample.name}".endswith(f"/{name}")]


def _learnt(method: Method, target: Target, category: str, k: int, seed: int) -> _Seen | None:
    """The method after its shots; None where it cannot work with so few."""
    detector, size = method.detector, method.detector.backbone.image_size
    pool = [one for one in target.source.samples if one.category == category]
    drawn = draw_shots(pool, dataset=target.source.dataset, k=k + HELD_OUT, seed=seed, allow_fewer=True)[category]
    shots, held_out = drawn[:k], drawn[k:] or drawn[:1]
    images = support_of(shots, size).images
    try:
        reference = detector.fit(Support(category, images))
    except NeedsSupportError:
        return None
    with torch.inference_mode():
        prediction = detector(support_of(held_out, size).images, reference)
    if prediction.score_map is None:
        return _Seen(detector, reference, (0.0, 1.0))
    values = prediction.score_map.float().numpy()
    low, middle = float(np.quantile(values, 0.995)), float(np.median(values))
    return _Seen(detector, reference, (low, low + max(2 * (low - middle), 1e-6)))


def _row(target: Target, sample: Sample, seen: Sequence[_Seen | None]) -> GridRow:
    """The image with every method's map in its own frame."""
    picture = read_image(sample.image)
    maps = []
    for one in seen:
        score_map = None
        if one is not None:
            size = one.detector.backbone.image_size
            with torch.inference_mode():
                prediction = one.detector(support_of([sample], size).images, one.reference)
            if prediction.score_map is not None:
                score_map = Frame(*picture.size, size).restore(prediction.score_map[0].float()).numpy()
        maps.append(score_map)
    return GridRow(
        image=np.asarray(picture),
        category=f"{target.name}/{sample.category}",
        name=sample.name,
        maps=maps,
        scales=[(0.0, 1.0) if one is None else one.scale for one in seen],
        mask=read_mask(sample, picture.size) if sample.masks else None,
        label=sample.label,
    )
