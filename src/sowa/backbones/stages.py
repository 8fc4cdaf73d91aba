"""The first stages of a small convolutional network, for a method that reads a second tower beside its backbone.

It is timm's `tf_efficientnet_lite0` without timm, so that a first prediction is quick. B images, S pixels, h w grid, D
token width.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MODEL", "STAGES", "FirstStages", "kept"]

MODEL = "tf_efficientnet_lite0"
STAGES = (3, 4, 5)
"""Of the seven stages of the network, counted from 0, those whose last maps are read: 1/16, 1/16 and 1/32 of the
picture, 80, 112 and 192 values wide."""
SHARE, STRIDE = 5 / 7, 32
EPSILON = 1e-3
"""Added to variances where they normalise."""


class _Stage(NamedTuple):
    kernel: int
    stride: int
    width: int
    blocks: int


LAYOUT = (
    _Stage(3, 1, 16, 1),  # without widening
    _Stage(3, 2, 24, 2),
    _Stage(5, 2, 40, 2),
    _Stage(3, 2, 80, 3),
    _Stage(5, 1, 112, 3),
    _Stage(5, 2, 192, 4),
)
STEM = 32


class FirstStages(nn.Module):
    """Frozen, in float32: convolutions in bfloat16 moved its tokens by 7 to 9 %. Normalisation is folded into the
    convolutions before it, and channels come last: three times as fast on two cores (14 ms a picture of 320 px)."""

    LEAST_SIZE: ClassVar[int] = 224
    """Pixels a side."""

    def __init__(self, tensors: Mapping[str, Tensor], *, mean: Sequence[float], std: Sequence[float]):
        """tensors: of `kept`. ValueError if they are not those of the network."""
        super().__init__()
        wanted = _shapes()
        if {name: tuple(value.shape) for name, value in tensors.items()} != wanted:
            raise ValueError("not the tensors of the network")
        self.stem = _Convolution(tensors, "conv_stem", "bn1", stride=2, acts=True)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(tensors, f"blocks.{number}.{place}", stage.stride if place == 0 else 1)
                    for place in range(stage.blocks)
                )
            )
            for number, stage in enumerate(LAYOUT)
        )
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @staticmethod
    def size_beside(image_size: int) -> int:
        """Pixels a side that it looks at beside a tower that looks at `image_size`: five sevenths (320 of 448), 224 at
        least, a multiple of 32."""
        return max(FirstStages.LEAST_SIZE, round(image_size * SHARE / STRIDE) * STRIDE)

    def encode(self, images_B3SS: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
        """Float 0..1 -> of each of `STAGES` the tokens [B, h w, D] and their grid."""
        values = (images_B3SS.to(self.mean.dtype) - self.mean) / self.std
        values, found = self.stem(values.contiguous(memory_format=torch.channels_last)), []
        for number, stage in enumerate(self.stages):
            values = stage(values)
            if number in STAGES:
                grid = (values.shape[-2], values.shape[-1])
                found.append((values.flatten(2).transpose(1, 2), grid))
        return found


class _Convolution(nn.Module):
    """With the normalisation that followed it, and TensorFlow's padding: what a stride of two leaves over on one side
    is padded at the end."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, normal: str, *, stride: int = 1, acts: bool):
        super().__init__()
        weight_OIkk = tensors[f"{name}.weight"].float()
        slope_O = tensors[f"{normal}.weight"] / (tensors[f"{normal}.running_var"] + EPSILON).sqrt()
        self.weight = nn.Parameter(weight_OIkk * slope_O[:, None, None, None])
        self.bias = nn.Parameter(tensors[f"{normal}.bias"] - tensors[f"{normal}.running_mean"] * slope_O)
        self.kernel, self.stride, self.acts = weight_OIkk.shape[-1], stride, acts
        self.groups = len(weight_OIkk) if weight_OIkk.shape[1] == 1 else 1

    def forward(self, values: Tensor) -> Tensor:
        if self.kernel == 1:  # with channels last, one product of all places: a quarter faster
            values = F.linear(values.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
            return values.clamp_(0, 6) if self.acts else values
        padding = self.kernel // 2
        if self.stride > 1:
            height, width = (self._missing(side) for side in values.shape[-2:])
            values = F.pad(values, (width // 2, width - width // 2, height // 2, height - height // 2))
            padding = 0
        values = F.conv2d(values, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return values.clamp_(0, 6) if self.acts else values

    def _missing(self, side: int) -> int:
        return max(0, (-(-side // self.stride) - 1) * self.stride + self.kernel - side)


class _Block(nn.Module):
    """Inverted residual: widened, each channel by itself, narrowed, added to what came in where nothing changed size.
    The very first block is not widened."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int):
        super().__init__()
        steps = _steps(tensors, name)
        self.steps = nn.Sequential(
            *(
                _Convolution(
                    tensors,
                    f"{name}.{step}",
                    f"{name}.bn{place}",
                    stride=stride if step == "conv_dw" else 1,
                    acts=place < len(steps),
                )
                for place, step in enumerate(steps, start=1)
            )
        )
        first, last = self.steps[0].weight, self.steps[-1].weight
        self.adds = stride == 1 and len(steps) == 3 and first.shape[1] == len(last)

    def forward(self, values: Tensor) -> Tensor:
        return values + self.steps(values) if self.adds else self.steps(values)


def _steps(names: Mapping[str, object], block: str) -> tuple[str, ...]:
    return ("conv_pw", "conv_dw", "conv_pwl") if f"{block}.conv_pwl.weight" in names else ("conv_dw", "conv_pw")


def kept(visual: nn.Module) -> dict[str, Tensor]:
    """What is read of timm's `MODEL`, by its names: convolutions in half precision, what normalises in single."""
    state = visual.state_dict()
    found = {name: state[name] for name in _shapes()}
    return {name: (value.half() if value.ndim == 4 else value.float()).contiguous() for name, value in found.items()}


def _shapes() -> dict[str, tuple[int, ...]]:
    """Of every tensor of the network as far as it is read, by timm's names."""
    convolutions = {"conv_stem": ("bn1", (STEM, 3, 3, 3))}
    entering = STEM
    for number, stage in enumerate(LAYOUT):
        for place in range(stage.blocks):
            name, wide = f"blocks.{number}.{place}", entering if number == 0 else 6 * entering
            deep = (wide, 1, stage.kernel, stage.kernel)
            if number == 0:
                sides = {"conv_dw": deep, "conv_pw": (stage.width, wide, 1, 1)}
            else:
                sides = {"conv_pw": (wide, entering, 1, 1), "conv_dw": deep, "conv_pwl": (stage.width, wide, 1, 1)}
            for step, (own, shape) in enumerate(sides.items(), start=1):
                convolutions[f"{name}.{own}"] = (f"{name}.bn{step}", shape)
            entering = stage.width
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (normal, shape) in convolutions.items():
        shapes[f"{name}.weight"] = shape
        shapes |= {f"{normal}.{entry}": shape[:1] for entry in ("weight", "bias", "running_mean", "running_var")}
    return shapes
