"""How many images of each kind a data set has, and how many its authors published."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources

from sowa.data.layouts_tree import Problem
from sowa.errors import UnknownNameError
from sowa.types import Sample

__all__ = ["KINDS", "count", "differences", "published_counts"]

KINDS = ("train_good", "train_bad", "test_good", "test_bad")
"""What is counted and published of each category; `count` adds `masks`."""

Counts = dict[str, dict[str, int]]


def count(samples: Iterable[Sample]) -> Counts:
    """Category -> `KINDS` and `masks`, the number of defective images that have one; validation is not counted."""
    counts: Counts = {}
    for sample in samples:
        row = counts.setdefault(sample.category, dict.fromkeys((*KINDS, "masks"), 0))
        kind = f"{sample.split}_{'bad' if sample.label else 'good'}"
        if kind in row:
            row[kind] += 1
            row["masks"] += bool(sample.masks)
    return dict(sorted(counts.items()))


def published_counts(dataset: str) -> Counts:
    """Category -> `KINDS` as published for the data set of that key (ELPV: in the split made here)."""
    text = (resources.files("sowa.data") / "dataset_counts.json").read_text(encoding="utf-8")
    published: dict[str, Counts] = json.loads(text)
    if dataset not in published:
        raise UnknownNameError("data set with published counts", got=dataset, known=published)
    return published[dataset]


def differences(counts: Mapping[str, Mapping[str, int]], dataset: str) -> list[Problem]:
    """One problem for each category of `counts` whose numbers are not the published ones; absent ones are not named."""
    published = published_counts(dataset)
    found = []
    for category in sorted(counts.keys() & published.keys()):
        wrong = [kind for kind in KINDS if counts[category][kind] != published[category][kind]]
        if wrong:
            said = ", ".join(f"{kind} {counts[category][kind]} of {published[category][kind]}" for kind in wrong)
            found.append(Problem(category, "count", f"{category}: {said} published for {dataset}"))
    return found
