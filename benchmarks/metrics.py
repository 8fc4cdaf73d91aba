"""Exact pixel metrics against a loop over 200 thresholds, timed in one run.

    python benchmarks/metrics.py [--images 200] [--size 336] [--repeats 5] [--passes 9] [--json PATH]

Left: `pixel_metrics`, all five pixel metrics at every distinct score. Right: AUPRO alone as reference code of the field
computes it, 200 equally spaced thresholds, regions found anew at each. The cost of a threshold of that loop is measured
at `--passes` of the 200, spread evenly, and its median counted 200 times; `--passes 200` times the whole loop.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from skimage.measure import label, regionprops

from sowa.metrics import pixel_metrics, write_json

STEPS = 200


def drawn(images: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed float32 maps and masks; every second image has two defects, about 2 % of all pixels."""
    rng = np.random.default_rng(0)
    maps = rng.gamma(1.0, 1.0, (images, size, size)).astype(np.float32)
    masks = np.zeros(maps.shape, np.uint8)
    side = max(size // 7, 1)
    for index in range(0, images, 2):
        for row, column in rng.integers(0, size - side, (2, 2)):
            masks[index, row : row + side, column : column + side] = 1
    maps += masks * np.float32(1.5)
    return maps, masks


def one_threshold(maps: np.ndarray, masks: np.ndarray, threshold: float) -> tuple[float, float]:
    """(false positive rate, mean overlap of regions) at one threshold, the slow way."""
    called = maps > threshold
    overlaps = []
    for called_one, mask in zip(called, masks, strict=True):
        for region in regionprops(label(mask, connectivity=2)):
            rows, columns = region.coords[:, 0], region.coords[:, 1]
            overlaps.append(called_one[rows, columns].sum() / region.area)
    normal = masks == 0
    return float((called & normal).sum() / normal.sum()), float(np.mean(overlaps))


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def peak_bytes(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(images: int, size: int, repeats: int, passes: int) -> dict[str, Any]:
    maps, masks = drawn(images, size)
    exact = seconds(lambda: pixel_metrics(maps, masks), repeats)
    every = np.linspace(maps.min(), maps.max(), STEPS, endpoint=False)
    thresholds = every[np.linspace(0, STEPS - 1, min(passes, STEPS)).astype(int)]
    loop = [seconds(lambda at=at: one_threshold(maps, masks, at), 1)[0] for at in thresholds]
    loop_seconds = sum(loop) if len(loop) == STEPS else STEPS * statistics.median(loop)
    return {
        "images": images,
        "size": size,
        "defect_share": float(masks.mean()),
        "exact_seconds": {"median": statistics.median(exact), "min": min(exact), "max": max(exact)},
        "loop_seconds": loop_seconds,
        "loop_thresholds_timed": len(loop),
        "ratio": loop_seconds / statistics.median(exact),
        "exact_peak_over_maps": peak_bytes(lambda: pixel_metrics(maps, masks)) / maps.nbytes,
        "values": pixel_metrics(maps, masks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=336)
    parser.add_argument("--repeats", type=int, default=5, help="runs of the exact metrics; their median counts")
    parser.add_argument("--passes", type=int, default=9, help="thresholds of the loop that are timed, of 200")
    parser.add_argument("--json", metavar="PATH", help="also write the numbers here")
    options = parser.parse_args()
    for name in ("images", "size", "repeats", "passes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    result = measure(options.images, options.size, options.repeats, options.passes)
    times = result["exact_seconds"]
    timed = result["loop_thresholds_timed"]
    print(f"{options.images} maps of {options.size} px, {100 * result['defect_share']:.1f} % of the pixels in defects")
    print(f"exact, five metrics: {times['median']:.2f} s ({times['min']:.2f} to {times['max']:.2f})")
    print(f"loop of {STEPS} thresholds, AUPRO alone: {result['loop_seconds']:.1f} s ({timed} of {STEPS} timed)")
    print(f"peak memory of the exact metrics: {result['exact_peak_over_maps']:.1f} times the maps")
    print(f"ratio {result['ratio']:.0f}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
