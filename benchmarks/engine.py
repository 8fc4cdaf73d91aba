"""The engine against the plain eager composition of the same model, and against the processor's own peak, in one run.

    python benchmarks/engine.py [--quick] [--passes 3] [--json PATH]

SOWA with four shots on CLIP ViT-L/14 at 336 px, weights drawn from a seed. The peak is the best rate of square matrix
products in the same process, measured before and after. Passes of the yardstick (benchmarks/yardstick.py) and of the
engine alternate; medians count. A pass goes from decoded pixels to score and map; the engine takes a batch as a stream
does, each of torch's threads a part of it (`whole_batch`: all threads on all of it). Operations are those of the matrix
products of the whole pass (blocks, adapters, projections, memory bank), so that the share of the peak says what all the
rest costs. Where the processor multiplies bytes, the int8 engine takes its turn too, with ranges measured on a shot:
weights are drawn, so of its drift it says nothing. `--quick` times one pass of each, in batches of 4.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from yardstick import PlainSowa

from sowa.backbones import build_backbone
from sowa.backbones.precision import working_dtype
from sowa.backbones.quick_int8 import int8_works, measured_ranges
from sowa.detectors.sowa import Sowa
from sowa.metrics import write_json
from sowa.predictor.streaming import judge_ahead, judges_on
from sowa.training.record import machine_facts

MODEL, SHOTS, BATCH = "ViT-L-14-336-quickgelu", 4, 8
SIDES = (1024, 2048, 4096)


def seconds(work: Callable[[], object], passes: int) -> list[float]:
    times = []
    for _ in range(passes):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the best square product."""
    best = 0.0
    for side in SIDES:
        a = torch.ones(side, side, dtype=dtype)
        best = max(best, 2e-9 * side**3 / min(seconds(lambda a=a: a @ a, 8 if side < SIDES[-1] else 2)))
    return best


def said(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def operations(detector: Sowa) -> float:
    """GFLOP of one image: products of the blocks, of the adapters, of both projections, of the bank."""
    backbone, depth = detector.backbone, detector.backbone.depth
    width, places = backbone.width, backbone.grid[0] * backbone.grid[1]
    tokens = places + 1
    blocks = depth * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
    adapters = len(detector.taps) * 2 * places * 3 * width**2
    projections = 2 * len(detector.taps) * 2 * places * width * backbone.joint
    bank = len(detector.taps) * 2 * places * SHOTS * places * backbone.joint
    return 1e-9 * (blocks + adapters + projections + bank)


def in_bytes(detector: Sowa, shot: torch.Tensor) -> Sowa | None:
    """The detector on a tower in int8; None where this processor or this torch cannot."""
    if not int8_works():
        return None
    backbone = detector.backbone
    return detector._on(backbone._in_bytes(measured_ranges(backbone.visual, backbone._normalised(shot))))


def streamed(detector: Sowa, images: torch.Tensor, reference: dict) -> None:
    """Scores of a batch by as many judges as a stream would have."""

    def judge(some: Sequence[torch.Tensor]) -> None:
        with torch.inference_mode():
            detector(torch.stack(list(some)), reference)

    judges = judges_on(images.device, len(images))
    for _ in judge_ahead(iter(images), judge, batch_size=len(images), strict=False, judges=judges):
        pass


def measured(passes: int, model: str, size: int | None, count: int) -> dict:
    backbone = build_backbone("clip", model=model, image_size=size, weights="random")
    plain_detector = Sowa(backbone=backbone, text_weight=0.5).eval()
    side = backbone.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SHOTS + count, 3, side, side), generator=generator).to(torch.uint8)
    peaks = {name: [peak(working_dtype(name))] for name in ("fp32", "bf16")}
    said(f"peak {peaks}")
    names = ("yardstick", "engine", "whole_batch", "encode", "single", "int8", "int8_whole_batch")
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        engine = plain_detector.at_precision("auto")
        reference = engine.fit_tokens("object", engine.encode(images[:SHOTS]))
        plain = PlainSowa(plain_detector, reference["bank"])
        batch, one = images[SHOTS:], images[SHOTS : SHOTS + 1]
        bytewise = in_bytes(plain_detector, images[:1])
        exact = plain_detector(one, reference).score_map
        apart = float(abs(torch.from_numpy(plain(one)) - exact).max())
        lowered = float(abs(engine(one, reference).score_map - exact).max())
        said(f"maps apart: yardstick {apart:.1e}, engine {lowered:.1e} of {float(exact.max() - exact.min()):.3f}")
        assert apart < 1e-3, f"the yardstick computes another map ({apart})"
        for _ in range(passes):
            began = time.perf_counter()
            tokens = engine.encode(batch)
            times["encode"].append(time.perf_counter() - began)
            engine.score(tokens, reference)
            times["whole_batch"].append(time.perf_counter() - began)
            times["engine"] += seconds(lambda: streamed(engine, batch, reference), 1)
            times["yardstick"] += seconds(lambda: plain(batch), 1)
            times["single"] += seconds(lambda: engine(one, reference), 3)
            if bytewise is not None:
                times["int8"] += seconds(lambda: streamed(bytewise, batch, reference), 1)
                times["int8_whole_batch"] += seconds(lambda: bytewise(batch, reference), 1)
            said(f"{times}")
    for name, found in peaks.items():
        found.append(peak(working_dtype(name)))
    row = {"shots": SHOTS, "batch": count, "model": model, "image_size": side, "seconds": times}
    row |= {"map_difference_yardstick_to_fp32": apart, "map_difference_engine_to_fp32": lowered}
    return figures(row, operations(plain_detector), peaks, engine.backbone.precision)


def figures(row: dict, work: float, peaks: dict[str, list[float]], precision: str) -> dict:
    """work: GFLOP of an image; peaks: GFLOP/s by type."""
    times, count = row["seconds"], row["batch"]
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    best = {name: max(values) for name, values in peaks.items()}
    rate = work * count / middle["engine"]
    row |= {
        "precision": precision,
        "gflop_per_image": round(work, 1),
        "peak_gflops": {name: round(value, 1) for name, value in best.items()},
        "yardstick_images_per_second": count / middle["yardstick"],
        "yardstick_share_of_fp32_peak": work * count / middle["yardstick"] / best["fp32"],
        "engine_images_per_second": count / middle["engine"],
        "engine_gflops": rate,
        "encode_seconds_per_image": middle["encode"] / count,
        "single_image_seconds": middle["single"],
    }
    ratios = {
        "engine_to_yardstick": middle["yardstick"] / middle["engine"],
        "share_of_peak": rate / best[precision],
        "single_to_batch_latency": middle["single"] / (middle["engine"] / count),
        "whole_batch_to_engine": middle["whole_batch"] / middle["engine"],
        "peak_to_fp32_peak": best[precision] / best["fp32"],
    }
    if "int8" in middle:
        row["int8_images_per_second"] = count / middle["int8"]
        ratios["int8_to_yardstick"] = middle["yardstick"] / middle["int8"]
        ratios["int8_to_engine"] = middle["engine"] / middle["int8"]
    return {"name": "engine", "rows": [row], "ratios": ratios, "hardware": machine_facts()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--passes", type=int, default=3, help="of the yardstick (%(default)s)")
    parser.add_argument("--model", default=MODEL, help="of open_clip (%(default)s)")
    parser.add_argument("--size", type=int, help="of the image in pixels; else the model's own")
    parser.add_argument("--quick", action="store_true", help="one pass of each, in batches of 4")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    passes, count = (1, BATCH // 2) if options.quick else (options.passes, BATCH)
    result = measured(passes, options.model, options.size, count)
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
