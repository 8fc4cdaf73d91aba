"""The threshold of one good picture, and of few: never not a number, never below what a lit copy shows."""

from dataclasses import replace
from math import isfinite, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sowa.predictor.learn import MOVED, Evidence, remember
from sowa.predictor.predictor import Predictor
from sowa.predictor.scale import UNLIKE, Known, from_evidence
from tests.predictor.parts import part, parts

NOTHING = Evidence((), (), (), ())
SCALED, DISTANCES = Known(0.8, 1.0), Known(None, None)
QUARTERS = (-0.2, -0.1, 0.1, 0.2)
LIT = (-1.0, -1.1, -0.9, -1.0)
ONE = Evidence(QUARTERS, (), (1.0, 2.0, 3.0, 2.0, *LIT), (), moved=MOVED)


def threshold(evidence: Evidence, *, shots: int = 1, target: float = 0.02, known: Known = SCALED) -> float:
    return from_evidence(evidence, NOTHING, shots=shots, target=target, known=known).threshold


def test_one_picture_on_its_own_scale():
    """Twice as far as the moved copies, and the quantile of Student's distribution of the spread to expect."""
    wanted = UNLIKE * 2.0 + stats.t.ppf(0.98, 8) * 0.8
    assert threshold(ONE) == pytest.approx(wanted)
    calm = replace(ONE, copy_scores=(-1.0,) * MOVED + LIT)
    assert threshold(calm) == pytest.approx(wanted - UNLIKE * 2.0), "copies that are calmer take nothing away"
    assert threshold(ONE, target=0.01) > threshold(ONE) > threshold(ONE, target=0.2)


def test_a_lit_copy_never_alarms_and_a_moved_one_seldom():
    loud = replace(ONE, copy_scores=(1.0, 2.0, 3.0, 2.0, -1.0, 50.0, -1.0, -1.0))
    assert threshold(loud) == 50
    # One way of moving that a part never moves in does not decide.
    odd = replace(ONE, copy_scores=(1.0, 2.0, 90.0, 2.0, *LIT))
    assert threshold(odd) == threshold(ONE)


def test_several_pictures_tell_of_themselves():
    several = Evidence((0.0, 0.3), (), (-2.0, -1.9), ())
    paid = stats.t.ppf(0.98, 9) * sqrt((8 * 0.8**2 + 0.045) / 9) * sqrt(1.5)
    assert threshold(several, shots=2) == pytest.approx(0.15 + paid)


def test_distances_have_no_scale_of_their_own():
    one = Evidence((), (), (1.0, 2.0, 3.0, 2.0, 0.1, 0.1, 0.1, 0.1), (), moved=MOVED)
    assert threshold(one, known=DISTANCES) > 3


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=8),
    st.sampled_from([SCALED, DISTANCES]),
    st.sampled_from([0.001, 0.02, 0.5]),
)
def test_always_a_number_above_the_middle(scores, copies, known, target):
    evidence = Evidence(tuple(scores), (), tuple(copies), (), moved=MOVED)
    calibration = from_evidence(evidence, NOTHING, shots=1, target=target, known=known)
    assert isfinite(calibration.threshold) and calibration.threshold >= calibration.middle
    assert calibration.threshold >= max(copies[MOVED:])


@pytest.mark.parametrize("model", ["sowa_plus", "patchcore", "padim", "sowa"])
def test_one_picture_does_not_call_everything_defective(model):
    detector = Predictor.fit([part(0)], name="disc", model=model, backbone="random_tiny")
    verdicts = [detector.predict(picture).verdict for picture in parts(8, first=20)]
    assert verdicts.count("good") >= 6


def test_moved_copies_come_first():
    detector = Predictor.fit([part(0)], backbone="random_tiny")
    own, view = detector._detector, detector._content.view
    _, one = remember(own, view, "disc", [part(0)], lambda *_: None)
    _, two = remember(own, view, "disc", parts(2), lambda *_: None)
    assert one.moved == MOVED and len(one.copy_scores) == 2 * MOVED and two.moved == 0
    assert max(one.copy_scores[:MOVED]) > max(one.copy_scores[MOVED:]), "moving changes more than light"
