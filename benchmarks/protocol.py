"""A whole auxiliary protocol at the paper's setting, timed on a part of it and extrapolated, part by part.

    python benchmarks/protocol.py [--images 16] [--tests 8] [--epochs 1] [--precision 32-true] [--cache] [--quick]
                                  [--json PATH]

The protocol: 1,725 images (MVTec AD's test split) in batches of 8 for `--epochs` epochs, then 200 test images without
and with 4 shots, maps compared with masks of 1024 px. Weights are drawn: speed does not depend on them. Timed are
`--images` training images and `--tests` test images through the same code as `sowa train` runs; each part's time per
image is multiplied with the number the protocol has. The metrics are timed at their full 200 maps. With `--cache`
epochs after the first take tokens from disk. Not counted: fetching and loading published weights, and reading data from
a slow disk.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from auxiliary import FULL, QUICK, hardware, timed_training, tower, write_pictures

from sowa.metrics import pixel_metrics, write_json
from sowa.training.allocator import keep_freed_memory
from sowa.training.evaluate import evaluate
from sowa.training.sources import read_source

TRAINED, TESTED, SHOTS = 1725, 200, 4


def measure(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    kind = QUICK if options.quick else FULL
    began = time.perf_counter()
    inner = tower(kind)
    parts = [{"part": "building the detector", "times": 1, "seconds_each": time.perf_counter() - began}]
    root = write_pictures(
        place / "data", good=options.images // 2, bad=options.images - options.images // 2, train=SHOTS
    )
    words = [*kind, f"data.batch_size={min(8, options.images)}", f"trainer.precision={options.precision}"]
    cached = options.cache and options.epochs > 1
    if cached:
        words += ["token_cache.enabled=true", f"token_cache.folder={place}/tokens"]
    clock, detector = timed_training(root, place / "run", inner, [*words, f"trainer.max_epochs={1 + cached}"])
    first = sum(clock.epochs[:1]) / options.images
    parts.append({"part": "training image, through the backbone", "times": TRAINED, "seconds_each": first})
    if options.epochs > 1:
        later = clock.epochs[-1] / options.images
        name = "training image, tokens from disk" if cached else "training image, later epochs"
        parts.append({"part": name, "times": TRAINED * (options.epochs - 1), "seconds_each": later})
    parts += tested(detector, place, options.tests)
    parts.append(
        {"part": "pixel metrics of 200 maps of 1024 px, a draw", "times": 2, "seconds_each": metrics_seconds(options)}
    )
    for part in parts:
        part["seconds"] = part["times"] * part["seconds_each"]
    total = sum(part["seconds"] for part in parts)
    return {
        "name": "protocol",
        "setting": {"epochs": options.epochs, "precision": options.precision, "cache": bool(cached)},
        "timed": {"training_images": options.images, "test_images": options.tests},
        "rows": parts,
        "ratios": {
            "minutes": total / 60,
            "training's share": sum(p["seconds"] for p in parts if "training" in p["part"]) / total,
        },
        "hardware": hardware(),
    }


def tested(detector: Any, place: Path, count: int) -> list[dict[str, Any]]:
    """Seconds of a test image at both draws, and of learning the shots."""
    root = write_pictures(place / "target", good=count // 2, bad=count - count // 2, train=SHOTS)
    source = read_source(dataset="mvtec", root=str(root), layout="mvtec")
    ends: list[float] = []
    detector.eval()
    began = time.perf_counter()
    evaluate(
        detector,
        dataset="mvtec",
        samples=source.samples,
        shots=(0, SHOTS),
        batch_size=max(1, count // 2),
        progress=lambda *_: ends.append(time.perf_counter()),
    )
    each = (ends[-1] - ends[0]) / (count - max(1, count // 2))
    learning = max(ends[0] - began - each * max(1, count // 2), 0.0)
    return [
        {"part": "learning a category's 4 shots", "times": 1, "seconds_each": learning},
        {"part": "test image, both draws", "times": TESTED, "seconds_each": each},
    ]


def metrics_seconds(options: argparse.Namespace) -> float:
    side, count = (64, 20) if options.quick else (1024, TESTED)
    generator = np.random.default_rng(0)
    maps = generator.gamma(1.0, 1.0, (count, side, side)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[::2, : side // 8, : side // 6] = True
    times = []
    for _ in range(2):
        began = time.perf_counter()
        pixel_metrics(maps, masks)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="training images that are timed")
    parser.add_argument("--tests", type=int, default=8, help="test images that are timed")
    parser.add_argument("--epochs", type=int, default=1, help="of the protocol")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--cache", action="store_true", help="tokens on disk for epochs after the first")
    parser.add_argument("--quick", action="store_true", help="tiny backbone, few images: shows that it runs")
    parser.add_argument("--json", metavar="PATH", help="also write the numbers here")
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    if min(options.images, options.tests) < 2 or options.epochs < 1:
        parser.error("--images and --tests must be at least 2, --epochs at least 1")
    if options.quick:
        options.images, options.tests = min(options.images, 4), min(options.tests, 4)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        result = measure(options, Path(place))
    for row in result["rows"]:
        print(f"{row['part']}: {row['times']} x {row['seconds_each']:.3f} s = {row['seconds'] / 60:.1f} min")
    print(f"whole protocol: {result['ratios']['minutes']:.1f} min")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
