"""What may be promised of a threshold: exact statements are checked exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sowa.calibration import (
    choose_cut,
    conformal_p,
    estimated_threshold,
    false_alarm_bound,
    normals_needed,
    odd_ones,
    probability_above,
    recall_interval,
)
from sowa.errors import ConfigError, DataError

positive = st.floats(1e-3, 1e3)
scores = st.lists(positive, min_size=1, max_size=12)


@pytest.mark.parametrize(("normals", "bound"), [(1, 0.95), (4, 0.5271), (59, 0.0495), (299, 0.00997)])
def test_none_of_n_above(normals, bound):
    assert false_alarm_bound(0, normals) == pytest.approx(1 - 0.05 ** (1 / normals)) == pytest.approx(bound, abs=1e-4)


def test_how_many_are_needed():
    assert normals_needed(0.05) == 59 and normals_needed(0.01) == 299
    for rate in (0.3, 0.05, 0.01):
        assert false_alarm_bound(0, normals_needed(rate)) <= rate < false_alarm_bound(0, normals_needed(rate) - 1)


def test_nothing_is_known_without_a_picture_below():
    assert false_alarm_bound(0, 0) == false_alarm_bound(3, 3) == 1


@pytest.mark.parametrize("normals", [1, 4, 20])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.8])
def test_the_bound_holds_as_often_as_it_says(normals, rate):
    """Summed over all outcomes of a true rate, the bound fails to be above it in at most 5 % of cases."""
    wrong = sum(
        stats.binom.pmf(seen, normals, rate)
        for seen in range(normals + 1)
        if false_alarm_bound(seen, normals) < rate - 1e-12
    )
    assert wrong <= 0.05 + 1e-12


def test_the_interval_of_a_recall():
    low, high = recall_interval(9, 10)
    assert low < 0.9 < high and recall_interval(0, 5)[0] == 0 and recall_interval(5, 5)[1] == 1
    wanted = stats.binomtest(9, 10).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((wanted.low, wanted.high))


@given(st.lists(st.floats(-10, 10), min_size=10, max_size=60, unique=True), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_by_rank_the_target_holds_exactly(values, target):
    """Each of n + 1 images in turn is the new one and the others set the threshold: at most the target's share of
    them is above. That is what exchangeable means, so it holds for any distribution."""
    if target * len(values) < 1:
        return
    alarms = 0
    for place, value in enumerate(values):
        cut = choose_cut(values[:place] + values[place + 1 :], target=target)
        assert cut.ranked
        alarms += value > cut.threshold
    assert alarms <= target * len(values) + 1e-9


def test_rank_and_counts():
    cut = choose_cut(list(range(1, 20)), target=0.1)
    assert cut.ranked and cut.threshold == 18 and cut.exceeding == 1 and cut.normals == 19 and cut.middle == 10
    assert cut.bound == false_alarm_bound(1, 19)
    assert not choose_cut(list(range(1, 18)), target=0.05).ranked


@given(scores, st.sampled_from([0.01, 0.05, 0.2]))
def test_an_estimate_is_above_the_middle_and_scales(values, target):
    threshold = estimated_threshold(values, target=target)
    assert threshold > np.median(values)
    assert estimated_threshold([3 * value for value in values], target=target) == pytest.approx(3 * threshold)
    assert threshold == pytest.approx(estimated_threshold(values[::-1], target=target))
    assert threshold <= estimated_threshold(values, target=target / 2)
    assert choose_cut(values, target=1e-4, largest=True).threshold >= max(values)


def test_more_normals_make_an_estimate_bolder():
    rng = np.random.default_rng(0)
    values = rng.normal(1, 0.08, 40)
    thresholds = [estimated_threshold(values[:count], target=0.01) for count in (1, 4, 40)]
    assert thresholds[0] > thresholds[1] > thresholds[2] > 1


def test_the_estimate_keeps_its_target_where_its_assumption_holds():
    """Gaussian scores of the expected spread: over many sets of four the alarms stay below the target."""
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(300):
        threshold = estimated_threshold(rng.normal(1, 0.08, 4), target=0.05)
        rates.append(1 - stats.norm.cdf(threshold, 1, 0.08))
    assert 0.005 < np.mean(rates) < 0.055


def test_one_odd_image_of_many_does_not_set_the_estimate():
    calm = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0]
    assert estimated_threshold([*calm, 5.0], target=0.05) < 1.3
    assert odd_ones([*calm, 5.0], 1.3) == [6]


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0, 0.0], [1.0] * 50, [-3.0, -3.0]])
def test_images_that_are_all_alike(values):
    for target in (0.01, 0.5):
        cut = choose_cut(values, target=target)
        assert cut.threshold > cut.middle and cut.exceeding == 0


@given(scores, st.floats(1e-3, 1e3))
def test_conformal_p(values, score):
    p = conformal_p(score, values)
    assert 0 < p <= 1 and p == (1 + sum(value >= score for value in values)) / (len(values) + 1)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_probability_never_falls_with_the_score(score, other, threshold, middle):
    low, high = sorted((score, other))
    first, second = (probability_above(value, threshold=threshold, middle=middle) for value in (low, high))
    assert 0 <= first <= second <= 1
    assert probability_above(threshold, threshold=threshold, middle=middle) == 0.5


def test_the_middle_of_normal_scores_is_unlikely_to_be_defective():
    assert probability_above(1.0, threshold=1.4, middle=1.0) == pytest.approx(0.05)
    assert probability_above(1.8, threshold=1.4, middle=1.0) == pytest.approx(0.95)


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 1.0], [[1.0]]])
def test_scores_that_cannot_be(values):
    with pytest.raises(DataError):
        choose_cut(values, target=0.1)


@pytest.mark.parametrize("target", [0, 1, -0.1, float("nan")])
def test_targets_that_cannot_be(target):
    with pytest.raises(ConfigError):
        choose_cut([1.0], target=target)
    with pytest.raises(ConfigError):
        normals_needed(target)
