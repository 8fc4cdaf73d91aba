"""The references' AUPRO against a loop, and their image score with its corner cases."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sowa.errors import DataError
from sowa.metrics import aupro
from sowa.metrics.legacy import aupro_april, aupro_sowa, linear_thresholds, minmax_over_set, paper_image_score
from tests.metrics.oracle import slow_stretched_aupro


def drawn(seed, normal_pixels_alike=False):
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 12, 10), bool)
    masks[0, 2:5, 2:4] = masks[0, 8, 8] = True
    masks[1, :6] = not normal_pixels_alike
    if normal_pixels_alike:
        masks = masks[[0, 0, 0]]
    return rng.gamma(0.7, 1, masks.shape).astype(np.float32) + masks * rng.random(), masks


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.3, 0.7]))
def test_both_variants_are_the_loop(seed, limit):
    maps, masks = drawn(seed)
    maps = maps.astype(np.float32)
    assert aupro_sowa(maps, masks, limit) == pytest.approx(slow_stretched_aupro(maps, masks, limit, False), abs=1e-9)
    assert aupro_april(maps, masks, limit) == pytest.approx(slow_stretched_aupro(maps, masks, limit, True), abs=1e-9)


@pytest.mark.parametrize("limit", [0.4, 0.5, 0.75])
def test_scores_at_a_threshold_and_rates_at_the_limit_are_left_out(limit):
    # Whole numbers from 0 up are the thresholds themselves, half ones lie between; rates are exact eighths.
    maps = np.array(
        [[[0, 20, 50, 75], [110.5, 150.5, 150, 180]], [[30, 60, 100, 200], [110, 130, 140, 170]]], np.float32
    )
    masks = np.array([[[0, 0, 0, 0], [0, 0, 1, 1]], [[0, 0, 1, 1], [1, 1, 1, 1]]], bool)
    assert aupro_april(maps, masks, limit) == pytest.approx(slow_stretched_aupro(maps, masks, limit, True), abs=1e-12)
    assert aupro_sowa(maps, masks, limit) == pytest.approx(slow_stretched_aupro(maps, masks, limit, False), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_variants_agree_where_every_image_has_as_many_normal_pixels(seed):
    maps, masks = drawn(seed, normal_pixels_alike=True)
    assert aupro_sowa(maps, masks) == pytest.approx(aupro_april(maps, masks), abs=1e-12)


def test_variants_differ_where_images_differ():
    maps, masks = drawn(0)
    assert abs(aupro_sowa(maps, masks) - aupro_april(maps, masks)) > 1e-4


def test_variants_depend_on_the_scale_of_scores_and_the_exact_one_does_not():
    maps, masks = drawn(1)
    stretched = np.exp(2 * maps.astype(np.float64)).astype(np.float32)
    assert aupro(stretched, masks) == aupro(maps.astype(np.float32), masks)
    assert abs(aupro_sowa(stretched, masks) - aupro_sowa(maps, masks)) > 1e-2


def test_undefined_variants_are_nan():
    maps, masks = drawn(2)
    filled = masks.copy()
    filled[2] = True
    assert math.isnan(aupro_sowa(maps, filled)) and not math.isnan(aupro_april(maps, filled))
    for metric in (aupro_sowa, aupro_april):
        assert math.isnan(metric(maps, np.zeros_like(masks)))
        assert math.isnan(metric(maps, np.ones_like(masks)))
        assert math.isnan(metric(np.full_like(maps, 2), masks))
        assert math.isnan(metric(-masks.astype(np.float32), masks))  # every rate is 1: nothing is kept
        assert math.isnan(metric(masks.astype(np.float32), masks))  # every rate is 0: nothing to stretch
        assert math.isnan(metric([], []))


def test_maps_of_other_sizes_pool_their_pixels():
    maps, masks = drawn(3)
    masks[:, 6:8] = False  # so that no region is cut in two
    halves = [[part for picture in stack for part in (picture[:7], picture[7:])] for stack in (maps, masks)]
    assert aupro_april(*halves) == pytest.approx(aupro_april(maps, masks), abs=1e-12)


def test_thresholds_are_200_steps_without_the_end():
    thresholds = linear_thresholds(np.array([[[0.0, 1.0]], [[-1.0, 3.0]]]))
    assert thresholds.size == 200
    assert thresholds[0] == -1 and thresholds[-1] < 3
    assert linear_thresholds(np.ones((2, 3, 3))).size == 0


def test_minmax_spans_zero_to_one_and_is_zero_where_all_are_equal():
    assert minmax_over_set([2.0, 4.0, 3.0]).tolist() == [0.0, 1.0, 0.5]
    assert minmax_over_set([5.0, 5.0]).tolist() == [0.0, 0.0]
    assert minmax_over_set([7.0]).tolist() == [0.0]
    assert minmax_over_set([]).size == 0


def test_paper_score_leaves_q_alone_and_depends_on_the_others():
    q, map_max = [0.2, 0.8, 0.4], [1.0, 3.0, 2.0]
    assert paper_image_score(q, map_max) == pytest.approx([0.1, 0.9, 0.45])
    assert paper_image_score(q[:2], map_max[:2])[1] == paper_image_score(q, map_max)[1]
    assert paper_image_score(q[1:], map_max[1:])[1] == pytest.approx(0.2)  # alone with a higher one: transductive
    assert paper_image_score(q, [2.0] * 3) == pytest.approx([0.1, 0.4, 0.2])
    with pytest.raises(DataError, match="both for every test image"):
        paper_image_score(q, map_max[:2])
