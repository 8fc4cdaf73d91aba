"""`Predictor.fit`, `add` and `calibrate` as functions on contents."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sowa import __version__
from sowa.data.shots import draw_shots
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, DataError
from sowa.predictor.content import Content, Normal, Recipe
from sowa.predictor.learn import Evidence, Progress, extend, judged_normals, most_shots, remember, support_scores
from sowa.predictor.making import probe
from sowa.predictor.pictures import Given, as_picture, given_pictures, identity, thumbnail, without_copies
from sowa.predictor.scale import DEFAULT_TARGET, Known, fixed, from_evidence, from_held_out
from sowa.predictor.view import View
from sowa.types import Reference, Sample

__all__ = ["added_content", "calibrated_content", "fitted_content"]

NOTHING = Evidence((), (), (), ())
THUMBNAIL = 64
REFERENCE, THRESHOLD = "reference", "threshold"


def fitted_content(
    detector: Detector,
    recipe: Recipe,
    view: View,
    pictures: Sequence[Given],
    *,
    name: str,
    k: int | Literal["all"],
    seed: int,
    thumbnails: bool,
    target: float | None,
    progress: Progress,
) -> Content:
    """What is learnt of good pictures: k of them are remembered, the others only help to set the threshold."""
    target = DEFAULT_TARGET if target is None else target
    given = _Given(pictures, thumbnails)
    learnt, others = _drawn(given, view, name, k, seed)
    if learnt:
        reference, evidence = remember(detector, view, name, given.pictures(learnt), progress)
    else:
        reference, evidence = detector.fit_tokens(name, None), NOTHING
    if given.places:
        rest = judged_normals(detector, view, reference, _counted(given.pictures(others), "held out", progress))
        calibration = from_evidence(evidence, rest, shots=len(learnt), target=target, known=_known(detector, reference))
    else:
        ratio = probe(detector, reference)
        calibration = fixed(None if ratio is None else 0.5 * ratio)
    return Content(
        name=name,
        created=_now(),
        version=__version__,
        recipe=recipe,
        view=view,
        calibration=calibration,
        reference=reference,
        normals=(*given.normals(learnt, REFERENCE), *given.normals(others, THRESHOLD)),
        copies=given.copies,
        thumbnails_N64=given.thumbnails([*learnt, *others]),
    )


def added_content(detector: Detector, content: Content, images: Any, progress: Progress) -> Content:
    """The content with more remembered pictures. A threshold from the user or from held-out pictures stays."""
    given = _Given(given_pictures(images), content.thumbnails_N64 is not None)
    known = {normal.sha256 for normal in content.normals if normal.use == REFERENCE}
    new = [place for place in given.places if given.found[place].sha256 not in known]
    if not new:
        raise DataError("no new picture among those given: all of them are remembered already")
    held_out = {normal.sha256 for normal in content.normals if normal.use == THRESHOLD}
    if held := [given.found[place].name for place in new if given.found[place].sha256 in held_out]:
        raise DataError(
            f"{len(held)} of the pictures, '{held[0]}' first, set the threshold, which rests on pictures that were not"
            " learnt from: add others, or fit anew"
        )
    pictures, old, target = given.pictures(new), content.calibration, content.calibration.target or DEFAULT_TARGET
    if known:
        reference, evidence = extend(detector, content.view, content.name, content.reference, pictures, progress)
        scores = support_scores(reference, content.view) or (*old.scores, *evidence.scores)
        evidence = replace(evidence, scores=scores, peaks=(*old.peaks, *evidence.peaks))
    else:
        reference, evidence = remember(detector, content.view, content.name, pictures, progress)
    keeps = bool(known) and old.kind in ("held out", "user")
    calibration = old
    if not keeps:
        scale = _known(detector, reference)
        calibration = from_evidence(evidence, NOTHING, shots=len(known) + len(new), target=target, known=scale)
    return _with_normals(
        replace(content, reference=reference, calibration=calibration, copies=content.copies + given.copies),
        given.normals(new, REFERENCE),
        given.thumbnails(new),
    )


def calibrated_content(
    detector: Detector, content: Content, normals: Any, defects: Any, target: float, progress: Progress
) -> Content:
    """The content with the threshold that good pictures set which it has not learnt from."""
    given = _Given(given_pictures(normals), content.thumbnails_N64 is not None)
    known = {normal.sha256 for normal in content.normals if normal.use == REFERENCE}
    if learnt := [given.found[place].name for place in given.places if given.found[place].sha256 in known]:
        raise DataError(
            f"{len(learnt)} of the good pictures, '{learnt[0]}' first, are those learnt from, which score too low:"
            " give others"
        )
    if not given.places:
        raise DataError("no good picture to calibrate with: give some that were not learnt from")
    bad = [] if defects is None else given_pictures(defects)
    judged = judged_normals(
        detector, content.view, content.reference, _counted(given.pictures(given.places), "good", progress)
    )
    wrong = judged_normals(detector, content.view, content.reference, _counted(bad, "defective", progress))
    scale = _known(detector, content.reference)
    calibration = from_held_out(judged, wrong.scores, target=target, known=scale)
    places = [place for place, normal in enumerate(content.normals) if normal.use == REFERENCE]
    thumbnails = None if content.thumbnails_N64 is None else content.thumbnails_N64[places]
    kept = replace(
        content,
        normals=tuple(content.normals[place] for place in places),
        thumbnails_N64=thumbnails,
        calibration=calibration,
    )
    return _with_normals(kept, given.normals(given.places, THRESHOLD), given.thumbnails(given.places))


class _Given:
    """The pictures of one call: each decoded once to know it, and again when it is its turn."""

    def __init__(self, items: Sequence[Given], thumbnails: bool):
        self.items, self.found, small = list(items), [], []
        for number, item in enumerate(self.items, start=1):
            picture = as_picture(item)
            self.found.append(identity(item, picture, number))
            if thumbnails:
                small.append(thumbnail(picture, THUMBNAIL))
        self.places = without_copies(self.found)
        self.copies = len(self.items) - len(self.places)
        self._small = np.stack(small) if small else np.zeros((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)
        self._wanted = thumbnails

    def pictures(self, places: Sequence[int]) -> list[Given]:
        return [self.items[place] for place in places]

    def normals(self, places: Sequence[int], use: str) -> tuple[Normal, ...]:
        return tuple(Normal(self.found[place].name, self.found[place].sha256, use) for place in places)

    def thumbnails(self, places: Sequence[int]) -> Tensor | None:
        return torch.from_numpy(self._small[list(places)]) if self._wanted else None


def _drawn(given: _Given, view: View, name: str, k: int | Literal["all"], seed: int) -> tuple[list[int], list[int]]:
    """Places of the remembered pictures and of the others. A draw is nested in k, as everywhere in this project."""
    if k != "all" and (isinstance(k, bool) or not isinstance(k, int) or k < 0):
        raise ConfigError(f'k={k!r} is no number of pictures: give 0 or more, or "all"')
    if k != "all" and k > len(given.places):
        raise DataError(f"k={k} good pictures are asked for, {len(given.places)} different ones were given")
    wanted = min(len(given.places), most_shots(view)) if k == "all" else k
    if wanted == len(given.places):
        return list(given.places), []
    if not wanted:
        return [], list(given.places)
    samples = [
        Sample(name=f"{given.found[place].name}/{place:09d}", image=Path(), category=name, split="train", label=0)
        for place in given.places
    ]
    drawn = draw_shots(samples, dataset="fit", k=wanted, seed=seed)[name]
    learnt = sorted(int(sample.name.rpartition("/")[2]) for sample in drawn)
    return learnt, [place for place in given.places if place not in set(learnt)]


def _with_normals(content: Content, normals: tuple[Normal, ...], thumbnails: Tensor | None) -> Content:
    """The remembered ones first, as their scores stand."""
    everything = (*content.normals, *normals)
    order = sorted(range(len(everything)), key=lambda place: everything[place].use != REFERENCE)
    small = content.thumbnails_N64
    if small is not None and thumbnails is not None:
        small = torch.cat((small, thumbnails))[order]
    return replace(content, normals=tuple(everything[place] for place in order), thumbnails_N64=small)


def _known(detector: Detector, reference: Reference) -> Known:
    level = reference["support_level"].item() if "support_level" in reference else None
    return Known(detector.spread_beside(reference), level)


def _counted(items: Sequence[Given], what: str, progress: Progress) -> Iterator[Given]:
    for number, item in enumerate(items):
        progress(what, number, len(items))
        yield item


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
