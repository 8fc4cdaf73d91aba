import pytest
import torch
from scipy.ndimage import gaussian_filter

from sowa.nn.maps import gaussian_smooth, upsample_nearest


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("border", "mode"), [("symmetric", "reflect"), ("reflect", "mirror")])
@pytest.mark.parametrize("shape", [(40, 40), (5, 33), (2, 3), (1, 4)])
def test_both_borders_are_those_of_scipy_at_any_size(border, mode, shape):
    maps = random(2, *shape)
    for got, one in zip(gaussian_smooth(maps, 4.0, border), maps, strict=True):
        torch.testing.assert_close(got, torch.from_numpy(gaussian_filter(one.numpy(), 4.0, mode=mode, truncate=4.0)))


def test_nearest_repeats_values():
    grid = random(2, 3, 5)
    enlarged = upsample_nearest(grid, (9, 10))
    assert torch.equal(enlarged, grid.repeat_interleave(3, 1).repeat_interleave(2, 2))
    assert torch.equal(upsample_nearest(grid[:, None], (9, 10))[:, 0], enlarged)
    assert torch.equal(upsample_nearest(grid, (7, 10))[:, :, 0], grid[:, [0, 0, 0, 1, 1, 2, 2], 0])
