"""Cut the first stages off EfficientNet-Lite0 and write them as the file of the package beside SOWA Plus.

    python benchmarks/cut_network.py [--out FILE]

Nothing is trained: the weights are those of the backbone `compact_cnn` (Apache-2.0, Google; a pinned package of the
Python index), its first six of seven stages, convolutions in half precision. The file comes out the same to the bit.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sowa.backbones import build_backbone
from sowa.backbones.licences import licence_of
from sowa.detectors.plus_files import HOME
from sowa.detectors.plus_network import write_network

COMMAND = "python benchmarks/cut_network.py"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path(str(HOME / "compact_network.safetensors")))
    options = parser.parse_args(argv)
    network = build_backbone("compact_cnn")
    sha256 = write_network(
        options.out,
        network.visual,
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        command=COMMAND,
        weights=network.weights_id,
        licence=licence_of("compact_cnn"),
    )
    print(f"{options.out} {options.out.stat().st_size} bytes, sha256 {sha256}")


if __name__ == "__main__":
    main()
