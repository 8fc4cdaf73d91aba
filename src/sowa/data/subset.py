"""Fewer test images of a data set, chosen by place and never by content."""

from collections.abc import Sequence

from sowa.types import Sample

__all__ = ["spread"]


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """All images that are not test images and, per category and label, at most `most` test images, spread evenly over
    their order."""
    kept = [sample for sample in samples if sample.split != "test"]
    groups: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if sample.split == "test":
            groups.setdefault((sample.category, sample.label), []).append(sample)
    for group in groups.values():
        count = min(most, len(group))
        kept += [group[i * len(group) // count] for i in range(count)]
    return sorted(kept, key=lambda sample: sample.name)
