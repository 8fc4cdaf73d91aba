"""Token pyramids drawn from a seed, for methods that begin at the maps of a convolutional network."""

import torch

from sowa.backbones.pyramid import PyramidTokens, level_maps

SIZE = 24
"""Side of the images such tokens stand for."""


def pyramid(images: int, *, seed: int = 0, widths=(4, 8, 16), side: int = 8, pooled: int = 6) -> PyramidTokens:
    """Levels of halving grids from `side` x `side`."""
    g = torch.Generator().manual_seed(seed)
    maps = [torch.randn(images, width, side >> n, side >> n, generator=g) for n, width in enumerate(widths)]
    return PyramidTokens.of_maps(torch.randn(images, pooled, generator=g), maps)


def changed(tokens: PyramidTokens, level: int, row: int, column: int) -> PyramidTokens:
    """The same tokens with one place of one level moved far away."""
    maps = [one.clone() for one in level_maps(tokens)]
    maps[level][:, :, row, column] += 5
    return PyramidTokens.of_maps(tokens.cls, maps)
