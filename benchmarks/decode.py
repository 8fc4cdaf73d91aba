"""From file to the model's square: the project's reading beside plain Pillow, on the same files in one run.

    python benchmarks/decode.py [--side 336] [--count 12] [--rounds 5] [--folder DIR] [--json PATH]

Plain Pillow is `Image.open(path).convert("RGB").resize((side, side), BICUBIC)`. Ours is `ImageDataset`, with its
checks of untrusted files, once decoding every pixel (`reduce=False`, as the papers) and once reducing large JPEGs.
Photographs of the scikit-image wheel are enlarged, given the noise of a sensor and saved as PNG and JPEG of several
sizes. The three ways take turns in every round, so that a busy moment meets all; printed are images per second by the
median round, the ratio to Pillow, the largest and the mean difference of the model's pixels (0..255) against decoding
every pixel, and how often one epoch opened each file.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from skimage import data
from torch.utils.data import DataLoader

from sowa.data import images as reading
from sowa.data.dataset import ImageDataset, collate
from sowa.metrics import write_json
from sowa.types import Sample

FILES = (("png", 1024), ("jpg", 1024), ("jpg", 2048), ("jpg", 4000))
PHOTOGRAPHS = (data.coffee, data.astronaut, data.chelsea, data.rocket)


def written(folder: Path, suffix: str, side: int, count: int) -> list[Sample]:
    """`count` different photographs of `side` x 3/4 `side` pixels."""
    generator, samples = np.random.default_rng(side), []
    for number in range(count):
        photograph = Image.fromarray(PHOTOGRAPHS[number % len(PHOTOGRAPHS)]())
        wide = np.asarray(photograph.resize((side, side * 3 // 4), Image.Resampling.BICUBIC))
        noisy = np.clip(wide + generator.normal(0, 2, wide.shape), 0, 255).astype(np.uint8)
        path = folder / f"{side}_{number:03}.{suffix}"
        Image.fromarray(noisy).save(path, quality=92)
        samples.append(Sample(path.name, path, "photograph", "test", 0))
    return samples


def plain_pillow(samples: Sequence[Sample], side: int) -> None:
    for sample in samples:
        with Image.open(sample.image) as image:
            np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def medians(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each way by its median round; the first round warms the file cache and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def openings(dataset: ImageDataset) -> int:
    """How often one epoch opens an image file."""
    with patch.object(reading.Image, "open", wraps=Image.open) as opened:
        for _ in DataLoader(dataset, batch_size=4, collate_fn=collate):
            pass
    return opened.call_count


def measured(samples: Sequence[Sample], side: int, rounds: int) -> dict[str, float]:
    whole, reduced = (
        ImageDataset(samples=samples, image_size=side, masks="none", reduce=reduce) for reduce in (False, True)
    )
    ways = {
        "pillow": lambda: plain_pillow(samples, side),
        "whole": lambda: [whole[i] for i in range(len(whole))],
        "reduced": lambda: [reduced[i] for i in range(len(reduced))],
    }
    seconds = medians(ways, rounds)
    gaps = [(whole[i].image.int() - reduced[i].image.int()).abs() for i in range(len(whole))]
    return {
        "images": len(samples),
        **{f"{name}_images_per_second": len(samples) / value for name, value in seconds.items()},
        "whole_to_pillow": seconds["pillow"] / seconds["whole"],
        "reduced_to_pillow": seconds["pillow"] / seconds["reduced"],
        "largest_difference": max(int(gap.max()) for gap in gaps),
        "mean_difference": statistics.fmean(float(gap.float().mean()) for gap in gaps),
        "openings_per_image_and_epoch": openings(reduced) / len(samples),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--side", type=int, default=336, help="of the model's square (%(default)s)")
    parser.add_argument("--count", type=int, default=12, help="images of each kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the images are drawn; else a temporary one")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, side in FILES:
            samples = written(folder, suffix, side, options.count)
            rows.append(
                {"format": suffix, "width": side, "model": options.side}
                | measured(samples, options.side, options.rounds)
            )
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        write_json(options.json, rows)


if __name__ == "__main__":
    main()
