"""Counts, shares and charts behind the page."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sowa.metrics.curve import image_curve
from sowa.report import charts
from sowa.report.gather import MOST_TYPES, Shortlist, gather
from sowa.report.rows import Row
from sowa.report.words import clean, percent, shell, short_path


@given(st.lists(st.floats(-5, 5), max_size=40), st.integers(0, 6))
def test_shortlist_is_the_head_of_the_sorted_list(values, most):
    short = Shortlist(most)
    for value in values:
        short.offer(value, Row(str(value), "good", value))
    assert [row.score for row in short.rows()] == sorted(values, reverse=True)[:most]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.999999, "99.9 %"),
        (0.0051, "0.51 %"),
        (1e-6, "0.0001 %"),
        (0.053, "5.3 %"),
        (0.987, "99 %"),
        (math.nan, "-"),
    ],
)
def test_percent(share, words):
    assert percent(share) == words


def test_types_beyond_the_limit_share_a_line():
    rows = [Row(str(i), "good", 0.0, threshold=1.0, label=1, defect=f"type {i}") for i in range(MOST_TYPES + 7)]
    found = gather(rows, name="x", most=1)
    assert len(found.defects) == MOST_TYPES + 1 and found.defects["further types"] == [0, 7]
    assert found.found == (0, MOST_TYPES + 7)


def test_what_cannot_be_printed_is_marked():
    assert clean("a\x00b\u202ec\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert len(clean("x" * 999)) == 300


def test_words_of_a_command():
    assert shell(["sowa", "predict", "a b", "it's", ""]) == "sowa predict 'a b' 'it'\\''s' ''"
    assert shell("sowa info x") == "sowa info x"


def test_a_path_tells_its_last_folders_only():
    assert short_path("/mnt/plant/line 3/good/1.png") == ("line 3/good", "1.png")
    assert short_path("C:\\a\\b\\c\\1.png") == ("b/c", "1.png")
    assert short_path("1.png") == ("", "1.png")


def test_no_bar_holds_both_verdicts():
    scores = np.linspace(0, 1, 97)
    edges = charts._edges([scores], 0.4321)
    assert np.abs(edges - 0.4321).min() < 1e-12 and edges[0] <= 0 and edges[-1] >= 1


def test_charts_are_text_in_the_pages_colours():
    scores = np.array([0.1, 0.2, 0.3, 0.9])
    text = charts.score_chart(scores, scores + 1, scores[:0], threshold=0.5)
    assert "threshold 0.5" in text and "var(--good)" in text and "var(--bad)" in text
    assert "http" not in text and "<metadata" not in text and not any(f"#0{i}0{i}0{i}" in text for i in range(1, 7))
    assert charts.score_chart(scores[:0], scores[:0], scores[:0], threshold=1.0) == ""


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_roc_points_enclose_the_auroc(pairs):
    scores, labels = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], int)
    curve = image_curve(scores, labels)
    if not curve.defined:
        return
    x, y = charts.roc_points(curve)
    assert x[0] == y[0] == 0 and x[-1] == y[-1] == 1 and (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    assert (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(curve.auroc())


def test_drawing_again_gives_the_same():
    scores = np.array([0.1, 0.2, 0.3, 0.9])
    curve = image_curve(scores, np.array([0, 1, 0, 1]))
    assert charts.roc_chart(curve, operating=(0.5, 1.0)) == charts.roc_chart(curve, operating=(0.5, 1.0))
    assert "at the threshold" in charts.pr_chart(curve, operating=(0.5, 1.0))
