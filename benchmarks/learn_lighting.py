"""Learn in which directions tokens move when only the light changes, on drawn products, and write the package's file.

    python benchmarks/learn_lighting.py [--out FILE]

Images: good ones of the drawn categories of the part `training`, none of which is a development or a locked one. Each
is seen once as it is and nine times under other light: darker, brighter, another gamma, less or more contrast, a slope
of brightness across or down. Of the differences of the tokens, every change counting as much as another, the principal
directions are kept. At the size at which they are used, half of the detector's. Everything is float32, on one thread:
on one machine the file comes out the same to the bit.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sowa.backbones import build_backbone
from sowa.backbones.base import Backbone
from sowa.data.dataset import ImageDataset
from sowa.data.layouts import read_samples
from sowa.detectors.plus_files import HOME, image_weights
from sowa.detectors.plus_lighting import write_lighting
from sowa.training.sources import drawn_root

DRAW = {"part": "training", "seed": 0, "train_good": 0, "test_good": 12, "test_bad": 24, "size": 512}
IMAGE_SIZE, TAPS, AXES = 224, (6, 8), 4


def gain(by: float) -> Callable[[Tensor], Tensor]:
    return lambda image: (image * by).clamp(0, 1)


def gamma(by: float) -> Callable[[Tensor], Tensor]:
    return lambda image: image**by


def contrast(by: float) -> Callable[[Tensor], Tensor]:
    return lambda image: ((image - image.mean()) * by + image.mean()).clamp(0, 1)


def slope(by: float, side: int) -> Callable[[Tensor], Tensor]:
    """Darker by `by` at one border, brighter at the other; side: -1 from left to right, -2 from top to bottom."""

    def changed(image: Tensor) -> Tensor:
        ramp = torch.linspace(1 - by, 1 + by, image.shape[side])
        return (image * (ramp if side == -1 else ramp[:, None])).clamp(0, 1)

    return changed


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "gain 0.6": gain(0.6),
    "gain 0.8": gain(0.8),
    "gain 1.25": gain(1.25),
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "contrast 0.6": contrast(0.6),
    "contrast 1.5": contrast(1.5),
    "slope across": slope(0.25, -1),
    "slope down": slope(0.25, -2),
}


@torch.inference_mode()
def differences(backbone: Backbone) -> dict[int, Tensor]:
    """[9, D, D] of each tap: mean outer product of what each change does to a token."""
    samples = [
        one
        for one in read_samples(drawn_root(cache_dir=None, **DRAW), "mvtec")
        if one.split == "test" and not one.label
    ]
    images = ImageDataset(samples=samples, image_size=IMAGE_SIZE, masks="none")
    found = {tap: torch.zeros(len(CHANGES), backbone.width, backbone.width, dtype=torch.float64) for tap in TAPS}
    for place in range(len(samples)):
        image = images[place].image.float() / 255
        views = torch.stack([image, *(change(image) for change in CHANGES.values())])
        for tap, (_, patches_BLD) in zip(TAPS, backbone.encode_normed(views, TAPS), strict=True):
            moved = (patches_BLD[1:] - patches_BLD[:1]).double()
            found[tap] += moved.transpose(1, 2) @ moved / moved.shape[1]
        if place % 20 == 0:
            print(f"{place}/{len(samples)} images", flush=True)
    return found


def principal(outer_CDD: Tensor) -> Tensor:
    """[D, AXES] of the sum of all changes, each of trace 1; the largest entry of each direction is positive."""
    traces = outer_CDD.diagonal(dim1=1, dim2=2).sum(dim=1)
    _, axes_DD = torch.linalg.eigh((outer_CDD / traces[:, None, None]).sum(dim=0))
    axes_DN = axes_DD.flip(1)[:, :AXES]
    return axes_DN * axes_DN.gather(0, axes_DN.abs().argmax(dim=0, keepdim=True)).sign()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(str(HOME)) / "compact_lighting.safetensors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    backbone = build_backbone("compact", image_size=IMAGE_SIZE)
    outer = differences(backbone)
    axes = {tap: principal(outer_CDD) for tap, outer_CDD in outer.items()}
    for tap, axes_DN in axes.items():
        held = [float((axes_DN.T @ own @ axes_DN).trace() / own.trace()) for own in outer[tap]]
        print(f"block {tap} holds", {name: round(share, 2) for name, share in zip(CHANGES, held, strict=True)})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sha256 = write_lighting(
        given.out,
        axes,
        command="python benchmarks/learn_lighting.py",
        data=DRAW,
        image_size=IMAGE_SIZE,
        changes=list(CHANGES),
    )
    print(f"{time.monotonic() - began:.0f} s")
    print(f'"{image_weights(backbone.weights_id)}": ("{given.out.name}", "{sha256}")')


if __name__ == "__main__":
    main()
