"""What must hold before an exported file is kept: it says what the detector says, on pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw

from sowa.errors import ConfigError
from sowa.metrics.functional import auroc
from sowa.predictor.heat import Seen, encode_views, judge
from sowa.predictor.predictor import Predictor

__all__ = [
    "Drift",
    "Parity",
    "check_drift",
    "check_parity",
    "drift",
    "parity",
    "seen_by",
    "stand_ins",
    "with_another",
    "with_defect",
]

STAND_INS = 4
"""Drawn pictures, where no real ones are given."""
CHANGED = 0.05
"""Share of verdicts that int8 may change, and at least one."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest differences between two predictors over some pictures."""

    pictures: int
    score: float
    """As a share of the scale of scores: the threshold's size, or its distance to the middle of good parts."""
    heat: float | None
    """On the scale of heat maps, where 1 is the most that is expected of a good part; None without maps."""
    verdicts: int
    """How many verdicts differ."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What lower precision does to the ranking of good and defective pictures."""

    good: int
    defective: int
    painted: bool
    """Whether the defects were painted on the good pictures for want of real ones."""
    exact: float
    """Image AUROC of the detector."""
    exported: float
    changed: int
    """Verdicts that differ, of all pictures."""


def seen_by(predictor: Predictor, pictures: Sequence[Image.Image], *, batch_size: int = 4) -> list[Seen]:
    """Raw scores and maps, `batch_size` pictures at a time."""
    looked = [predictor.content.view.look(picture) for picture in pictures]
    found: list[Seen] = []
    for start in range(0, len(looked), batch_size):
        found += judge(predictor.detector, predictor.content.reference, looked[start : start + batch_size])
    return found


def parity(exact: Predictor, exported: Predictor, pictures: Sequence[Image.Image]) -> Parity:
    """Compared in batches of four and, for the first picture, alone: any batch must do."""
    wanted = seen_by(exact, pictures)
    found = seen_by(exported, pictures)
    wanted, found = [*wanted, wanted[0]], [*found, *seen_by(exported, pictures[:1])]
    scale, pairs = exact.content.calibration, list(zip(wanted, found, strict=True))
    size = max(abs(scale.threshold), abs(scale.threshold - scale.middle), 1e-12)
    heat = None
    if scale.pixel_threshold is not None and wanted[0].maps_TSS is not None:
        differences = [float((one.maps_TSS - other.maps_TSS).abs().max()) for one, other in pairs]
        heat = max(differences) / scale.pixel_threshold
    return Parity(
        pictures=len(pictures),
        score=max(abs(one.score - other.score) for one, other in pairs) / size,
        heat=heat,
        verdicts=sum((one.score > scale.threshold) != (other.score > scale.threshold) for one, other in pairs[:-1]),
    )


def with_another(
    exact: Predictor, exported: Predictor, pictures: Sequence[Image.Image]
) -> tuple[Predictor, Predictor] | None:
    """Both with another reference, of another size, learnt from the first pictures: a graph that takes references must
    serve all. On a scale of its own. None where nothing was learnt from pictures."""
    content, detector = exact.content, exact.detector
    shots = 1 + (sum(normal.use == "reference" for normal in content.normals) == 1)
    if not content.normals:
        return None
    views = [content.view.look(picture).views_T3SS for picture in (*pictures, *stand_ins(content.view.size))[:shots]]
    other = dict(detector.fit_tokens(content.name, encode_views(detector, torch.cat(views))))
    seen = seen_by(Predictor(detector, replace(content, reference=other)), pictures)
    scale = replace(
        content.calibration,
        threshold=max(max(abs(one.score) for one in seen), 1e-12),
        middle=0.0,
        pixel_threshold=max((float(one.maps_TSS.abs().max()) for one in seen if one.maps_TSS is not None), default=0)
        or None,
    )
    changed = [replace(one.content, reference=other, calibration=scale) for one in (exact, exported)]
    return Predictor(detector, changed[0]), Predictor(exported.detector, changed[1])


def check_parity(found: Parity, tolerance: float) -> None:
    """ConfigError past the tolerance."""
    worst = max(found.score, found.heat or 0.0)
    if not worst <= tolerance:  # also where it is not a number
        where = "score" if found.score == worst else "heat"
        raise ConfigError(
            f"nothing was written: {where} of the exported detector differs by {worst:.2g} from the detector's own over"
            f" {found.pictures} pictures, {tolerance:g} is allowed; give --tolerance, or predict with the .sowa file"
        )


def drift(
    exact: Predictor, exported: Predictor, good: Sequence[Image.Image], bad: Sequence[Image.Image] | None
) -> Drift:
    """Over good pictures and defective ones; None: the good ones with painted defects."""
    defective = [with_defect(picture, number) for number, picture in enumerate(good)] if bad is None else list(bad)
    pictures, labels = [*good, *defective], [0] * len(good) + [1] * len(defective)
    wanted = np.array([seen.score for seen in seen_by(exact, pictures)])
    found = np.array([seen.score for seen in seen_by(exported, pictures)])
    threshold = exact.content.calibration.threshold
    return Drift(
        good=len(good),
        defective=len(defective),
        painted=bad is None,
        exact=auroc(wanted, labels),
        exported=auroc(found, labels),
        changed=int(((wanted > threshold) != (found > threshold)).sum()),
    )


def check_drift(found: Drift, allowed: float) -> None:
    """ConfigError where int8 loses more AUROC than `allowed`, or changes more than 5 % of the verdicts (and one)."""
    lost = found.exact - found.exported
    if not lost <= allowed:
        raise ConfigError(
            f"nothing was written: int8 lowers image AUROC from {found.exact:.4f} to {found.exported:.4f},"
            f" {allowed:g} is allowed; give more --good pictures, give --drift, or leave out --int8"
        )
    total = found.good + found.defective
    if found.changed > max(1, math.floor(CHANGED * total)):
        raise ConfigError(
            f"nothing was written: int8 changes {found.changed} of {total} verdicts, one in twenty is allowed;"
            " give more --good pictures, or leave out --int8"
        )


def stand_ins(size: int) -> list[Image.Image]:
    """A few coloured pictures of smooth noise with an edge in each, always the same."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(STAND_INS):
        coarse = Image.fromarray(rng.integers(0, 256, (7 + 5 * number, 9, 3), dtype=np.uint8))
        picture = coarse.resize((size + 16, size), Image.Resampling.BICUBIC)
        pictures.append(with_defect(picture, number) if number % 2 else picture)
    return pictures


def with_defect(picture: Image.Image, number: int) -> Image.Image:
    """A copy with a scratch, a blot or a foreign patch; where and how large depends on `number` alone."""
    rng, marked = np.random.default_rng(number), picture.convert("RGB")
    width, height = marked.size
    side = max(4, round(min(width, height) * rng.uniform(0.05, 0.15)))
    x, y = (int(rng.integers(length // 5, max(length // 5 + 1, length * 4 // 5 - side))) for length in (width, height))
    shade = 20 if np.asarray(marked).mean() > 110 else 235
    draw = ImageDraw.Draw(marked)
    if number % 3 == 0:
        draw.line((x, y, x + 2 * side, y + side), fill=(shade,) * 3, width=max(1, side // 8))
    elif number % 3 == 1:
        draw.ellipse((x, y, x + side, y + side), fill=(shade,) * 3)
    else:
        checks = (np.add.outer(np.arange(side) // 3, np.arange(side) // 3) % 2 * 200 + 30).astype(np.uint8)
        marked.paste(Image.fromarray(checks).convert("RGB"), (x, y))
    return marked
