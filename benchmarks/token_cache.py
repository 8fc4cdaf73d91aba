"""Epochs of a training with and without the tokens of the backbone on disk, in one run.

    python benchmarks/token_cache.py [--images 16] [--epochs 3] [--parts [--processor]] [--quick] [--json PATH]

Whole epochs of the trainer: pictures of 1024 px are decoded, prompts encoded, adapters stepped. Uncached, every image
passes ViT-L/14 at 336 px (weights drawn: speed does not depend on them) in every epoch; cached, in the first one. Both
are timed with float32 products and with `trainer.precision=bf16-mixed`. Printed: seconds per image of the first epoch
and the median of the later ones, and how many times faster the later ones are than uncached. `--parts` times each part
of an epoch once, in batches of 8 (the tower in one of 2), and adds them up: a minute in place of several;
`--processor` counts the processor's time of one thread, which a busy machine leaves alone. `--quick` takes the tiny
random backbone: it shows that everything runs, its ratios say nothing.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from auxiliary import FULL, QUICK, detector_on, hardware, timed_training, tower, write_pictures
from train_step import by_level, drawn, seconds, step_of

from sowa.backbones.cache import CachedBackbone
from sowa.backbones.token_store import TokenStore
from sowa.metrics import write_json
from sowa.training.allocator import keep_freed_memory
from sowa.training.compose import compose_job
from sowa.training.sources import auxiliary_images, read_source

PRECISIONS = ("32-true", "bf16-mixed")


def measure(images: int, epochs: int, quick: bool, place: Path) -> dict[str, Any]:
    root = write_pictures(place / "data", good=images // 2, bad=images - images // 2, train=1)
    kind = QUICK if quick else FULL
    inner = tower(kind)
    base = [*kind, f"data.batch_size={min(8, images)}"]
    decoding = decoding_seconds(time.perf_counter, root)
    rows, ratios, plain = [{"cache": "-", "step": "decoding alone", "later_epochs_s_per_image": decoding}], {}, {}
    for precision in PRECISIONS:
        words = [*base, f"trainer.precision={precision}"]
        clock, _ = timed_training(root, place / "run", inner, [*words, "trainer.max_epochs=1"])
        plain[precision] = statistics.median(clock.steps) * len(clock.steps) / images
        rows.append({"cache": "none", "step": precision, "later_epochs_s_per_image": plain[precision]})
    for precision, kept in (("32-true", "float32"), ("bf16-mixed", "float32"), ("bf16-mixed", "float16")):
        cache = ["token_cache.enabled=true", f"token_cache.folder={place}/tokens-{precision}-{kept}"]
        words = [*base, f"trainer.precision={precision}", *cache, f"token_cache.precision={kept}"]
        clock, detector = timed_training(root, place / "run", inner, [*words, f"trainer.max_epochs={epochs}"])
        later = statistics.median(clock.epochs[1:]) / images
        rows.append(
            {
                "cache": kept,
                "step": precision,
                "first_epoch_s_per_image": clock.epochs[0] / images,
                "later_epochs_s_per_image": later,
                "megabytes_per_image": detector.backbone.bytes_per_image(detector.taps) / 1e6,
            }
        )
        for against in dict.fromkeys((precision, "32-true")):
            ratios[f"{kept} tokens, {precision} step, against uncached {against}"] = plain[against] / later
    return {"name": "token_cache", "rows": rows, "ratios": ratios, "hardware": hardware()}


def parts(quick: bool, place: Path, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of an image in each part of an epoch, and their sums."""
    kind, batch = QUICK if quick else FULL, 8
    detector = detector_on(tower(kind), compose_job("train", kind).settings).train()
    side, given = detector.backbone.image_size, drawn(detector, batch)
    store = TokenStore(folder=place / "tokens", limit_bytes=10**9)
    cached = CachedBackbone(inner=detector.backbone, store=store)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        cached.encode_image(images[:1], detector.taps)
        reading = seconds(lambda: cached.encode_image(images[:1], detector.taps), 5, clock)
    decoding = decoding_seconds(clock, write_pictures(place / "data", good=3, bad=3, train=1))
    rows, sums = [], {}
    for precision in PRECISIONS:
        lowered = precision != PRECISIONS[0]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
            began = clock()
            detector.encode(images)
            through = (clock() - began) / len(images)
        step = seconds(step_of(detector, given, by_level, lowered), 2, clock) / batch
        rows.append({"step": precision, "tower": through, "step_on_tokens": step, "reading": reading})
        sums[precision] = (through + step, reading + step)
    ratios = {
        f"cached {one} against uncached {other}": sums[other][0] / sums[one][1]
        for one, other in (PRECISIONS[:1] * 2, PRECISIONS[1:] * 2, PRECISIONS[::-1])
    }
    rows.append({"step": "-", "decoding, in the first epoch": decoding})
    return {"name": "token_cache", "rows": rows, "ratios": ratios, "hardware": hardware()}


def decoding_seconds(clock: Callable[[], float], root: Path) -> float:
    """Seconds to decode an image and its mask, as the trainer does."""
    source = read_source(dataset="mvtec", root=str(root), layout="mvtec")
    images = auxiliary_images(source, image_size=336, mosaic_rate=0.0, protocol="standard", seed=0, on_error="raise")
    began = clock()
    for index in range(len(images)):
        images[index]
    return (clock() - began) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="each part once, added up")
    parser.add_argument("--processor", action="store_true", help="of --parts: processor time of one thread")
    parser.add_argument("--quick", action="store_true", help="tiny backbone, 4 images")
    parser.add_argument("--json", metavar="PATH", help="also write the numbers here")
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    if options.images < 2 or options.epochs < 2:
        parser.error("--images and --epochs must be at least 2")
    with tempfile.TemporaryDirectory() as place:
        if options.parts:
            if options.processor:
                torch.set_num_threads(1)
            result = parts(options.quick, Path(place), time.process_time if options.processor else time.perf_counter)
        else:
            result = measure(4 if options.quick else options.images, options.epochs, options.quick, Path(place))
    for row in result["rows"]:
        print(
            ", ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    for name, ratio in result["ratios"].items():
        print(f"{name}: ratio {ratio:.1f}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
