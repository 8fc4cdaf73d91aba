"""Milliseconds a picture of a detector in torch, onnxruntime and OpenVINO, in float32 and in int8, batch 1 and 8.

    python benchmarks/export_latency.py --json PATH [--quick] [--work DIR] [--prepare] [--good DIR --defects DIR]

Each case is fitted on four good pictures and exported; what is timed is the way from uint8 pictures of the model's size
to score and map, without decoding. The runtimes take turns within each round, so that whatever else the machine does
meets all of them; medians over the rounds. `--good` and `--defects`: folders of real pictures for the fit, the gates
and the scales of int8; else drawn ones. `--work` keeps the exported files: `--prepare` makes them and times nothing,
a second run only times. `--quick`: the default method alone, fewer rounds.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sowa.data.drawn import CATEGORIES, draw_sample
from sowa.errors import ConfigError
from sowa.export import export_detector
from sowa.export.writing import KINDS
from sowa.metrics import write_json
from sowa.predictor.predictor import Predictor

CASES = (("sowa_plus", "compact"), ("sowa", "compact"), ("patchcore", "compact"), ("padim", "compact_cnn"))
BATCHES = (1, 8)
SHOTS, TESTED = 4, 28
EXPORTS = tuple((kind, int8) for kind in KINDS for int8 in (False, True))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the default method alone, fewer rounds")
    parser.add_argument("--work", type=Path, help="where exported files are kept; else thrown away")
    parser.add_argument("--prepare", action="store_true", help="export and stop")
    parser.add_argument("--good", type=Path, help="folder of good pictures")
    parser.add_argument("--defects", type=Path, help="folder of defective pictures")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(%(default)s)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    cases, rounds = (CASES[:1], 5) if options.quick else (CASES, 15)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        rows: list[dict[str, Any]] = []
        for case in cases:
            gates = prepared(case, work, options.good, options.defects)
            if not options.prepare:
                rows += [row | gates.get(row["runtime"], {}) for row in timed(case, work, rounds)]
    if options.prepare:
        return
    result = {"name": "export_latency", "rows": rows, "ratios": ratios(rows), "hardware": hardware(options.threads)}
    write_json(options.json, result)
    print(table(rows))


def prepared(case: tuple[str, str], work: Path, good: Path | None, defects: Path | None) -> dict[str, dict[str, Any]]:
    """Files of a case, made where they are not there yet; what the gates measured, by runtime."""
    name = "-".join(case)
    fitted, found = work / f"{name}.sowa", {}
    normals, bad = pictures(good, defects)
    work.mkdir(parents=True, exist_ok=True)
    if not fitted.exists():
        Predictor.fit(normals[:SHOTS], name="part", model=case[0], backbone=case[1]).save(fitted)
    for kind, int8 in EXPORTS:
        report = work / f"{name}-{label(kind, int8)}.json"
        if not report.exists():
            try:
                made = export_detector(
                    Predictor.load(fitted), place(work, case, kind, int8), to=kind, int8=int8, good=normals, defects=bad
                )
                write_json(report, made.record())
            except ConfigError as error:
                write_json(report, {"refused": str(error)})
        found[label(kind, int8)] = said(json.loads(report.read_text()))
    return found


def said(record: dict[str, Any]) -> dict[str, Any]:
    if "refused" in record:
        return {"refused": record["refused"]}
    drift = record["drift"] or {}
    return {
        "megabytes": round(record["bytes"] / 1e6, 1),
        "score_difference": record["parity"]["score"],
        "heat_difference": record["parity"]["heat"],
        "auroc_before": drift.get("exact"),
        "auroc": drift.get("exported"),
        "verdicts_changed": drift.get("changed"),
    }


def timed(case: tuple[str, str], work: Path, rounds: int) -> list[dict[str, Any]]:
    """A row for each runtime and batch."""
    exact = Predictor.load(work / f"{'-'.join(case)}.sowa")
    runs = {"torch": scorer(exact)}
    for kind, int8 in EXPORTS:
        path = place(work, case, kind, int8)
        if path.exists():
            runs[label(kind, int8)] = scorer(Predictor.load(path))
    size, generator, rows = exact.content.view.size, np.random.default_rng(0), []
    for batch in BATCHES:
        views = torch.from_numpy(generator.integers(0, 256, (batch, 3, size, size), dtype=np.uint8))
        for run in runs.values():
            run(views)
        took: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run(views)
                took[name].append(1000 * (time.perf_counter() - began) / batch)
        rows += [
            {
                "method": case[0],
                "backbone": case[1],
                "runtime": name,
                "batch": batch,
                "milliseconds": round(statistics.median(values), 2),
                "fastest": round(min(values), 2),
            }
            for name, values in took.items()
        ]
    return rows


def scorer(predictor: Predictor) -> Callable[[torch.Tensor], Any]:
    detector, reference = predictor.detector, predictor.content.reference

    def run(views: torch.Tensor) -> None:
        with torch.no_grad():
            detector(views, reference)

    return run


def place(work: Path, case: tuple[str, str], kind: str, int8: bool) -> Path:
    return work / f"{'-'.join(case)}-{label(kind, int8)}{KINDS[kind][0]}"


def label(kind: str, int8: bool) -> str:
    return f"{kind} int8" if int8 else kind


def pictures(good: Path | None, defects: Path | None) -> tuple[list[Image.Image], list[Image.Image]]:
    """Good ones, the first of which are learnt from, and defective ones."""
    if good is not None and defects is not None:
        kept = ((good, SHOTS + TESTED), (defects, TESTED))
        normals, bad = (
            [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())[:count]] for folder, count in kept
        )
        return normals, bad
    flaws = CATEGORIES["cap"].defects
    drawn = [
        draw_sample("cap", seed=0, index=index, defect=None if index < SHOTS + TESTED else flaws[index % len(flaws)])
        for index in range(SHOTS + 2 * TESTED)
    ]
    made = [Image.fromarray(pixels) for pixels, _ in drawn]
    return made[: SHOTS + TESTED], made[SHOTS + TESTED :]


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast as torch."""
    known = {(row["method"], row["batch"], row["runtime"]): row["milliseconds"] for row in rows}
    return {
        f"{method}, batch {batch}: torch / {runtime}": round(known[method, batch, "torch"] / value, 2)
        for (method, batch, runtime), value in known.items()
        if runtime != "torch"
    }


def hardware(threads: int) -> dict[str, Any]:
    versions = {"torch": torch.__version__}
    for name in ("onnxruntime", "openvino", "nncf"):
        versions[name] = __import__(name).__version__
    return {
        "processors": os.cpu_count(),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| method | runtime | batch 1, ms | batch 8, ms a picture |", "|---|---|---|---|"]
    known = {(row["method"], row["backbone"], row["runtime"], row["batch"]): row["milliseconds"] for row in rows}
    for method, backbone, runtime in dict.fromkeys(key[:3] for key in known):
        one, eight = (known[method, backbone, runtime, batch] for batch in BATCHES)
        lines.append(f"| {method} on {backbone} | {runtime} | {one:.1f} | {eight:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
