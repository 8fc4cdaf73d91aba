"""Learning from good pictures: the reference, and what good pictures score that are not in it.

Three kinds of evidence set a threshold, none of them a defect:
- left out: each remembered picture (in at most 8 groups, beyond that 4) is scored by a reference of the others;
- held out: good pictures beyond the number that is remembered;
- copies: the few remembered pictures lit and compressed a little must stay below the threshold too. A single picture
  has no other to be compared with: copies of it that are moved and turned tell how much another may differ.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from sowa.detectors.base import Detector
from sowa.predictor.heat import Seen, encode_views, judge, judge_tokens
from sowa.predictor.pictures import Given, as_picture
from sowa.predictor.view import Looked, View
from sowa.types import Reference, Tokens

__all__ = [
    "MOST_SHOTS",
    "MOST_VIEWS",
    "Evidence",
    "Progress",
    "copies",
    "extend",
    "judged_normals",
    "most_shots",
    "remember",
    "support_scores",
]

MOST_SHOTS, MOST_VIEWS = 64, 256
"""How many pictures, and views of them, are remembered where all are given; the others set the threshold."""
SINGLY, GROUPS = 8, 4
COPIED = 8
"""Pictures beyond this number are not copied: they vary enough by themselves."""
MOST_COPIES = 8
MOVES = ((0.03, 0.0, 0.0), (-0.02, 0.02, 0.0), (0.0, -0.03, 2.0), (0.0, 0.0, -3.0))
"""Shares of the sides and degrees by which copies are moved and turned."""
MOVED = len(MOVES)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Raw scores of good pictures by references that do not hold them."""

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    """Largest value of the map of each; empty where the method makes none."""
    copy_scores: tuple[float, ...]
    copy_peaks: tuple[float, ...]
    """The same of copies of remembered pictures: no independent evidence."""
    moved: int = 0
    """How many of the copies, the first ones, are moved and turned too: those of a single picture."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered picture."""

    looked: Looked
    tokens: Tokens


def most_shots(view: View) -> int:
    """How many of all given pictures are remembered."""
    return max(1, min(MOST_SHOTS, MOST_VIEWS // view.count))


def remember(
    detector: Detector, view: View, name: str, pictures: Sequence[Given], progress: Progress
) -> tuple[Reference, Evidence]:
    """Reference of K >= 1 good pictures and the evidence they give themselves."""
    memories = []
    for number, picture in enumerate(pictures):
        progress("learning", number, len(pictures))
        looked = view.look(as_picture(picture))
        memories.append(Memory(looked, encode_views(detector, looked.views_T3SS)))
    reference = detector.fit_tokens(name, _joined(memories))
    told = support_scores(reference, view)
    tells_all = told and detector.expected_spread is not None and "support_level" in reference
    left_out = [] if tells_all else _left_out(detector, name, memories, progress)
    alone = len(pictures) == 1 or not (left_out or tells_all)
    copied = _judge_copies(detector, view, reference, pictures, progress, alone=alone)
    progress("learning", len(pictures), len(pictures))
    return reference, Evidence(
        told or tuple(seen.score for seen in left_out),
        tuple(_peaks(left_out)),
        tuple(seen.score for seen in copied),
        tuple(_peaks(copied)),
        moved=MOVED if len(pictures) == 1 else 0,
    )


def extend(
    detector: Detector,
    view: View,
    name: str,
    reference: Reference,
    pictures: Sequence[Given],
    progress: Progress,
) -> tuple[Reference, Evidence]:
    """A reference that holds these pictures too, and their evidence: what they score before they are remembered."""
    looked = [view.look(as_picture(picture)) for picture in pictures]
    tokens = [encode_views(detector, one.views_T3SS) for one in looked]
    before = judge_tokens(detector, reference, tokens, looked)
    longer = detector.extend_tokens(reference, name, type(tokens[0]).join(tokens))
    copied = _judge_copies(detector, view, longer, pictures, progress, alone=False)
    return longer, Evidence(
        tuple(seen.score for seen in before),
        tuple(_peaks(before)),
        tuple(seen.score for seen in copied),
        tuple(_peaks(copied)),
    )


def support_scores(reference: Reference, view: View) -> tuple[float, ...]:
    """What the method itself says its shots score when left out; only of whole pictures and its own image score."""
    if "support_scores" not in reference or view.count > 1 or view.mask is not None:
        return ()
    return tuple(reference["support_scores"].double().flatten().tolist())


def copies(picture: Image.Image, *, moved: bool = True) -> Iterator[Image.Image]:
    """The same part as another shot of it might look, always the same: lit and compressed a little, and `moved`."""
    width, height = picture.size
    if moved:
        for across, down, degrees in MOVES:
            yield _moved(picture, across * width, down * height, degrees)
    yield ImageEnhance.Brightness(picture).enhance(1.08)
    yield ImageEnhance.Brightness(picture).enhance(0.92)
    yield ImageEnhance.Contrast(picture).enhance(0.92)
    packed = io.BytesIO()
    picture.save(packed, format="JPEG", quality=70)
    yield Image.open(packed).convert("RGB")


def _moved(picture: Image.Image, across: float, down: float, degrees: float) -> Image.Image:
    """Moved by pixels and turned; what comes in from beyond the border is its mirror."""
    width, height = picture.size
    by_x, by_y = max(1, width // 8), max(1, height // 8)
    pad = ((by_y, by_y), (by_x, by_x), (0, 0))
    wide = Image.fromarray(np.pad(np.asarray(picture), pad, mode="symmetric"))
    turned = wide.rotate(degrees, resample=Image.Resampling.BICUBIC, translate=(round(across), round(down)))
    return turned.crop((by_x, by_y, by_x + width, by_y + height))


def _joined(memories: Sequence[Memory]) -> Tokens:
    return type(memories[0].tokens).join([memory.tokens for memory in memories])


def _left_out(detector: Detector, name: str, memories: Sequence[Memory], progress: Progress) -> list[Seen]:
    """Each picture scored without itself; none where there is only one, or where fitting means training."""
    if len(memories) < 2 or detector.trains == "target":
        return []
    groups = np.array_split(np.arange(len(memories)), len(memories) if len(memories) <= SINGLY else GROUPS)
    seen: dict[int, Seen] = {}
    for number, group in enumerate(groups):
        progress("leaving out", number, len(groups))
        kept = [memory for place, memory in enumerate(memories) if place not in group]
        less = detector.fit_tokens(name, _joined(kept))
        own = [memories[place] for place in group]
        found = judge_tokens(detector, less, [one.tokens for one in own], [one.looked for one in own])
        seen |= dict(zip(group.tolist(), found, strict=True))
    return [seen[place] for place in range(len(memories))]


def _judge_copies(
    detector: Detector,
    view: View,
    reference: Reference,
    pictures: Sequence[Given],
    progress: Progress,
    *,
    alone: bool,
) -> list[Seen]:
    if len(pictures) > COPIED:
        return []
    each = max(1, MOST_COPIES // len(pictures))
    seen: list[Seen] = []
    for number, picture in enumerate(pictures):
        progress("moving and lighting", number, len(pictures))
        # Another kind of change for each picture, so that few copies show all kinds.
        made = list(copies(as_picture(picture), moved=alone))
        chosen = [made[(number * each + step) % len(made)] for step in range(min(each, len(made)))]
        seen += judge(detector, reference, [view.look(copy) for copy in chosen])
    return seen


def _peaks(seen: Sequence[Seen]) -> list[float]:
    return [one.peak for one in seen if one.peak is not None]


def judged_normals(detector: Detector, view: View, reference: Reference, pictures: Iterable[Given]) -> Evidence:
    """Good pictures that are not remembered, one after the other."""
    scores, peaks = [], []
    for picture in pictures:
        (seen,) = judge(detector, reference, [view.look(as_picture(picture))])
        scores.append(seen.score)
        peaks += _peaks([seen])
    return Evidence(tuple(scores), tuple(peaks), (), ())
