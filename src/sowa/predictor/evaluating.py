"""A fitted detector on a labelled folder: which pictures count, what is measured, and what it means in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sowa.calibration import CONFIDENCE, false_alarm_bound, recall_interval
from sowa.data.images import read_mask
from sowa.data.layouts import read_samples, recognise
from sowa.data.subset import spread
from sowa.errors import DataError
from sowa.metrics.functional import METRICS, f1_max_threshold
from sowa.metrics.meters import CategoryMeter
from sowa.predictor.predictor import Predictor
from sowa.predictor.results import DEFECTIVE, ERROR, Result
from sowa.predictor.scale import count, percent
from sowa.predictor.sources import Item
from sowa.types import Sample
from sowa.wheels import file_sha256

__all__ = ["Labelled", "Tally", "in_words", "labelled"]

MOST_PIXELS = 200_000_000
"""Of all maps that pixel metrics are made from, about a gigabyte; beyond it maps and masks are shrunk alike."""
_SPLITS = frozenset({"train", "test", "val", "validation"})


@dataclass(frozen=True, slots=True)
class Labelled:
    """The pictures of a labelled folder that are judged."""

    samples: tuple[Sample, ...]
    known: int
    """Good pictures left out because the detector knows them."""

    def items(self) -> Iterator[Item]:
        for sample in self.samples:
            yield Item(sample.name, str(sample.image), sample.image)


def labelled(
    detector: Predictor,
    root: Path,
    *,
    layout: str = "auto",
    split: str | None = None,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
) -> Labelled:
    """The test pictures of one category; all pictures of a folder that is not divided into train and test.

    Good pictures that the artifact has learnt from or was calibrated on (by the hash of their files) are left out: they
    would flatter it. limit: at most so many of each label, spread evenly. DataError for a folder of several categories
    without a choice, and where nothing is left.
    """
    found = read_samples(root, layout, categories=categories, split=split)
    names = sorted({sample.category for sample in found})
    if len(names) > 1 and not categories:
        raise DataError(f"{root}: holds {len(names)} categories ({', '.join(names[:8])}); choose with --category")
    divided = any(_SPLITS & {part.casefold() for part in Path(sample.name).parts[:-1]} for sample in found)
    whole = not divided and _is_plain(root, layout)
    tested = [sample for sample in found if whole or sample.split == "test"]
    hashes = {normal["sha256"] for normal in detector.info()["normals"]}
    fresh = [sample for sample in tested if sample.label or not _is_known(sample.image, hashes)]
    if not fresh:
        raise DataError(f"{root}: no test picture in it; good/ and a folder for each kind of defect are the simplest")
    chosen = fresh
    if limit is not None:
        by_name = {sample.name: sample for sample in fresh}
        marked = [_as_test(sample) for sample in fresh]
        chosen = [by_name[sample.name] for sample in spread(marked, limit)]
    return Labelled(tuple(chosen), len(tested) - len(fresh))


def _is_plain(root: Path, layout: str) -> bool:
    """Whether it is a folder of anybody's own, which this program would only halve."""
    return (recognise(root) if layout == "auto" else layout) == "folder"


def _as_test(sample: Sample) -> Sample:
    return replace(sample, split="test")


def _is_known(path: Path, hashes: set[str]) -> bool:
    try:
        return file_sha256(path) in hashes
    except OSError:  # it will be a row with an error
        return False


class Tally:
    """Collects results with their truth; holds a map and a mask of each picture whose pixels are known."""

    def __init__(self, detector: Predictor, judged: Labelled):
        self._threshold, self._detector, self._known = detector.threshold, detector, judged.known
        self._meter = CategoryMeter()
        self._scores: list[float] = []
        self._truth: list[tuple[Sample, bool]] = []
        self.unreadable = 0
        self.unfit_masks: list[str] = []
        masked = any(sample.masks for sample in judged.samples)
        self._share = MOST_PIXELS / len(judged.samples) if masked else 0.0
        self._shrunk = False

    def add(self, sample: Sample, result: Result) -> dict[str, Any]:
        """Take one result; what its row says more: label, defect_type, mask (masks, where there are several)."""
        if result.verdict == ERROR:
            self.unreadable += 1
        else:
            self._scores.append(result.score)
            self._truth.append((sample, result.verdict == DEFECTIVE))
            pixels = self._pixels(sample, result)
            heat, mask = pixels or (None, None)
            self._meter.update(
                [result.score], [sample.label], None if heat is None else [heat], None if mask is None else [mask]
            )
        paths = [str(path) for path in sample.masks]
        more = {"label": sample.label, "defect_type": sample.defect, "mask": paths[0] if paths else None}
        return more | ({"masks": paths} if len(paths) > 1 else {})

    def _pixels(self, sample: Sample, result: Result) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
        if not self._share or result.heatmap is None or (sample.label and not sample.masks):
            return None
        try:
            mask = read_mask(sample, result.size)
        except DataError as error:
            self.unfit_masks.append(str(error))
            return None
        heat, scale = result.heatmap, math.sqrt(self._share / mask.size)
        if scale < 1:
            self._shrunk = True
            size = tuple(max(1, int(side * scale)) for side in result.size)
            heat = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
            mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        return heat, mask

    def metrics(self) -> dict[str, Any]:
        """Everything measured, ready for JSON; None is undefined. DataError where no picture could be read."""
        if not self._truth:
            raise DataError("not one of the labelled pictures could be read: sowa data check says why")
        labels = [sample.label for sample, _ in self._truth]
        both = 0 < sum(labels) < len(labels)
        values = self._meter.compute()
        good, bad = self._confusion(0), self._confusion(1)
        kinds = sorted({sample.defect for sample, _ in self._truth if sample.label})
        return {
            "images": len(labels),
            **{name: None if math.isnan(values[name]) else values[name] for name in METRICS},
            "image_f1_max_threshold": f1_max_threshold(self._scores, labels) if both else None,
            "threshold": self._threshold,
            "threshold_source": self._detector.info()["threshold_source"],
            "confidence": CONFIDENCE,
            "confusion": {
                "good": {"good": good["images"] - good["defective"], "defective": good["defective"]},
                "defective": {"good": bad["images"] - bad["defective"], "defective": bad["defective"]},
            },
            "false_alarms": good,
            "recall": bad,
            "recall_by_type": {kind: self._confusion(1, kind) for kind in kinds},
            "left_out": {
                "unreadable": self.unreadable,
                "known_to_the_detector": self._known,
                "masks": len(self.unfit_masks),
            },
            "pixels_shrunk": self._shrunk,
        }

    def _confusion(self, label: int, kind: str | None = None) -> dict[str, Any]:
        """How many of these pictures were called defective, and the exact interval of that rate."""
        chosen = [called for sample, called in self._truth if sample.label == label and kind in (None, sample.defect)]
        called, images = sum(chosen), len(chosen)
        low, high = recall_interval(called, images) if images else (None, None)
        rate = called / images if images else None
        return {"images": images, "defective": called, "rate": rate, "low": low, "high": high}


def in_words(metrics: Mapping[str, Any]) -> list[str]:
    """What the confusion means, one sentence each."""
    sure = percent(metrics["confidence"])
    lines = []
    for what, row in (("good", metrics["false_alarms"]), ("defective", metrics["recall"])):
        if row["images"]:
            between = f"{percent(row['low'])} to {percent(row['high'])} with {sure} confidence"
            called = f"{row['defective']} of {count(row['images'], f'{what} picture')} called defective"
            lines.append(f"{called}: {percent(row['rate'])} ({between}).")
    alarms = metrics["false_alarms"]
    if alarms["images"]:
        bound = false_alarm_bound(alarms["defective"], alarms["images"], metrics["confidence"])
        lines.append(f"The false-alarm rate is below {percent(bound)} with {sure} confidence.")
    left = metrics["left_out"]
    for number, why in (
        (left["unreadable"], "could not be read"),
        (left["known_to_the_detector"], "left out: the detector has learnt from or was calibrated on the same"),
    ):
        if number:
            lines.append(f"{count(number, 'picture')} {why}.")
    if left["masks"]:
        lines.append(f"{count(left['masks'], 'mask')} did not fit; those pictures are not in the pixel metrics.")
    if metrics["pixels_shrunk"]:
        lines.append("Pixel metrics are of maps and masks shrunk alike: there are too many pixels to hold.")
    return lines
