"""Measure what the channels of the offline backbone reach, for `precision=int8`, and write it into the package.

    python benchmarks/int8_ranges.py [--out src/sowa/backbones/measured/compact.safetensors]

On 24 images of the drawn training products, which no figure of the project is about, at 224 px. The same processor
writes the same bytes; the hash it prints belongs into `sowa.backbones.ranges.SHIPPED`.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from sowa.artifact import write_whole
from sowa.backbones import build_backbone
from sowa.backbones.quick_int8 import measured_ranges
from sowa.backbones.ranges import HOME, ranges_bytes
from sowa.training.scoring import support_of
from sowa.training.sources import read_source

DRAWN = {"part": "training", "seed": 0, "train_good": 2, "test_good": 2, "test_bad": 4, "size": 512}
EVERY = 3


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=HOME / "compact.safetensors", help="(%(default)s)")
    options = parser.parse_args(argv)
    backbone = build_backbone("compact")
    samples = read_source(dataset="drawn", layout="mvtec", draw=DRAWN).samples[::EVERY]
    images = support_of(samples, backbone.image_size).images
    ranges = measured_ranges(backbone.visual, backbone._normalised(images))
    content = ranges_bytes(ranges)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, content)
    digest = hashlib.sha256(content).hexdigest()
    print(f"{len(images)} images, {len(content)} bytes, sha256 {digest}: {options.out}")


if __name__ == "__main__":
    main()
