"""Memory of a long stream: how much larger the process is at the end than after the first pictures.

    python benchmarks/flat_memory.py [--count 10000] [--backbone random_tiny] [--side 512] [--command] [--json PATH]

A detector is fitted on four drawn pictures; `--count` pictures of `--side` pixels are then drawn one after the other
and predicted from one `Predictor.stream`. The resident size is read after the first 500 pictures and at the end.
With `--command` the pictures are files and `sowa predict FILE.sowa FOLDER -o OUT` judges them in a process of its own,
whose resident size is read once it has written 500 results, and just before it ends. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import sowa
from sowa.metrics import write_json

WARM = 500


FILES = 100
"""Different files on disk; the others are links to them."""


def resident_bytes(process: int | str = "self") -> int:
    """Of a process, now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def pictures(count: int, side: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = generator.integers(90, 110, (8, 8, 3), dtype=np.uint8)
        yield coarse.repeat(side // 8, axis=0).repeat(side // 8, axis=1)


def streamed(detector: sowa.Predictor, count: int, side: int) -> tuple[int, int]:
    """Resident bytes after the first pictures, and at the end."""
    warm = resident_bytes()
    for number, _ in enumerate(detector.stream(pictures(count, side)), start=1):
        if number == min(WARM, count // 2):
            warm = resident_bytes()
    return warm, resident_bytes()


def commanded(detector: sowa.Predictor, count: int, side: int) -> tuple[int, int]:
    """The same of a process of `sowa predict`."""
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "pictures", Path(place) / "out"
        folder.mkdir()
        detector.save(Path(place) / "it.sowa")
        for number, picture in enumerate(pictures(min(FILES, count), side)):
            Image.fromarray(picture).save(folder / f"{number:06}.png")
        for number in range(FILES, count):
            os.link(folder / f"{number % FILES:06}.png", folder / f"{number:06}.png")
        words = ["predict", str(Path(place) / "it.sowa"), str(folder), "-o", str(out)]
        command = [sys.executable, "-c", "import sys; from sowa.cli import main; sys.exit(main())", *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        warm = last = 0
        while process.poll() is None:
            now = resident_bytes(process.pid)
            last = now or last
            if not warm and _rows(out) >= min(WARM, count // 2):
                warm = now
            time.sleep(0.2)
        if process.returncode or _rows(out) < count:
            raise SystemExit(f"sowa predict failed: {process.stderr.read()[-500:]}")
        return warm or last, last


def _rows(out: Path) -> int:
    """Results written so far; until the end they are in a partial file."""
    for name in ("results.jsonl.partial", "results.jsonl"):
        try:
            return (out / name).read_bytes().count(b"\n")
        except OSError:
            continue
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="pictures (%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="of a picture in pixels (%(default)s)")
    parser.add_argument("--backbone", default="random_tiny", help="(%(default)s)")
    parser.add_argument("--command", action="store_true", help="by the command line, from files")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    detector = sowa.fit(list(pictures(4, options.side)), backbone=options.backbone)
    began = time.perf_counter()
    warm, end = (commanded if options.command else streamed)(detector, options.count, options.side)
    figures = {
        "pictures": options.count,
        "side": options.side,
        "backbone": options.backbone,
        "through": "sowa predict" if options.command else "Predictor.stream",
        "megabytes_after_warming": round(warm / 1e6, 1),
        "megabytes_at_the_end": round(end / 1e6, 1),
        "ratio": round(end / warm, 3),
        "pictures_per_second": round(options.count / (time.perf_counter() - began), 1),
    }
    print(json.dumps(figures))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
