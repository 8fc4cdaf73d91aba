"""How often good parts are called defective, against what a fit on k good pictures promises.

    python benchmarks/false_alarms.py [--part development|report] [--sets elpv_mono ...] [--draws 20] [--json PATH]

From every set `--draws` nested draws of good pictures are taken. Each draw is learnt exactly as `sowa.fit` does, its
threshold is set from those pictures alone for a false-alarm rate of 2 % and of 1 %, and all other good pictures of the
set are judged by it, and some defective ones. Each picture is encoded once, whatever the number of draws.

Sets: ELPV's solar cells, where the rest of the shots' own modules and cells of other modules are judged separately, and
drawn categories, each one production lot. Rules of calibration were chosen on the part `development`; the part `report`
shares no picture with it.
"""

import argparse
import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sowa.backbones import build_backbone
from sowa.data.drawn import draw_dataset
from sowa.data.layouts import read_samples
from sowa.data.roots import elpv_root
from sowa.data.shots import draw_shots
from sowa.detectors import build_detector
from sowa.detectors.base import Detector
from sowa.metrics import write_json
from sowa.predictor.heat import encode_views
from sowa.predictor.learn import Evidence, remember
from sowa.predictor.pictures import as_picture
from sowa.predictor.scale import Known, from_evidence
from sowa.predictor.view import View
from sowa.types import Reference, Sample, Tokens
from sowa.wheels import cache_root

TARGETS = (0.02, 0.01)
SHOTS = (1, 2, 4, 8, 16)
MORE_SHOTS = 60
"""Of solar cells too."""
PARTS = {
    "development": ("elpv_mono", "elpv_poly", "cap", "mesh"),
    "report": ("elpv_mono", "elpv_poly", "blister", "cable", "leather", "lawn"),
}
ALL_ALARMS = 0.8
"""Share of good pictures called defective from which a verdict says "everything defective"."""
SAME, OTHER = "same lot", "other lots"
BATCH = 16


@dataclass(frozen=True)
class Pictures:
    """pool: good pictures, of which shots are drawn and the others judged. others: good ones of other lots."""

    pool: list[Sample]
    others: list[Sample]
    bad: list[Sample]


@dataclass(frozen=True)
class Draw:
    """Raw scores after one draw."""

    k: int
    seed: int
    evidence: Evidence
    known: Known
    good: dict[str, list[float]]
    bad: list[float]


def elpv(kind: str, part: str, most: int) -> Pictures:
    """report: shots of ten modules, others of the second and fourth quarter of the cells; development: the first and
    third quarter without those ten modules."""
    samples = [one for one in read_samples(elpv_root(), "elpv") if one.category == kind]
    cells = sorted((one for one in samples if one.split == "test" and not one.label), key=lambda one: one.name)
    bad = sorted((one for one in samples if one.label), key=lambda one: one.name)
    own, foreign = _quarters(cells, (0, 2)), _quarters(cells, (1, 3))
    if part == "development":
        pool = [replace(one, split="train") for one in _spread(own, 2 * most)]
        return Pictures(pool, [], _spread(_quarters(bad, (0, 2)), most))
    pool = _spread([one for one in samples if one.split == "train"], 3 * most)
    return Pictures(pool, _spread(foreign, most), _spread(_quarters(bad, (1, 3)), most))


def drawn(category: str, most: int) -> Pictures:
    root = cache_root(None) / "datasets" / f"false-alarms-{category}-{most}"
    draw_dataset(root, seed=7, categories=[category], train_good=2 * most, test_good=1, test_bad=most, size=448)
    samples = list(read_samples(root, "mvtec"))
    pool = [one for one in samples if one.split == "train"]
    return Pictures(pool, [], [one for one in samples if one.label])


def _quarters(samples: Sequence[Sample], which: Sequence[int]) -> list[Sample]:
    count = len(samples)
    return [one for quarter in which for one in samples[quarter * count // 4 : (quarter + 1) * count // 4]]


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    count = min(most, len(samples))
    return [samples[place * len(samples) // count] for place in range(count)]


def encode_once(detector: Detector) -> Callable[[], None]:
    """Let the detector remember the tokens of every picture by its pixels; returns what forgets them."""
    encode, known = detector.encode, {}

    def remembered(images_B3HW: Tensor) -> Tokens:
        keys = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images_B3HW]
        for key, image in zip(keys, images_B3HW, strict=True):
            if key not in known:
                known[key] = encode(image[None])
        found = [known[key] for key in keys]
        return type(found[0]).join(found)

    detector.encode = remembered
    return known.clear


def draws_of(
    detector: Detector, name: str, pictures: Pictures, shots: Sequence[int], seeds: Iterable[int]
) -> list[Draw]:
    """All draws of a set; a number of shots that leaves fewer than 20 pictures of the pool is skipped."""
    view, found = View(detector.backbone.image_size), []
    everything = [*pictures.pool, *pictures.others, *pictures.bad]
    tokens = {one.name: encode_views(detector, view.look(as_picture(one.image)).views_T3SS) for one in everything}

    def scores_of(reference: Reference, samples: Sequence[Sample]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(samples), BATCH):
            own = [tokens[one.name] for one in samples[start : start + BATCH]]
            with torch.no_grad():
                scores += detector.score(type(own[0]).join(own), reference).score.tolist()
        return scores

    for seed in seeds:
        for k in shots:
            if k + 20 > len(pictures.pool):
                continue
            chosen = draw_shots(pictures.pool, dataset="false alarms", k=k, seed=seed)[pictures.pool[0].category]
            names = {one.name for one in chosen}
            rest = [one for one in pictures.pool if one.name not in names]
            reference, evidence = remember(detector, view, name, [one.image for one in chosen], lambda *_: None)
            level = reference["support_level"].item() if "support_level" in reference else None
            good = {SAME: scores_of(reference, rest)}
            if pictures.others:
                good[OTHER] = scores_of(reference, pictures.others)
            bad = scores_of(reference, pictures.bad)
            found.append(Draw(k, seed, evidence, Known(detector.spread_beside(reference), level), good, bad))
    return found


def rows_of(name: str, draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """One row for each k, target and kind of good pictures: rates over the draws."""
    rows = []
    none = Evidence((), (), (), ())
    for k in sorted({draw.k for draw in draws}):
        for target in TARGETS:
            cell = [draw for draw in draws if draw.k == k]
            cuts = [
                from_evidence(draw.evidence, none, shots=k, target=target, known=draw.known).threshold for draw in cell
            ]
            recalls = [_above(draw.bad, cut) for draw, cut in zip(cell, cuts, strict=True)]
            for kind in cell[0].good:
                rates = [_above(draw.good[kind], cut) for draw, cut in zip(cell, cuts, strict=True)]
                silent = [max((*draw.good[kind], *draw.bad)) <= cut for draw, cut in zip(cell, cuts, strict=True)]
                rows.append(_row(name, kind, k, target, rates, recalls, silent))
    return rows


def _row(
    name: str, kind: str, k: int, target: float, rates: list[float], recalls: list[float], silent: list[bool]
) -> dict[str, Any]:
    return {
        "set": name,
        "judged": kind,
        "k": k,
        "target": target,
        "draws": len(rates),
        "mean": statistics.fmean(rates),
        "median": float(np.quantile(rates, 0.5)),
        "q90": float(np.quantile(rates, 0.9)),
        "worst": max(rates),
        "recall": statistics.fmean(recalls),
        "everything_defective": sum(rate > ALL_ALARMS for rate in rates),
        "nothing_ever": sum(silent),
    }


def _above(scores: Sequence[float], threshold: float) -> float:
    if not math.isfinite(threshold) or not all(map(math.isfinite, scores)):
        raise SystemExit("a score or a threshold is not a finite number")
    return sum(score > threshold for score in scores) / len(scores)


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| set | judged | k | target | mean | median | 90 % | worst | recall | everything defective | nothing ever |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{100 * row[key]:.1f}" for key in ("mean", "median", "q90", "worst", "recall"))
        counts = f"{row['everything_defective']} of {row['draws']} | {row['nothing_ever']} of {row['draws']}"
        lines.append(f"| {row['set']} | {row['judged']} | {row['k']} | {row['target']:.0%} | {shares} | {counts} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--part", choices=PARTS, default="report", help="(%(default)s)")
    parser.add_argument("--sets", nargs="+", help="of the part; all of them unless given")
    parser.add_argument("--draws", type=int, default=20, help="of shots (%(default)s)")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="(%(default)s)")
    parser.add_argument("--pictures", type=int, default=30, help="defective, and of other lots, per set (%(default)s)")
    parser.add_argument("--model", default="sowa_plus", help="(%(default)s)")
    parser.add_argument("--backbone", default="compact", help="(%(default)s)")
    parser.add_argument("--image-size", type=int, help="in pixels; else the backbone's own (224 of compact)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--scores", type=Path, help="write the raw scores of every draw here, for trying rules")
    options = parser.parse_args(argv)
    detector = build_detector(
        options.model, backbone=build_backbone(options.backbone, image_size=options.image_size)
    ).eval()
    forget, rows, raw, began = encode_once(detector), [], {}, time.perf_counter()
    for name in options.sets or PARTS[options.part]:
        if name not in PARTS[options.part]:
            parser.error(f"{name} is no set of the part {options.part}: choose from {', '.join(PARTS[options.part])}")
        kind = name.removeprefix("elpv_")
        most = options.pictures
        pictures = elpv(kind, options.part, most) if name != kind else drawn(kind, most)
        shots = options.shots if name == kind else (*options.shots, MORE_SHOTS)
        draws = draws_of(detector, kind, pictures, shots, range(options.draws))
        forget()
        rows += rows_of(name, draws)
        raw[name] = [_plain(draw) for draw in draws]
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if options.json:
            write_json(options.json, {"part": options.part, "model": options.model, "rows": rows})
        if options.scores:
            write_json(options.scores, raw)
    print(table(rows))


def _plain(draw: Draw) -> dict[str, Any]:
    return {
        "k": draw.k,
        "seed": draw.seed,
        "scores": list(draw.evidence.scores),
        "copy_scores": list(draw.evidence.copy_scores),
        "moved": draw.evidence.moved,
        "expected": draw.known.expected,
        "good": draw.good,
        "bad": draw.bad,
    }


if __name__ == "__main__":
    main()
