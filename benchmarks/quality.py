"""How good SOWA Plus is: the locked images, five draws of shots, beside other methods; docs/QUALITY.md explains it.

    python benchmarks/quality.py [--part locked] [--out runs/quality] [--page docs/results/quality]

Fills the cells of `experiment=offline_quality` (a run that was cut short goes on), then measures what the cells do not
hold: false alarms at thresholds from normals alone, disturbed images, a defective shot, seconds and bytes. Towers
compute in bfloat16 where the processor has it, what is done with their tokens in float32; all is fixed by seeds.
`--part development` is for choosing: other images, same code.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from quality_cost import cost
from quality_page import write_page
from quality_run import Work, alone, fill
from quality_trust import FIRST, MOST, contact_sheets

from sowa.benchmark.jobs import Jobs
from sowa.benchmark.plan import Plan, load_experiment, plan_of
from sowa.benchmark.runner import cells_found
from sowa.benchmark.store import Store
from sowa.calibration import choose_cut
from sowa.data.images import read_image
from sowa.metrics import write_json
from sowa.metrics.functional import image_metrics
from sowa.training.record import machine_facts

T = TypeVar("T")
TOGETHER = (
    ("sowa_plus", "sowa_plus_before", "nearest_dinov2"),
    ("sowa",),
    ("winclip",),
    ("spade", "padim", "patchcore"),
    ("sowa_plus_fast",),
)
"""Methods that share the pass of a tower stand together, others apart: what is held at once is their maps. The costly
ones come first, so that no process waits long for another in the end."""
BESIDE = (0, 1, 4)
"""Shots of the brightness row."""
STEPS = ("decode", "tower", "score", "metrics")
TARGET = 0.02
"""False alarms that the thresholds aim at, as `sowa fit` does."""
DEVELOPMENT = {"test_good": 20, "test_bad": 28}
OBJECTS = [
    "data=demo",
    "data.target.draw.part=objects",
    "data.target.draw.train_good=16",
    "data.target.draw.test_good=20",
    "data.target.draw.test_bad=28",
    "data.target.draw.size=512",
    "data.auxiliary.draw.part=training",
]
"""Development alone: drawn objects, lots of products that the head has seen, for what the head has no part in."""


def plans(
    part: str,
    methods: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    *,
    precision: str = "auto",
    limit: int | None = None,
) -> list[Plan]:
    """The experiment, cut into the groups of TOGETHER; methods that stand in none are a group of their own each."""
    content = load_experiment("offline_quality") | {"precision": precision, "limit": limit}
    if part == "development":
        content["title"] = "SOWA Plus on the development images"
        content["data"] = {
            name: [_development(word) for word in words or ()] for name, words in content["data"].items()
        } | {"objects": OBJECTS}
    chosen = {name: words for name, words in content["methods"].items() if methods is None or name in methods}
    content.pop("reference")
    if shots:
        content |= {"shots": list(shots), "shots_of": {}}
    groups = [*TOGETHER, *((name,) for name in chosen if not any(name in group for group in TOGETHER))]
    data = {name: words for name, words in content["data"].items() if name != FIRST}
    return [
        plan_of(content | {"methods": some, "data": content["data"] if "sowa_plus" in some else data}, trained={})
        for group in groups
        if (some := {name: chosen[name] for name in group if name in chosen})
    ]


def _development(word: str) -> str:
    key, _, value = word.partition("=")
    count = DEVELOPMENT.get(key.rpartition(".")[2])
    return f"{key}={count}" if count else f"{key}={value.replace('locked', 'development')}"


def false_alarms(cell: dict[str, Any]) -> tuple[float, float] | None:
    """(share of normal test images, share of defective ones) above the threshold that the shots' own scores set; at
    k = 0 above 0.5, for methods whose scores are probabilities there."""
    scores = np.array([one["score"] for one in cell["scores"]])
    labels = np.array([int(one["label"]) for one in cell["scores"]])
    own = cell.get("support", {}).get("scores", [])
    if cell["k"] == 0 and cell["method"].startswith(("sowa", "winclip")):
        threshold = 0.5
    elif own:
        spread = cell["support"]["expected_spread"]
        threshold = choose_cut(own, target=TARGET, largest=True, images=cell["k"], expected=spread).threshold
    else:
        return None
    return float((scores[labels == 0] > threshold).mean()), float((scores[labels == 1] > threshold).mean())


def brightness(jobs: Jobs, shots: Sequence[int]) -> list[dict[str, Any]]:
    """The floor: how much darker an image is than its shots; at k = 0, how dark it is. As cells."""
    plan, cells = jobs.plan, []
    for choice in plan.data:
        target = jobs.target(choice)
        grey = {one.name: float(np.asarray(read_image(one.image).convert("L")).mean()) for one in target.samples}
        for category in target.categories():
            tests = target.test(category)
            for k in shots:
                for seed in plan.seeds:
                    taught = [grey[one.name] for one in target.drawn[seed][category][:k]]
                    scores = [abs(grey[one.name] - np.mean(taught)) if k else -grey[one.name] for one in tests]
                    rows = [
                        {"image": one.name, "label": one.label, "score": float(score)}
                        for one, score in zip(tests, scores, strict=True)
                    ]
                    cells.append(
                        {
                            "method": "brightness",
                            "dataset": choice.name,
                            "category": category,
                            "k": k,
                            "seed": seed,
                            "metrics": image_metrics(scores, [one.label for one in tests]),
                            "scores": rows,
                        }
                    )
    return cells


def seconds_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Method -> seconds of its cells, by what was done; of any run that computed them, summed over processes."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        spent = found.setdefault(cell["method"], dict.fromkeys(STEPS, 0.0))
        for name, value in cell.get("spent", {}).items():
            spent[name] += value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("locked", "development"), default="locked")
    parser.add_argument("--methods", help="by comma; all of the experiment")
    parser.add_argument("--shots", help="by comma, for all methods; else as the experiment says")
    parser.add_argument("--limit", type=int, help="test images of each category and label: for trying, not for figures")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--page", type=Path, help="folder of the page; OUT/page if not given")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the towers (%(default)s)"
    )
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="(%(default)s)")
    parser.add_argument("--no-trust", action="store_true", help="only the cells and their table")
    measure(parser.parse_args(), sys.argv[1:])


def measure(given: argparse.Namespace, words: Sequence[str]) -> None:
    """Everything that was asked for; cells of one part and precision lie in one folder."""
    began = time.monotonic()
    store = Store(given.out / f"{given.part}-{given.precision}")
    methods = given.methods.split(",") if given.methods else None
    shots = [int(one) for one in given.shots.split(",")] if given.shots else None
    all_plans = plans(given.part, methods, shots, precision=given.precision, limit=given.limit)
    ours = all_plans[0].methods[0].name.startswith("sowa_plus") and not given.no_trust
    all_jobs = [Jobs(plan, store) for plan in all_plans]
    work = Work(tuple(all_plans), store.folder, trust=MOST if ours else 0)
    found, seconds, failed = fill(work, all_jobs, given.processes)
    for line in dict.fromkeys(failed):
        print(f"quality: failed: {line}", flush=True)
    cells = [cell for jobs in all_jobs for cell in cells_found(jobs)]
    parts = {"cells": seconds_of(cells), "beside": seconds}
    cells += timed("brightness", seconds, lambda: brightness(all_jobs[0], tuple(shots or BESIDE)))
    for cell in cells:
        cell["alarms"] = false_alarms(cell)
    page = given.page or given.out / "page"
    trust = {}
    if ours:
        sheets = timed("contact sheets", seconds, lambda: contact_sheets(alone(all_jobs[0]), cells, page))
        costs = timed("measuring seconds", seconds, lambda: cost(all_jobs))
        trust = {"parts": found, "most": MOST, "sheets": sheets, "cost": costs}
    about = {
        "part": given.part,
        "date": date.today().isoformat(),
        "command": " ".join(["python benchmarks/quality.py", *_without_places(words)]),
        "precision": sorted({cell["backbone"].get("precision", "fp32") for cell in cells if "backbone" in cell}),
        "wall": round(time.monotonic() - began),
        "processes": given.processes,
        "seconds": parts,
        "failed": sorted(set(failed)),
        "limit": given.limit,
        "machine": machine_facts(),
    }
    write_json(given.out / f"{given.part}.json", {"about": about, "trust": trust})
    write_page(cells, trust, about, page)
    print(f"quality: {len(cells)} cells, {time.monotonic() - began:.0f} s, page in {page}", flush=True)


def _without_places(words: Sequence[str]) -> list[str]:
    """Where a run lay is nobody's business."""
    return [
        word
        for before, word in zip(("", *words), words, strict=False)
        if not {before, word.partition("=")[0]} & {"--out", "--page"}
    ]


def timed(name: str, seconds: dict[str, float], run: Callable[[], T]) -> T:
    """What `run` gives; its seconds are noted."""
    began = time.monotonic()
    found = run()
    seconds[name] = time.monotonic() - began
    return found


if __name__ == "__main__":
    main()
