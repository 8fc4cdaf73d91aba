"""From views to one score and one heat map of a picture, and to the regions of a heat map.

The score of a picture is the largest of its views' scores. A view's score is the method's own; where a mask leaves
something out, it is the mean of the largest 1 % of the view's map inside the mask instead, since a method's own score
has seen everything. The threshold is made by the same rule, so either kind is judged on its own scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from sowa.detectors.base import Detector
from sowa.errors import ConfigError, DataError
from sowa.predictor.results import Region
from sowa.predictor.view import Looked
from sowa.types import Prediction, Reference, Tokens

__all__ = ["Seen", "encode_views", "heat_regions", "judge", "judge_tokens", "restored"]

TOP_FRACTION = 0.01
WINDOW_FLOOR = 1e-3
"""Least weight of a tile's edge, where no other tile may lie."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a detector says of one picture, raw."""

    score: float
    peak: float | None
    """Largest value of the maps, inside the mask; None where the method makes no map."""
    maps_TSS: Tensor | None
    """Raw map of each view, 0 outside of the mask."""


@torch.no_grad()
def encode_views(detector: Detector, views_N3SS: Tensor, *, most: int = 16) -> Tokens:
    """Tokens of N >= 1 views, at most `most` at a time."""
    views = _moved(views_N3SS, detector)
    parts = [detector.encode(views[start : start + most]) for start in range(0, len(views), most)]
    return parts[0] if len(parts) == 1 else type(parts[0]).join(parts)


def judge(detector: Detector, reference: Reference, pictures: Sequence[Looked], *, most: int = 16) -> list[Seen]:
    """Every picture on its own; `most`: how many views go through the network at a time."""
    views = torch.cat([picture.views_T3SS for picture in pictures])
    detector = detector.without_parts()
    seen: list[tuple[Tensor, Tensor | None]] = []
    for start in range(0, len(views), most):
        with torch.no_grad():
            tokens = detector.encode(_moved(views[start : start + most], detector))
            seen.append(_kept(detector.score(tokens, reference)))
    return _by_picture(seen, pictures)


def judge_tokens(
    detector: Detector, reference: Reference, tokens: Sequence[Tokens], pictures: Sequence[Looked]
) -> list[Seen]:
    """`judge` on the encoded views of each picture."""
    detector = detector.without_parts()
    with torch.no_grad():
        seen = [_kept(detector.score(own, reference)) for own in tokens]
    return _by_picture(seen, pictures)


def restored(seen: Seen, picture: Looked) -> NDArray[np.float32] | None:
    """[h, w] raw map at the picture's size; overlapping tiles fade into each other."""
    if seen.maps_TSS is None:
        return None
    if len(picture.boxes) == 1 and picture.boxes[0] == (0, 0, *picture.size):
        whole = picture.frames[0].restore(seen.maps_TSS[0]).numpy().astype(np.float32)
    else:
        whole = _blended(seen.maps_TSS, picture)
    return whole if picture.inside_hw is None else np.where(picture.inside_hw, whole, np.float32(0))


def heat_regions(heat_hw: NDArray[np.float32]) -> tuple[Region, ...]:
    """Areas of neighbouring pixels (8 neighbours) at or above 1, largest peak first."""
    labels, count = ndimage.label(heat_hw >= 1, structure=np.ones((3, 3), dtype=int))
    if not count:
        return ()
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    peaks = ndimage.maximum(heat_hw, labels, index=np.arange(1, count + 1))
    regions = []
    for (rows, columns), area, peak in zip(ndimage.find_objects(labels), areas, peaks, strict=True):
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        regions.append(Region(box=box, area=int(area), peak=float(peak)))
    return tuple(sorted(regions, key=lambda region: (-region.peak, region.box)))


def _kept(prediction: Prediction) -> tuple[Tensor, Tensor | None]:
    """Score and map alone: the ingredients of a batch are not held while the next one is made."""
    return prediction.score.float().cpu(), None if prediction.score_map is None else prediction.score_map.float().cpu()


def _moved(views_N3SS: Tensor, detector: Detector) -> Tensor:
    """Where the detector is: bytes travel, and from pinned memory, so that the copy does not wait."""
    device = detector.backbone.mean.device
    if device.type != "cuda":
        return views_N3SS.to(device)
    return views_N3SS.pin_memory().to(device, non_blocking=True)


def _by_picture(seen: Sequence[tuple[Tensor, Tensor | None]], pictures: Sequence[Looked]) -> list[Seen]:
    scores_N = torch.cat([scores for scores, _ in seen])
    maps = [found for _, found in seen if found is not None]
    maps_NSS = torch.cat(maps) if maps else None
    out, start = [], 0
    for picture in pictures:
        own = slice(start, start + len(picture.boxes))
        out.append(_picture(scores_N[own], None if maps_NSS is None else maps_NSS[own], picture))
        start = own.stop
    return out


def _picture(scores_T: Tensor, maps_TSS: Tensor | None, picture: Looked) -> Seen:
    if maps_TSS is None:
        if picture.inside_hw is not None:
            raise ConfigError("this method ranks whole pictures and makes no map: leave out roi and ignore")
        return Seen(_finite(scores_T.max().item()), None, None)
    maps_TSS = torch.where(picture.inside_TSS, maps_TSS, 0.0)
    score = scores_T.max().item()
    if picture.inside_hw is not None:
        views = zip(maps_TSS, picture.inside_TSS, strict=True)
        score = max(_top(values[inside]) for values, inside in views if inside.any())
    return Seen(_finite(score), _finite(maps_TSS.max().item()), maps_TSS)


def _top(values_N: Tensor) -> float:
    return values_N.topk(max(1, math.ceil(TOP_FRACTION * len(values_N)))).values.mean().item()


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise DataError("the score of this picture is not a finite number: the detector does not fit such pictures")
    return value


def _blended(maps_TSS: Tensor, picture: Looked) -> NDArray[np.float32]:
    """Weighted mean of the tiles; the weights fall smoothly to a tile's edge."""
    width, height = picture.size
    total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for values, frame, (left, top, right, bottom) in zip(maps_TSS, picture.frames, picture.boxes, strict=True):
        window = np.outer(_window(bottom - top), _window(right - left))
        total[top:bottom, left:right] += frame.restore(values).numpy() * window
        weight[top:bottom, left:right] += window
    return total / weight


def _window(length: int) -> NDArray[np.float32]:
    return (np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2 + WINDOW_FLOOR).astype(np.float32)
