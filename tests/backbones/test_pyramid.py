import pytest
import torch

from sowa.backbones import build_backbone
from sowa.backbones.pyramid import PyramidTokens, level_maps, quarter_taps
from sowa.errors import ConfigError
from sowa.types import Tokens


def tokens(images: int = 4) -> PyramidTokens:
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(images, 3, 4, 6, generator=g), torch.randn(images, 5, 2, 3, generator=g)]
    return PyramidTokens.of_maps(torch.randn(images, 7, generator=g), maps)


def same(one: PyramidTokens, two: PyramidTokens) -> bool:
    tensors = zip((one.cls, *one.levels), (two.cls, *two.levels), strict=True)
    return (one.grid, one.grids) == (two.grid, two.grids) and all(torch.equal(a, b) for a, b in tensors)


def test_levels_are_row_major_and_come_back_as_maps():
    whole = tokens()
    assert whole.grids == ((4, 6), (2, 3)) and whole.grid == (4, 6)
    assert [tuple(level.shape) for level in whole.levels] == [(4, 24, 3), (4, 6, 5)]
    maps = level_maps(whole)
    assert torch.equal(maps[0][1, :, 2, 5], whole.levels[0][1, 2 * 6 + 5])
    assert same(PyramidTokens.of_maps(whole.cls, maps), whole)


def test_rows_and_join_undo_each_other_and_keep_the_class():
    whole = tokens()
    parts = [whole.rows(slice(0, 1)), whole.rows(slice(1, 4))]
    assert all(isinstance(part, PyramidTokens) for part in parts)
    assert [len(part.cls) for part in parts] == [1, 3]
    assert same(type(parts[0]).join(parts), whole)


def test_plain_tokens_share_one_grid_and_half_precision_is_widened():
    level = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    maps = level_maps(Tokens(torch.zeros(2, 1), (level, level.half()), (2, 3)))
    assert [tuple(one.shape) for one in maps] == [(2, 5, 2, 3)] * 2 and maps[1].dtype == torch.float32
    assert torch.equal(maps[0][1, :, 1, 0], level[1, 3])


def test_layers_and_blocks():
    cnn, clip = build_backbone("random_tiny_cnn"), build_backbone("random_tiny")
    assert quarter_taps(cnn, None, slice(0, 3)) == quarter_taps(clip, None, slice(0, 3)) == (1, 2, 3)
    assert quarter_taps(cnn, [4, 2], slice(1, 3)) == (4, 2)
    clip.depth = 12
    assert quarter_taps(clip, None, slice(1, 3)) == (6, 9)
    clip.depth = 1
    assert quarter_taps(clip, None, slice(1, 3)) == (1,)
    with pytest.raises(ConfigError, match="taps="):
        quarter_taps(cnn, [], slice(0, 3))
