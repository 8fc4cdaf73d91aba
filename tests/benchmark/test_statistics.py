"""Better means something: intervals hold the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.benchmark.statistics import _wins, compare, holm
from sowa.metrics.functional import auroc


def cells(values, scores=None):
    """(category, seed) -> cell with that image AUROC."""
    return {
        at: {"metrics": {"image_auroc": value, "pixel_auroc": value}, "scores": (scores or {}).get(at, [])}
        for at, value in values.items()
    }


def grid(generator, mean, spread=0.02, categories=6, seeds=5):
    return {(f"c{c}", s): mean + spread * generator.standard_normal() for c in range(categories) for s in range(seeds)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_interval_holds_the_mean_and_turns_with_the_sides(seed):
    generator = np.random.default_rng(seed)
    a, b = cells(grid(generator, 0.9)), cells(grid(generator, 0.88))
    one, other = compare(a, b, metric="pixel_auroc"), compare(b, a, metric="pixel_auroc")
    assert one.low <= one.mean <= one.high
    assert other.mean == pytest.approx(-one.mean)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=2e-3)


def test_clear_differences_are_found_and_none_where_there_is_none():
    generator = np.random.default_rng(0)
    good, bad = cells(grid(generator, 0.95)), cells(grid(generator, 0.80))
    assert compare(good, bad, metric="pixel_auroc").words() == "better"
    assert compare(bad, good, metric="pixel_auroc").words() == "worse"
    assert compare(good, good, metric="pixel_auroc").words() == "not distinguishable"


def test_coverage_over_simulated_benchmarks():
    held = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        base = {c: 0.03 * generator.standard_normal() for c in range(10)}
        a = {(f"c{c}", s): base[c] + 0.01 * generator.standard_normal() for c in range(10) for s in range(5)}
        one = compare(cells(a), cells(dict.fromkeys(a, 0.0)), metric="pixel_auroc")
        held += one.low <= 0 <= one.high
    assert held >= 50  # 95 % in truth, a little less for ten categories


def test_only_shared_cells_count_and_none_is_none():
    a, b = cells({("c", 0): 0.9, ("c", 1): 0.8}), cells({("c", 1): 0.7, ("d", 1): 0.1})
    one = compare(a, b, metric="pixel_auroc")
    assert one.cells == 1 and one.mean == pytest.approx(0.1)
    assert compare(a, cells({("e", 0): 0.5})) is None
    assert compare(a, cells({("c", 0): None, ("c", 1): None})) is None


def scored(generator, shift, images=30):
    labels = np.arange(images) % 2
    values = generator.standard_normal(images) + shift * labels
    rows = [{"image": f"{i}", "label": int(labels[i]), "score": float(values[i])} for i in range(images)]
    return auroc(values, labels), rows


def test_images_are_resampled_where_scores_are_at_hand():
    generator = np.random.default_rng(1)
    sides = []
    for shift in (2.5, 0.2):
        values, scores = {}, {}
        for at in ((c, s) for c in ("a", "b") for s in (0, 1)):
            values[at], scores[at] = scored(generator, shift)
        sides.append(cells(values, scores))
    one = compare(*sides)
    assert one.resampled == "images and draws" and one.words() == "better" and one.low > 0
    assert one.low <= one.mean <= one.high


def test_scores_of_other_images_fall_back_to_cells():
    _, rows = scored(np.random.default_rng(0), 1.0)
    other = [row | {"image": f"x{row['image']}"} for row in rows]
    one = compare(cells({("a", 0): 0.9}, {("a", 0): rows}), cells({("a", 0): 0.8}, {("a", 0): other}))
    assert one.resampled == "categories and draws"


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=20))
def test_wins_average_to_the_auroc(values):
    labels = np.arange(len(values)) % 2
    assert _wins(np.array(values), labels).mean() == pytest.approx(auroc(values, labels))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
