"""Resampling by matrices is torch's own, to rounding."""

import pytest
import torch

from sowa.export.matrices import apart, enlarging, shrinking, smoothing
from sowa.nn.maps import gaussian_smooth, upsample, upsample_nearest


def test_shrinking_is_bicubic_with_antialiasing():
    pictures = torch.rand(2, 3, 56, 56)
    wanted = torch.nn.functional.interpolate(pictures, (28, 28), mode="bicubic", antialias=True, align_corners=False)
    rows = shrinking(56, 28)
    assert torch.allclose(apart(rows, rows, pictures), wanted, atol=1e-6)
    assert rows.min() < 0  # bicubic and not an average


@pytest.mark.parametrize("border", ["symmetric", "reflect"])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 9.0])
def test_enlarging_and_smoothing_in_one(sigma, border):
    maps = torch.randn(3, 5, 7)
    smooth = smoothing(40, sigma, border)
    for nearest, enlarged in (
        (False, upsample(maps, (40, 40), align_corners=False)),
        (True, upsample_nearest(maps, (40, 40))),
    ):
        rows, columns = (smooth @ enlarging(side, 40, nearest=nearest) for side in (5, 7))
        assert torch.allclose(apart(rows, columns, maps), gaussian_smooth(enlarged, sigma, border), atol=2e-6)
