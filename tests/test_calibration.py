"""The threshold that a handful of normal scores gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sowa.calibration import SPREAD_FLOOR, SPREADS, support_threshold

scores = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(scores)
def test_above_the_middle_and_the_order_does_not_matter(values):
    given_scores = torch.tensor(values)
    threshold = support_threshold(given_scores)
    assert threshold >= given_scores.double().quantile(0.5).item() + SPREADS * SPREAD_FLOOR - 1e-9
    assert threshold == pytest.approx(support_threshold(given_scores.flip(0)))


@given(scores, st.floats(0, 1))
def test_moves_with_the_scores(values, by):
    given_scores = torch.tensor(values, dtype=torch.float64)
    assert support_threshold(given_scores + by) == pytest.approx(support_threshold(given_scores) + by)


def test_one_shot_has_a_threshold():
    assert support_threshold(torch.tensor([0.5])) == pytest.approx(0.5 + SPREADS * SPREAD_FLOOR)


def test_one_odd_shot_does_not_lift_the_threshold():
    assert support_threshold(torch.tensor([0.44, 0.45, 0.46, 0.9])) < 0.55


def test_unrest_does():
    calm, restless = torch.tensor([0.48, 0.5, 0.52]), torch.tensor([0.3, 0.5, 0.7])
    assert support_threshold(restless) > support_threshold(calm)
