"""`random_tiny_cnn`: a seeded random ResNet, small enough for tests and for dry runs of any configuration."""

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor

from sowa.backbones.cnn import CnnBackbone
from sowa.backbones.state import draw_state, load_strictly
from sowa.backbones.zoo import BackboneSpec

__all__ = ["build_random_tiny_cnn"]

WIDTHS = (16, 32, 64, 128)
"""Channels of the four taps, in the proportions of a ResNet."""


def build_random_tiny_cnn(*, spec: BackboneSpec, image_size: int | None, seed: int) -> CnnBackbone:
    """The same weights for the same seed, on any machine and in any order of construction."""
    with torch.device("meta"):
        visual = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=WIDTHS)
    load_strictly(visual, _drawn_state(visual, seed), source="the drawn network")
    return CnnBackbone(
        name="random_tiny_cnn",
        visual=visual,
        image_size=image_size or spec.image_size,
        mean=spec.mean,
        std=spec.std,
        weights_id=f"random:seed={seed}",
        default_taps=spec.default_taps,
    )


def _drawn_state(visual: ResNet, seed: int) -> dict[str, Tensor]:
    shapes = {name: tuple(tensor.shape) for name, tensor in visual.state_dict().items()}
    state = draw_state({name: shape for name, shape in shapes.items() if shape}, seed=seed)
    for name in shapes:
        if name.endswith("running_var"):
            state[name] = 0.5 + state[name].square()
        elif name not in state:
            state[name] = torch.zeros((), dtype=torch.int64)
    return state
