"""Exact pixel metrics, and those counted in bins, against loops over 200 thresholds, timed in one run.

    python benchmarks/metrics.py [--images 200] [--size 336] [--repeats 5] [--passes 9] [--quick] [--json PATH]

Ours: `pixel_metrics`, all five pixel metrics at every distinct score, and `StreamedPixels`, the same in bounded memory,
with the largest error it states and the error it has. Against them two loops that compute AUPRO alone at 200 equally
spaced thresholds: as the reference code of the field does it, regions found anew at each threshold, and the best such a
loop can be, with the regions' pixels listed once before it. The cost of a threshold is measured at `--passes` of the
200, spread evenly, and its median counted 200 times; `--passes 200` times the whole loops.
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
from sowa.metrics.streaming import StreamedPixels
from sowa.training.record import machine_facts

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


def listed_regions(masks: np.ndarray) -> list[np.ndarray]:
    """Flat places of the pixels of every region."""
    size, found = masks[0].size, []
    for index, mask in enumerate(masks):
        for region in regionprops(label(mask, connectivity=2)):
            found.append(index * size + np.ravel_multi_index(tuple(region.coords.T), mask.shape))
    return found


def one_lean_threshold(maps: np.ndarray, normal: np.ndarray, found: list[np.ndarray], threshold: float) -> tuple:
    """As `one_threshold`, with nothing in it that could be done before the loop."""
    called = maps > threshold
    flat = called.ravel()
    overlap = np.mean([flat[places].mean() for places in found])
    return np.count_nonzero(called & normal) / np.count_nonzero(normal), float(overlap)


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
    counted = seconds(lambda: streamed(maps, masks), max(repeats // 2, 1))
    every = np.linspace(maps.min(), maps.max(), STEPS, endpoint=False)
    thresholds = every[np.linspace(0, STEPS - 1, min(passes, STEPS)).astype(int)]
    loop = loop_seconds(lambda at: one_threshold(maps, masks, at), thresholds)
    found, normal = listed_regions(masks), masks == 0
    lean = loop_seconds(lambda at: one_lean_threshold(maps, normal, found, at), thresholds)
    values, (rough, stated) = pixel_metrics(maps, masks), streamed(maps, masks)
    median = statistics.median(exact)
    return {
        "name": "metrics",
        "images": images,
        "size": size,
        "defect_share": float(masks.mean()),
        "exact_seconds": {"median": median, "min": min(exact), "max": max(exact)},
        "counted_seconds": statistics.median(counted),
        "loop_seconds": loop,
        "lean_loop_seconds": lean,
        "loop_thresholds_timed": len(thresholds),
        "exact_peak_over_maps": peak_bytes(lambda: pixel_metrics(maps, masks)) / maps.nbytes,
        "counted_peak_megabytes": peak_bytes(lambda: streamed(maps, masks)) / 1e6,
        "counted_error_stated": stated,
        "counted_error": max(abs(rough[name] - value) for name, value in values.items()),
        "values": values,
        "rows": [
            {"way": way, "seconds": time} for way, time in (("exact", median), ("loop", loop), ("lean loop", lean))
        ],
        "ratios": {"loop over exact": loop / median, "lean loop over exact": lean / median},
        "hardware": machine_facts(),
    }


def streamed(maps: np.ndarray, masks: np.ndarray) -> tuple[dict[str, float], float]:
    counts = StreamedPixels()
    for score_map, mask in zip(maps, masks, strict=True):
        counts.update(score_map, mask > 0)
    return counts.metrics((0.3, 0.05))


def loop_seconds(one: Callable[[float], Any], thresholds: np.ndarray) -> float:
    """Of all 200 thresholds."""
    times = [seconds(lambda at=at: one(at), 1)[0] for at in thresholds]
    return sum(times) if len(times) == STEPS else STEPS * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=336)
    parser.add_argument("--repeats", type=int, default=5, help="runs of the exact metrics; their median counts")
    parser.add_argument("--passes", type=int, default=9, help="thresholds of the loop that are timed, of 200")
    parser.add_argument("--quick", action="store_true", help="40 images, 3 repeats")
    parser.add_argument("--json", metavar="PATH", help="also write the numbers here")
    options = parser.parse_args()
    for name in ("images", "size", "repeats", "passes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.quick:
        options.images, options.repeats = min(options.images, 40), min(options.repeats, 3)
    result = measure(options.images, options.size, options.repeats, options.passes)
    times = result["exact_seconds"]
    timed = f"AUPRO alone ({result['loop_thresholds_timed']} of {STEPS} timed)"
    print(f"{options.images} maps of {options.size} px, {100 * result['defect_share']:.1f} % of the pixels in defects")
    print(f"exact, five metrics: {times['median']:.2f} s ({times['min']:.2f} to {times['max']:.2f})")
    print(f"loop of {STEPS} thresholds as the references have it: {result['loop_seconds']:.1f} s, {timed}")
    print(f"the same with the regions found once: {result['lean_loop_seconds']:.1f} s")
    print(f"peak memory of the exact metrics: {result['exact_peak_over_maps']:.1f} times the maps")
    print(
        f"counted in bins, five metrics: {result['counted_seconds']:.2f} s, {result['counted_peak_megabytes']:.0f} MB,"
        f" error at most {result['counted_error_stated']:.1e}, in fact {result['counted_error']:.1e}"
    )
    print(", ".join(f"{name}: ratio {ratio:.0f}" for name, ratio in result["ratios"].items()))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
