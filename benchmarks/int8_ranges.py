"""Measure what the channels of the offline backbone reach, for `precision=int8`, and write it into the package.

    python benchmarks/int8_ranges.py [--out src/sowa/backbones/measured/compact.safetensors]

On the images of `sowa measure-int8`, at 224 px and all at once. The same processor writes the same bytes; the hash it
prints belongs into `sowa.backbones.ranges.SHIPPED`.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from sowa.artifact import write_whole
from sowa.backbones import build_backbone
from sowa.backbones.quick_int8 import measured_ranges
from sowa.backbones.ranges import HOME, ranges_bytes
from sowa.training.byte_ranges import training_images


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=HOME / "compact.safetensors", help="(%(default)s)")
    options = parser.parse_args(argv)
    backbone = build_backbone("compact")
    images, _ = training_images(backbone.image_size)
    ranges = measured_ranges(backbone.visual, backbone._normalised(images))
    content = ranges_bytes(ranges)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, content)
    digest = hashlib.sha256(content).hexdigest()
    print(f"{len(images)} images, {len(content)} bytes, sha256 {digest}: {options.out}")


if __name__ == "__main__":
    main()
