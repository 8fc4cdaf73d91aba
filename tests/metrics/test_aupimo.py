"""AUPIMO: what it must be on maps whose value is known, and what it must not depend on."""

import math

import numpy as np
import pytest

from sowa.errors import ConfigError
from sowa.metrics.aupimo import aupimo


@pytest.fixture
def picture():
    rng = np.random.default_rng(3)
    masks = np.zeros((5, 20, 24), bool)
    masks[2, :4, :4] = masks[3, 5:9, 5:15] = masks[4, 12, 12] = True
    return rng.random(masks.shape).astype(np.float32) + masks * np.float32(0.3), masks


def test_normal_images_are_undefined_and_others_are_shares(picture):
    score = aupimo(*picture, bounds=(0.01, 0.3))
    assert np.isnan(score[:2]).all() and ((score[2:] >= 0) & (score[2:] <= 1)).all()


def test_defects_above_all_normal_pixels_have_one(picture):
    maps, masks = picture
    # The nearest rates to the bounds may lie a little inside them.
    assert aupimo(maps + masks * 2, masks, bounds=(0.01, 0.3))[2:] == pytest.approx(1, abs=0.02)
    assert aupimo(maps - masks * 2, masks, bounds=(0.01, 0.3))[2:] == pytest.approx(0)


def test_uniform_scores_have_the_area_under_their_log_curve():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 200, 200)), np.zeros((4, 200, 200), bool)
    masks[3, :100] = True
    expected = (0.3 - 0.01) / math.log(30)  # recall equals rate: the integral of rate over d log(rate)
    assert aupimo(maps, masks, bounds=(0.01, 0.3))[3] == pytest.approx(expected, rel=0.02)


def test_a_score_at_the_threshold_is_called():
    maps = np.array([[[0.0, 1, 2, 3, 4]], [[2.0, 2.5, 1, 0, 0]]])
    masks = np.array([[[0, 0, 0, 0, 0]], [[1, 1, 0, 0, 0]]])
    # Thresholds 0, 1, 2, 3, 4 have rates 1, .8, .6, .4, .2 and recalls 1, 1, 1, 0, 0; from .8 down to .2:
    area = math.log(0.8 / 0.6) + 0.5 * math.log(0.6 / 0.4)
    got = aupimo(maps, masks, bounds=(0.2, 0.8), thresholds=5)
    assert got[1] == pytest.approx(area / math.log(4))


def test_an_image_is_judged_alone(picture):
    maps, masks = picture
    whole, part = aupimo(maps, masks, (0.01, 0.3)), aupimo(maps[:3], masks[:3], (0.01, 0.3))
    assert whole[2] == part[2]
    other = maps.copy()
    other[3:][~masks[3:]] = 9.0  # normal pixels of anomalous images do not set the rate
    assert aupimo(other, masks, (0.01, 0.3))[2] == whole[2]


def test_lists_of_other_sizes(picture):
    maps, masks = picture
    got = aupimo([maps[0][:, :20], maps[1], maps[2][:10]], [masks[0][:, :20], masks[1], masks[2][:10]], (0.01, 0.3))
    assert np.isnan(got[:2]).all() and 0 < got[2] < 1


def test_undefined_everywhere(picture):
    maps, masks = picture
    assert np.isnan(aupimo(maps[2:], masks[2:])).all()  # no normal image
    assert np.isnan(aupimo(np.ones_like(maps), masks)).all()  # one rate only
    assert aupimo([], []).size == 0


@pytest.mark.parametrize("bounds", [(0, 0.1), (0.2, 0.1), (0.1, 0.1), (0.1, 2)])
def test_bounds_are_rates_in_order(picture, bounds):
    with pytest.raises(ConfigError, match="AUPIMO bounds"):
        aupimo(*picture, bounds=bounds)


def test_at_least_two_thresholds(picture):
    with pytest.raises(ConfigError, match="at least 2"):
        aupimo(*picture, thresholds=1)
