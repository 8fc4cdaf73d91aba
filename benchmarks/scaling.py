"""How predictions grow with workers: pictures a second of 1 and 2 processes, with and without Ray, and after a loss.

    python benchmarks/scaling.py [--pictures 40] [--backbone compact] [--workers 1,2] [--json PATH] [--quick]

A detector is fitted on four drawn pictures; `--pictures` drawn PNG files are scored into a folder of their own for each
row, every worker with one thread. `rate` is steady: pictures a second once a quarter of the blocks is written; the
`seconds` of a row hold everything, the start of the workers too. Every row's results are compared with those of one
process; the row `killed` loses a worker in the middle of a block. On a busy machine look at `core_seconds_per_picture`,
the processor's time without the start of the workers: two workers should not need more of it than one. `load_before` is
the machine's load average. `--quick` takes the tiny random backbone.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sowa.metrics import write_json

ROWS = {
    "processes_1": (1, None),
    "processes_2": (2, None),
    "killed": (2, None),
    "ray_1": (1, "local"),
    "ray_2": (2, "local"),
}
"""Row -> (workers, Ray or not)."""


def draw(folder: Path, count: int, side: int) -> None:
    """Plates with a little noise; every fourth has a spot."""
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = generator.integers(100, 140, (8, 8, 3), dtype=np.uint8).repeat(side // 8, 0).repeat(side // 8, 1)
        pixels = coarse.astype(np.int16) + generator.integers(-5, 6, coarse.shape)
        if number % 4 == 3:
            pixels[side // 3 : side // 2, side // 3 : side // 2] = 230
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.png")


def results(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "milliseconds"} for row in rows]


@contextmanager
def killing(block_number: int) -> Iterator[None]:
    """The worker that is given this block is killed a moment later, the first time."""
    from sowa.scale import local

    give, left = local._Worker.give, {block_number}

    def deadly(self: Any, block: Any) -> None:
        give(self, block)
        if block.number in left:
            left.remove(block.number)
            time.sleep(0.1)
            self.process.kill()

    local._Worker.give = deadly
    try:
        yield
    finally:
        local._Worker.give = give


def measured(home: Path, name: str, workers: int, block: int, **options: Any) -> dict[str, Any]:
    """One row: a whole run into a new folder."""
    from sowa.scale.run import predict_many

    load = os.getloadavg()[0]
    out, marks = home / f"out-{name}-{time.monotonic_ns()}", []
    began = time.perf_counter()
    outcome = predict_many(
        str(home / "detector.sowa"),
        [str(home / "pictures")],
        str(out),
        workers=workers,
        threads=1,
        block=block,
        progress=lambda done, total: marks.append((time.perf_counter(), done)),
        **options,
    )
    seconds = time.perf_counter() - began
    (first, early), (last, total) = marks[len(marks) // 4], marks[-1]  # all workers are there by then
    return {
        "row": name,
        "workers": workers,
        "pictures": total,
        "seconds": seconds,
        "rate": (total - early) / (last - first),
        "core_seconds_per_picture": outcome.core_seconds / outcome.pictures,
        "load_before": load,
        "lost_workers": outcome.lost,
        "results": results(out),
        "bytes_per_row": (out / "results.jsonl").stat().st_size / total,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of a picture in pixels (%(default)s)")
    parser.add_argument("--backbone", default="compact", help="(%(default)s)")
    parser.add_argument("--block", type=int, default=2, help="pictures of a block (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="of all rows (%(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help="by comma (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="the tiny random backbone, one repeat")
    parser.add_argument("--json", type=Path, help="write the figures here, too, after every row")
    options = parser.parse_args(argv)
    if options.quick:
        options.backbone, options.repeats = "random_tiny", 1
    if unknown := set(options.rows.split(",")) - ROWS.keys():
        parser.error(f"unknown rows {', '.join(sorted(unknown))}: choose of {', '.join(ROWS)}")
    with tempfile.TemporaryDirectory(prefix="sowa-scaling-") as name:
        for figures in measure(Path(name), options):
            print(json.dumps(figures["rows"][-1]), flush=True)
            if options.json:
                write_json(options.json, figures)
    print(json.dumps(figures["ratios"]))


def looking(home: Path, picture: Path) -> float:
    """Pictures a second that one thread decodes and brings to the model's size, median of ten."""
    import sowa

    predictor, seconds = sowa.load(home / "detector.sowa"), []
    for _ in range(10):
        began = time.perf_counter()
        predictor._look(str(picture), str(picture))
        seconds.append(time.perf_counter() - began)
    return 1 / statistics.median(seconds)


def measure(home: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The figures after each row."""
    import torch

    import sowa

    torch.set_num_threads(1)
    (home / "pictures").mkdir()
    draw(home / "pictures", options.pictures, options.side)
    good = [home / f"pictures/{number:05d}.png" for number in range(3)]
    sowa.fit(good, name="plate", backbone=options.backbone).save(home / "detector.sowa")
    figures = {
        "name": "scaling",
        "rows": [],
        "ratios": {},
        "decoded_per_second": looking(home, good[0]),
        "hardware": {
            "cores": os.cpu_count(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "platform": platform.machine(),
            "threads_per_worker": 1,
            "torch": torch.__version__,
        },
    }
    about = {"backbone": options.backbone, "side": options.side, "block": options.block}
    expected = None
    for name in options.rows.split(",") * options.repeats:
        workers, ray = ROWS[name]
        if ray and find_spec("ray") is None:
            continue
        middle = options.pictures // options.block // 2
        with killing(middle) if name == "killed" else nullcontext():
            row = measured(home, name, workers, options.block, ray=ray)
        found = row.pop("results")
        expected = expected or found
        figures["rows"].append({**row, **about, "same_results": found == expected})
        figures["ratios"] = ratios(figures["rows"])
        yield figures


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of two workers to one of the same kind, medians."""
    names = {row["row"] for row in rows}
    found: dict[str, Any] = {"all_same_results": all(row["same_results"] for row in rows)}
    for key in ("rate", "core_seconds_per_picture"):
        middle = {name: statistics.median(row[key] for row in rows if row["row"] == name) for name in names}
        for kind in ("processes", "ray"):
            if {f"{kind}_1", f"{kind}_2"} <= names:
                found[f"{kind}_2_over_1_{key}"] = middle[f"{kind}_2"] / middle[f"{kind}_1"]
    return found


if __name__ == "__main__":
    main()
