"""Masked windows: what the class token says of a few neighbouring patches when all others are absent (WinCLIP).

B images, L tokens, D token width, E joint width, W windows of one scale, n = 1 + side * side tokens of a window.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.clip import ClipBackbone
from sowa.backbones.vit import VitBackbone
from sowa.errors import ConfigError

__all__ = ["WindowPass", "check_windows", "encode_windows", "window_index"]

TOKENS_AT_ONCE = 16384
"""Tokens in one pass of the windows: bounds its memory whatever the number of images and windows."""


class WindowPass(NamedTuple):
    """One full pass and the windows of every scale."""

    cls: Tensor
    """[B, E] projected class token of the whole image, as `encode_image` gives it."""
    patches: Tensor
    """[B, L, D] tokens of the last block after the final norm, not projected; class token dropped."""
    windows: tuple[Tensor, ...]
    """One [B, W, E] per scale: the projected class token of each window, row-major by the window's first patch."""


class _Tower(NamedTuple):
    """A vision transformer cut where windows need it."""

    stem: Callable[[Tensor], Tensor]
    """Normalised pixels -> [B, 1 + L, D] input of the first block: class token first, positions added."""
    blocks: Callable[[Tensor], Tensor]
    norm: Callable[[Tensor], Tensor]


def window_index(grid: tuple[int, int], side: int) -> Tensor:
    """[side * side, W] row-major patch numbers of each window at stride 1, windows row-major by their first patch."""
    rows, columns = grid
    patches = torch.arange(rows * columns).view(rows, columns)
    return patches.unfold(0, side, 1).unfold(1, side, 1).flatten(2).flatten(0, 1).T.contiguous()


def check_windows(backbone: Backbone, scales: Sequence[int]) -> None:
    """ConfigError unless the backbone can see windows of each of the scales (their sides in patches)."""
    _tower(backbone)
    largest = min(backbone.grid)
    for side in scales:
        if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= largest:
            raise ConfigError(f"windows of {side!r} patches do not fit: give whole numbers in 1..{largest}")


def encode_windows(backbone: Backbone, images_B3HW: Tensor, scales: Sequence[int]) -> WindowPass:
    """The full pass, then each window alone with the class token, at its own positions.

    images: as `Backbone.encode_image`. scales: sides of the windows in patches.
    A window of side s costs 1 + s * s tokens: at scales 2 and 3 on a 15 x 15 grid 12 times the full pass.
    """
    check_windows(backbone, scales)
    tower = _tower(backbone)
    input_BTD = tower.stem(backbone._normalised(images_B3HW))
    whole_BTD = tower.norm(tower.blocks(input_BTD))
    windows = tuple(_windows(backbone, tower, input_BTD, side) for side in scales)
    whole_BTD = whole_BTD.float()
    return WindowPass(cls=backbone.project(whole_BTD[:, 0]), patches=whole_BTD[:, 1:], windows=windows)


def _windows(backbone: Backbone, tower: _Tower, input_BTD: Tensor, side: int) -> Tensor:
    """[B, W, E]. Dropping patches from the input of the first block equals masking them in all of them."""
    places_Wn = 1 + window_index(backbone.grid, side).T.to(input_BTD.device)
    places_Wn = torch.cat((torch.zeros_like(places_Wn[:, :1]), places_Wn), dim=1)
    flat_BWnD = input_BTD[:, places_Wn].flatten(0, 1)
    parts = flat_BWnD.split(max(1, TOKENS_AT_ONCE // places_Wn.shape[1]))
    cls = torch.cat([backbone.project(tower.norm(tower.blocks(part)[:, 0]).float()) for part in parts])
    return cls.unflatten(0, (len(input_BTD), len(places_Wn)))


def _tower(backbone: Backbone) -> _Tower:
    if isinstance(backbone, ClipBackbone):
        visual = backbone.visual
        return _Tower(lambda pixels: _clip_stem(backbone, pixels), visual.transformer, visual.ln_post)
    if isinstance(backbone, VitBackbone):
        visual = backbone.visual
        return _Tower(lambda pixels: _vit_stem(backbone, pixels), visual.blocks, visual.norm)
    raise ConfigError(
        f"backbone '{backbone.name}' has no single tokens to mask: windows need a vision transformer,"
        " choose clip, compact or random_tiny"
    )


def _clip_stem(backbone: ClipBackbone, pixels: Tensor) -> Tensor:
    visual = backbone.visual
    patches_BLD = visual.conv1(pixels.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
    cls_B1D = visual.class_embedding.expand(len(pixels), 1, -1)
    return visual.ln_pre(torch.cat((cls_B1D, patches_BLD), dim=1) + visual.positional_embedding)


def _vit_stem(backbone: VitBackbone, pixels: Tensor) -> Tensor:
    visual = backbone.visual
    patches_BLD = visual.patch_embed(pixels.to(visual.patch_embed.proj.weight.dtype))
    cls_B1D = visual.cls_token.expand(len(pixels), -1, -1)
    return visual.norm_pre(torch.cat((cls_B1D, patches_BLD), dim=1) + visual.pos_embed)
