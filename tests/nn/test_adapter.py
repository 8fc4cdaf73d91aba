import pytest
import torch

from sowa.errors import ConfigError
from sowa.nn.adapter import FrozenWeights, LinearAdapter, WindowAdapter

WIDTH = 16


def frozen(width: int = WIDTH) -> FrozenWeights:
    g = torch.Generator().manual_seed(0)
    return FrozenWeights(
        torch.randn(3 * width, width, generator=g),
        torch.randn(width, width, generator=g),
        torch.randn(width, generator=g),
    )


def tokens(grid, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, grid[0] * grid[1], WIDTH, generator=torch.Generator().manual_seed(1))


def adapter(grid, **options) -> WindowAdapter:
    torch.manual_seed(0)
    return WindowAdapter(width=WIDTH, grid=grid, heads=4, cpb_dim=8, **options).eval()


def test_identity_where_both_norms_are_silent():
    one = adapter((4, 4), window=2)
    for block in one.blocks:
        for norm in (block.norm_attention, block.norm_linear):
            norm.weight.data.zero_()
    assert torch.equal(one(tokens((4, 4)), frozen()), tokens((4, 4)))


def test_trainable_parameters_of_the_paper():
    one = WindowAdapter(width=1024, grid=(24, 24), window=12, heads=8)
    assert sum(p.numel() for p in one.parameters()) == 1_053_384


@pytest.mark.parametrize("grid", [(4, 4), (5, 5), (5, 7), (3, 6)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_any_grid_and_depth(grid, depth):
    out = adapter(grid, window=3, depth=depth)(tokens(grid), frozen())
    assert out.shape == (2, grid[0] * grid[1], WIDTH)
    assert out.isfinite().all()


def test_padding_changes_nothing_for_the_windows_it_does_not_touch():
    whole, padded = adapter((4, 4), window=2), adapter((4, 5), window=2)
    padded.load_state_dict(whole.state_dict())
    field = torch.randn(1, 4, 5, WIDTH, generator=torch.Generator().manual_seed(2))
    left = whole(field[:, :, :4].flatten(1, 2), frozen()).reshape(1, 4, 4, WIDTH)
    both = padded(field.flatten(1, 2), frozen()).reshape(1, 4, 5, WIDTH)
    torch.testing.assert_close(both[:, :, :4], left)


def test_a_window_past_the_grid_is_the_whole_grid():
    small, large = adapter((4, 4), window=4, depth=2), adapter((4, 4), window=9, depth=2)
    assert [block.shift for block in large.blocks] == [0, 0]
    large.load_state_dict(small.state_dict())
    assert torch.equal(small(tokens((4, 4)), frozen()), large(tokens((4, 4)), frozen()))


def test_second_block_crosses_the_border_of_windows():
    reach = []
    for depth in (1, 2):
        one = adapter((4, 4), window=2, depth=depth)
        base = tokens((4, 4), batch=1)
        moved = base.clone()
        moved[0, 0] += 1
        reach.append(int(((one(base, frozen()) - one(moved, frozen())).abs().amax(dim=-1) > 1e-7).sum()))
    assert reach[0] == 4 < reach[1]


def test_images_do_not_meet():
    one = adapter((4, 4), window=2, depth=2)
    both = tokens((4, 4))
    torch.testing.assert_close(one(both, frozen())[:1], one(both[:1], frozen()))


def test_hidden_layers():
    assert [tuple(p.shape) for p in LinearAdapter(width=8, hidden=[5, 3]).parameters()] == [(5, 8), (3, 5), (8, 3)]


@pytest.mark.parametrize("options", [{"window": 0}, {"window": 2, "depth": 0}, {"window": 2, "heads": 5}])
def test_impossible_sizes_are_one_line(options):
    with pytest.raises(ConfigError, match=r"^\S+=\d+ "):
        WindowAdapter(**({"width": WIDTH, "grid": (4, 4), "heads": 4} | options))
