"""How predictions grow with workers: pictures a second of 1 and 2 processes, with and without Ray, and after a loss.

    python benchmarks/scaling.py [--pictures 40] [--backbone compact] [--workers 1,2] [--json PATH] [--quick]

A detector is fitted on four drawn pictures; `--pictures` drawn PNG files are scored into a folder of their own for each
row, every worker with one thread. `rate` is steady: pictures a second once a quarter of the blocks is written; the
`seconds` of a row hold everything, the start of the workers too. Every row's results are compared with those of one
process; the row `killed` loses a worker in the middle of a block. `--quick` takes the tiny random backbone.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sowa.metrics import write_json


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


def kill_one(block_number: int) -> None:
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


def measured(home: Path, name: str, workers: int, block: int, **options: Any) -> dict[str, Any]:
    """One row: a whole run into a new folder."""
    from sowa.scale.run import predict_many

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
    parser.add_argument("--repeats", type=int, default=2, help="of the rows without Ray (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="the tiny random backbone, one repeat")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    if options.quick:
        options.backbone, options.repeats = "random_tiny", 1
    with tempfile.TemporaryDirectory(prefix="sowa-scaling-") as name:
        figures = measure(Path(name), options)
    for row in figures["rows"]:
        print(json.dumps(row))
    print(json.dumps(figures["ratios"]))
    if options.json:
        write_json(options.json, figures)


def looking(home: Path, picture: Path) -> float:
    """Pictures a second that one thread decodes and brings to the model's size, median of ten."""
    import sowa

    predictor, seconds = sowa.load(home / "detector.sowa"), []
    for _ in range(10):
        began = time.perf_counter()
        predictor._look(str(picture), str(picture))
        seconds.append(time.perf_counter() - began)
    return 1 / statistics.median(seconds)


def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    import sowa

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    (home / "pictures").mkdir()
    draw(home / "pictures", options.pictures, options.side)
    good = [home / f"pictures/{number:05d}.png" for number in range(3)]
    sowa.fit(good, name="plate", backbone=options.backbone).save(home / "detector.sowa")
    rows: list[dict[str, Any]] = []
    look = looking(home, good[0])
    for _ in range(options.repeats):
        for workers in (1, 2):
            rows.append(measured(home, f"processes_{workers}", workers, options.block))
    if find_spec("ray") is not None:
        for workers in (1, 2):
            rows.append(measured(home, f"ray_{workers}", workers, options.block, ray="local"))
    kill_one(options.pictures // options.block // 2)
    rows.append(measured(home, "killed", 2, options.block))
    expected = rows[0]["results"]
    for row in rows:
        row["same_results"] = row.pop("results") == expected
    names = {row["row"] for row in rows}
    rate = {name: statistics.median(row["rate"] for row in rows if row["row"] == name) for name in names}
    ratios = {
        f"{kind}_2_over_1": rate[f"{kind}_2"] / rate[f"{kind}_1"]
        for kind in ("processes", "ray")
        if f"{kind}_2" in rate
    }
    return {
        "name": "scaling",
        "rows": [{**row, "backbone": options.backbone, "side": options.side, "block": options.block} for row in rows],
        "ratios": {**ratios, "all_same_results": all(row["same_results"] for row in rows)},
        "decoded_per_second": look,
        "hardware": {
            "cores": os.cpu_count(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "platform": platform.machine(),
            "threads_per_worker": 1,
            "load_before": load,
            "torch": torch.__version__,
        },
    }


if __name__ == "__main__":
    main()
