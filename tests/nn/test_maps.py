import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from sowa.nn.maps import enlarge, gaussian_smooth, to_grid, top_mean, upsample


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.5, 1.0, 4.0]), st.integers(0, 99))
def test_smoothing_is_scipys(height, width, sigma, seed):
    field = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))
    want = np.stack([gaussian_filter(one, sigma) for one in field.double().numpy()])
    np.testing.assert_allclose(gaussian_smooth(field, sigma).numpy(), want, atol=2e-6)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.sampled_from(["symmetric", "reflect"]),
)
def test_enlarging_is_upsampling_and_smoothing(grid, size, sigma, border):
    field = torch.randn(2, *grid, generator=torch.Generator().manual_seed(sum(size)))
    wanted = gaussian_smooth(upsample(field, size, align_corners=False), sigma, border)
    assert torch.allclose(enlarge(field, size, sigma, border), wanted, atol=3e-6)
    assert torch.allclose(enlarge(field[0], size, sigma, border), wanted[0], atol=3e-6)


def test_sigma_zero_changes_nothing():
    field = torch.randn(1, 5, 5)
    assert gaussian_smooth(field, 0) is field


def test_aligned_corners_keep_the_corner_values():
    field = torch.randn(1, 3, 4)
    large = upsample(field, (9, 12))
    assert torch.equal(large[0, [0, 0, -1, -1], [0, -1, 0, -1]], field[0, [0, 0, -1, -1], [0, -1, 0, -1]])


def test_upsampling_takes_channels_or_none():
    field = torch.randn(2, 3, 4)
    assert torch.equal(upsample(field, (6, 8)), upsample(field[:, None], (6, 8))[:, 0])


def test_grid_is_row_major():
    assert to_grid(torch.arange(6)[None], (2, 3))[0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("fraction", "want"), [(0.0001, 9.0), (0.2, 8.5), (1.0, 4.5)])
def test_top_mean(fraction, want):
    assert top_mean(torch.arange(10.0).reshape(1, 2, 5), fraction).tolist() == [want]
