"""Memory of a long stream: how much larger the process is at the end than after the first pictures.

    python benchmarks/flat_memory.py [--count 10000] [--backbone random_tiny] [--side 512] [--json PATH]

A detector is fitted on four drawn pictures; `--count` pictures of `--side` pixels are then drawn one after the other
and predicted from one `Predictor.stream`. The resident size is read after the first 500 pictures and at the end.
Linux only.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import sowa
from sowa.metrics import write_json

WARM = 500


def resident_bytes() -> int:
    """Of this process, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def pictures(count: int, side: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = generator.integers(90, 110, (8, 8, 3), dtype=np.uint8)
        yield coarse.repeat(side // 8, axis=0).repeat(side // 8, axis=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="pictures (%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of a picture in pixels (%(default)s)")
    parser.add_argument("--backbone", default="random_tiny", help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    detector = sowa.fit(list(pictures(4, options.side)), backbone=options.backbone)
    warm, began = resident_bytes(), time.perf_counter()
    for number, _ in enumerate(detector.stream(pictures(options.count, options.side)), start=1):
        if number == min(WARM, options.count // 2):
            warm = resident_bytes()
    figures = {
        "pictures": options.count,
        "side": options.side,
        "backbone": options.backbone,
        "megabytes_after_warming": round(warm / 1e6, 1),
        "megabytes_at_the_end": round(resident_bytes() / 1e6, 1),
        "ratio": round(resident_bytes() / warm, 3),
        "pictures_per_second": round(options.count / (time.perf_counter() - began), 1),
    }
    print(json.dumps(figures))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
