"""Checks a `clip_taps*` file: numbering of blocks, both activations, resampled positions.

Patch tokens come from `encode_image`, the row of the class token from the walk that the value-value path takes.
"""

import re

import torch
from torch import Tensor

from sowa.backbones.clip import ClipBackbone, clip_from_state
from sowa.backbones.clip_value import walk_blocks
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare

TOLERANCE = 2e-5
NAME = re.compile(r"out\.(large\.)?(gelu|quickgelu|inctrl)\.(global|tap\.(\d+))")
POSITIONS = "out.large.positional_embedding"


@torch.no_grad()
def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    if golden.entry("block_counting") != "from 1":
        raise UnreadableError(f"{golden.path}: blocks are counted {golden.entry('block_counting')}, expected from 1")
    golden["out.gelu.global"]
    for tap in golden.entry("features_list"):
        golden[f"out.gelu.tap.{tap}"]
    outputs: dict[tuple[bool, bool], dict[str, Tensor]] = {}
    rows = []
    for name in sorted(name for name in golden.tensors if name.startswith("out.")):
        match = NAME.fullmatch(name)
        got = None
        if match:
            large, quick, what = bool(match[1]), match[2] == "quickgelu", match[3]
            if (large, quick) not in outputs:
                outputs[large, quick] = _outputs(golden, large=large, quick_gelu=quick)
            got = outputs[large, quick].get(what)
        elif name == POSITIONS:
            got = _backbone(golden, large=True, quick_gelu=False).visual.positional_embedding
        rows.append(compare(name, got, golden[name], tolerance=TOLERANCE))
    return rows


def _outputs(golden: Golden, *, large: bool, quick_gelu: bool) -> dict[str, Tensor]:
    backbone, images = _backbone(golden, large=large, quick_gelu=quick_gelu), golden[_images(large)]
    tokens = backbone.encode_image(images, range(1, backbone.depth + 1))
    walked = [step.stream[:, :1] for step in walk_blocks(backbone, images)]
    levels = zip(walked, tokens.levels, strict=True)
    taps = {f"tap.{number}": torch.cat(pair, dim=1) for number, pair in enumerate(levels, start=1)}
    return taps | {"global": tokens.cls}


def _backbone(golden: Golden, *, large: bool, quick_gelu: bool) -> ClipBackbone:
    return clip_from_state(
        golden.group("weights."),
        quick_gelu=quick_gelu,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        vision_heads=golden.entry("heads"),
        image_size=golden[_images(large)].shape[-1],
    )


def _images(large: bool) -> str:
    return "in.images_large" if large else "in.images"
