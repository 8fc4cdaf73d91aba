"""Stand-ins for a backbone, for golden files that begin at its tokens."""

import torch

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import PyramidTokens
from tests.parity.reader import Golden, UnreadableError


def blank_backbone(image_size: int, levels: int) -> Backbone:
    """It encodes nothing: detectors read its size and its depth alone."""
    return Backbone(
        name="golden",
        image_size=image_size,
        patch=1,
        width=1,
        joint=1,
        depth=levels,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        text=None,
        text_trained=False,
        weights_id="golden",
    )


def tokens_of(golden: Golden, prefix: str, levels: tuple[int, ...], pooled: str | None = None) -> PyramidTokens:
    """`<prefix>layerN` of a file as tokens; without a pooled vector a blank one."""
    maps = [golden[f"{prefix}layer{number}"] for number in levels]
    return PyramidTokens.of_maps(torch.zeros(len(maps[0]), 1) if pooled is None else golden[pooled], maps)


def layer_numbers(golden: Golden) -> tuple[int, ...]:
    """Numbers N of the `in.layerN` tensors, ascending."""
    return tuple(sorted(int(name) for name in golden.group("in.layer")))


def insist(golden: Golden, **wanted: object) -> None:
    """Metadata that must agree with the tensors, or that names the one rule this implementation has."""
    for name, value in wanted.items():
        if golden.entry(name) != value:
            raise UnreadableError(f"{golden.path}: metadata '{name}' is {golden.entry(name)!r}, not {value!r}")


def sides(tokens: PyramidTokens) -> list[int]:
    """Rows of each level's grid."""
    return [rows for rows, _ in tokens.grids]


def widths(tokens: PyramidTokens) -> list[int]:
    """Channels of each level."""
    return [level.shape[-1] for level in tokens.levels]
