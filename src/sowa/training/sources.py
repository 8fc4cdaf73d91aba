"""From `data.auxiliary` and `data.target` to samples: where a data set lies, what is in it, what it may be used for."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sowa.data.dataset import ImageDataset, MosaicDataset
from sowa.data.intake import Fit, intake_of
from sowa.data.layouts import read_samples
from sowa.data.lists import listed
from sowa.data.roots import elpv_root, find_root
from sowa.data.shot_lists import read_shot_list
from sowa.data.shots import Shots, draw_shots
from sowa.errors import ConfigError, DataError, UnknownNameError
from sowa.training.build import call
from sowa.types import Sample
from sowa.wheels import cache_root

__all__ = [
    "Source",
    "auxiliary_images",
    "check_shots",
    "drawn_root",
    "read_source",
    "refuse_same_data",
    "refuse_trained_on",
]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that was found and listed; no image has been decoded."""

    dataset: str
    root: Path
    samples: list[Sample]


def read_source(
    *,
    dataset: str,
    root: str | None = None,
    layout: str = "auto",
    split: str | None = None,
    categories: Sequence[str] | None = None,
    draw: Mapping[str, Any] | None = None,
    list: str | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> Source:
    """The samples of `dataset` at `root`, or where it is found under `data_dir`; `split` is one of the layout's own.

    `list` leaves only the images of a list, with its splits: a name of `sowa.data.lists` or a CSV file.
    `draw` has the data set drawn into the cache instead (see `drawn_root`). ELPV, where it is not found, is taken from
    its wheel.
    """
    cache = Path(cache_dir) if cache_dir is not None else None
    if root is not None:
        place = Path(root).expanduser()
    elif draw is not None:
        place = call(drawn_root, draw, what="draw", cache_dir=cache)
    else:
        place = _find(dataset, data_dir, cache)
    samples = read_samples(place, layout, categories=categories, split=split)
    return Source(dataset, place, samples if list is None else listed(samples, list))


def drawn_root(
    *, part: str, seed: int, train_good: int, test_good: int, test_bad: int, size: int, cache_dir: Path | None
) -> Path:
    """The categories of a part (`sowa.data.drawn.PARTS`) drawn by code, counts per category; drawn once, then found."""
    from sowa.data.drawn import PARTS, VERSION, draw_dataset  # slow to load, needed here alone

    if part not in PARTS:
        raise UnknownNameError("part of the drawn data", got=part, known=PARTS)
    name = f"{part}-v{VERSION}-seed{seed}-{train_good}-{test_good}-{test_bad}-{size}px"
    root = cache_root(cache_dir) / "datasets" / "drawn" / name
    if not root.exists():
        print(f"sowa: drawing the {part} data set into {root}", file=sys.stderr, flush=True)
    return draw_dataset(
        root,
        seed=seed,
        categories=PARTS[part],
        train_good=train_good,
        test_good=test_good,
        test_bad=test_bad,
        size=size,
    )


def _find(dataset: str, data_dir: str | None, cache_dir: Path | None) -> Path:
    try:
        return find_root(dataset, Path(data_dir) if data_dir is not None else None)
    except DataError:
        if dataset != "elpv":
            raise
        return elpv_root(cache_dir)


def refuse_same_data(auxiliary: Source, target: Source) -> None:
    """Stop if the target shares a file, or a category of the same data set, with the auxiliary data."""
    categories = {sample.category for sample in auxiliary.samples} & {sample.category for sample in target.samples}
    same_name = auxiliary.dataset == target.dataset and categories
    files = {sample.image.resolve() for sample in auxiliary.samples}
    if same_name or any(sample.image.resolve() in files for sample in target.samples):
        raise ConfigError(
            f"data.auxiliary ({auxiliary.root}) and data.target ({target.root}) are the same data: a model would be"
            " judged on what it was trained on; choose another data set for one of them"
        )


def refuse_trained_on(target: Source, about: Mapping[str, Any]) -> None:
    """Stop if weights that describe themselves by `about` were trained on a category of the target."""
    trained_on = about.get("trained_on", {})
    shared = {sample.category for sample in target.samples} & set(trained_on.get("categories", ()))
    if trained_on.get("dataset") == target.dataset and shared:
        raise ConfigError(
            f"these weights were trained on {target.dataset} ({', '.join(sorted(shared))}): they cannot be judged on"
            " it; choose another data set as data.target"
        )


def check_shots(
    target: Source, shots: Sequence[int], seeds: Sequence[int], shots_file: str | None = None
) -> dict[int, Shots]:
    """Seed -> shots of each category, drawn or from a file: before a long training, so that one that lacks is known."""
    most = max(shots, default=0)
    if not most:
        return {}
    if shots_file is None:
        return {seed: draw_shots(target.samples, dataset=target.dataset, k=most, seed=seed) for seed in seeds}
    given = read_shot_list(Path(shots_file), target.samples, dataset=target.dataset)
    if missing := sorted(set(seeds) - given.keys()):
        raise ConfigError(f"shots_file={shots_file} holds seeds {sorted(given)}, not {missing}: set seeds to those")
    for category in sorted({sample.category for sample in target.samples}):
        for seed in seeds:
            if len(given[seed].get(category, ())) < most:
                raise ConfigError(
                    f"shots_file={shots_file} names {len(given[seed].get(category, ()))} images of {category},"
                    f" shots={list(shots)} asked for; name more or ask for fewer"
                )
    return {seed: given[seed] for seed in seeds}


def auxiliary_images(
    source: Source,
    *,
    image_size: int,
    mosaic_rate: float,
    protocol: str,
    seed: int,
    on_error: str,
    fit: Fit = "squash",
) -> ImageDataset:
    """The labelled split of auxiliary data as model-sized images with masks, a share of them mosaics.

    `protocol="paper"`: masks grow by their soft edge and a mosaic keeps the label of the image it replaces.
    """
    labelled = [sample for sample in source.samples if sample.split == "test"]
    if not labelled:
        raise DataError(f"{source.root}: no image of the labelled split (test) to train on among {len(source.samples)}")
    rules = {"paper": ("paper_train", "kept")}
    mask_rule, label_rule = rules.get(protocol, ("nearest", "any"))
    shared = {"samples": labelled, "image_size": image_size, "mask_rule": mask_rule, "on_error": on_error}
    shared |= intake_of(protocol, fit)
    if not mosaic_rate:
        return ImageDataset(**shared)
    return MosaicDataset(**shared, seed=seed, rate=mosaic_rate, label_rule=label_rule)
