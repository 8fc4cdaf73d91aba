"""How good SOWA Plus is: the locked images, five draws of shots, beside other methods; docs/QUALITY.md explains it.

    python benchmarks/quality.py [--part locked] [--out runs/quality] [--page docs/results/quality]

Fills the cells of `experiment=offline_quality` (a run that was cut short goes on), then measures what the cells do not
hold: false alarms at thresholds from normals alone, disturbed images, a defective shot, seconds and bytes. Towers
compute in bfloat16 unless told otherwise, what is done with their tokens in float32; all is fixed by seeds.
`--part development` is for choosing: other images, same code.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_page import write_page
from quality_trust import trust
from torch import Tensor

from sowa.backbones.vit import VitBackbone
from sowa.benchmark.jobs import Jobs
from sowa.benchmark.plan import Plan, load_experiment, plan_of
from sowa.benchmark.runner import run_benchmark
from sowa.benchmark.store import Store
from sowa.calibration import choose_cut
from sowa.data.images import read_image
from sowa.metrics import write_json
from sowa.metrics.functional import image_metrics
from sowa.training.record import machine_facts

ALL_SHOTS = ("sowa_plus", "sowa_plus_candidate")
"""Methods that run at every number of shots of the experiment; these two share their tokens."""
BESIDE = (0, 1, 4)
"""Shots of the others."""
TARGET = 0.02
"""False alarms that the thresholds aim at, as `sowa fit` does."""
DEVELOPMENT = {"test_good": 20, "test_bad": 28}


def plans(part: str, methods: list[str] | None, shots: list[int] | None = None) -> list[Plan]:
    """Ours with all shots, the others with some."""
    content = load_experiment("offline_quality")
    if part == "development":
        content["title"] = "SOWA Plus on the development images"
        content["data"] = {
            name: [_development(word) for word in words or ()] for name, words in content["data"].items()
        }
    chosen = {name: words for name, words in content["methods"].items() if methods is None or name in methods}
    content.pop("reference")
    parts = [
        ({name: words for name, words in chosen.items() if name in ALL_SHOTS}, content["shots"]),
        ({name: words for name, words in chosen.items() if name not in ALL_SHOTS}, list(BESIDE)),
    ]
    return [plan_of(content | {"methods": some, "shots": shots or own}, trained={}) for some, own in parts if some]


def _development(word: str) -> str:
    key, _, value = word.partition("=")
    count = DEVELOPMENT.get(key.rpartition(".")[2])
    return f"{key}={count}" if count else f"{key}={value.replace('locked', 'development')}"


def fill(plan: Plan, store: Store) -> None:
    began, said = time.monotonic(), [0.0]

    def tell(done: int, todo: int, what: str) -> None:
        if time.monotonic() - said[0] > 20:
            said[0] = time.monotonic()
            print(f"quality: {done}/{todo} images, {what}, {said[0] - began:.0f} s", flush=True)

    outcome = run_benchmark(plan, store, progress=tell)
    print(f"quality: {outcome.computed} cells computed, {outcome.found} found", flush=True)
    for line in outcome.failed:
        print(f"quality: failed: {line}", flush=True)


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


def brightness(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """The floor: how much darker an image is than its shots; at k = 0, how dark it is. As cells."""
    jobs, cells = Jobs(plan, store), []
    for choice in plan.data:
        target = jobs.target(choice)
        grey = {one.name: float(np.asarray(read_image(one.image).convert("L")).mean()) for one in target.samples}
        for category in target.categories():
            tests = target.test(category)
            for k in plan.shots:
                for seed in plan.seeds:
                    shots = [grey[one.name] for one in target.drawn[seed][category][:k]]
                    scores = [abs(grey[one.name] - np.mean(shots)) if k else -grey[one.name] for one in tests]
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


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Transformer towers compute under autocast to bfloat16 and hand out float32; nothing else does."""
    if name == "fp32":
        yield
        return
    blocks, normed = VitBackbone._run_blocks, VitBackbone._run_normed

    def run_blocks(self: VitBackbone, pixels: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            cls_BE, levels = blocks(self, pixels, indices)
        return cls_BE.float(), [level.float() for level in levels]

    def run_normed(self: VitBackbone, pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            found = normed(self, pixels, indices)
        return [(cls_BD.float(), patches_BLD.float()) for cls_BD, patches_BLD in found]

    VitBackbone._run_blocks, VitBackbone._run_normed = run_blocks, run_normed
    try:
        yield
    finally:
        VitBackbone._run_blocks, VitBackbone._run_normed = blocks, normed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("locked", "development"), default="locked")
    parser.add_argument("--methods", help="by comma; all of the experiment")
    parser.add_argument("--shots", help="by comma; 0,1,2,4,8 for SOWA Plus and 0,1,4 for the others")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--page", type=Path, help="folder of the page; none is written without it")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of the towers (%(default)s)")
    parser.add_argument("--no-trust", action="store_true", help="only the cells and their table")
    given = parser.parse_args()
    with precision(given.precision):
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Everything that was asked for; cells of one precision lie in one folder."""
    began = time.monotonic()
    store = Store(given.out / f"{given.part}-{given.precision}")
    methods = given.methods.split(",") if given.methods else None
    all_plans = plans(given.part, methods, [int(one) for one in given.shots.split(",")] if given.shots else None)
    for plan in all_plans:
        fill(plan, store)
    wanted = {method.name for plan in all_plans for method in plan.methods}
    cells = [cell for cell in store.cells()[0] if cell["method"] in wanted]
    cells += brightness(replace(all_plans[0], shots=BESIDE), store)
    for cell in cells:
        cell["alarms"] = false_alarms(cell)
    found = {} if given.no_trust else trust(all_plans[0], store, given.page)
    about = {
        "part": given.part,
        "date": date.today().isoformat(),
        "command": f"python benchmarks/quality.py --part {given.part} --precision {given.precision}",
        "precision": given.precision,
        "seconds": round(time.monotonic() - began),
        "machine": machine_facts(),
    }
    write_json(given.out / f"{given.part}.json", {"about": about, "trust": found})
    write_page(cells, found, about, given.page or given.out / "page")


if __name__ == "__main__":
    main()
