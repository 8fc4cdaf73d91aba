"""Counted in bins: exact while there is room, within the stated error of the exact metrics beyond it."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.errors import ConfigError
from sowa.metrics import PIXEL_METRICS, CategoryMeter, pixel_metrics
from sowa.metrics.streaming import StreamedPixels
from tests.metrics.oracle import slow_aupro

LIMITS = (0.3, 0.05)
NAMES = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_aupro_05")
ROUNDING = 1e-12


def streamed(maps, masks, **sizes):
    counts = StreamedPixels(**sizes)
    for score_map, mask in zip(maps, masks, strict=True):
        counts.update(score_map, mask)
    return counts


def stated(counts):
    auroc, ap, f1, aupro = counts.errors(LIMITS)
    return dict(zip(NAMES, (auroc, ap, f1, *aupro), strict=True))


def drawn(seed, images=6, size=12, kind="gamma", first_defect=0):
    rng = np.random.default_rng(seed)
    maps = rng.gamma(1.0, 1.0, (images, size, size)) if kind != "flat" else rng.integers(0, 4, (images, size, size))
    masks = np.zeros(maps.shape, bool)
    for index in range(first_defect, images, 2):
        row, column = rng.integers(0, size - 4, 2)
        masks[index, row : row + 3, column : column + 4] = True
    maps = maps + masks * rng.uniform(0, 2)
    if kind == "zeros":
        maps[maps < 1] = 0
    return (maps * 1000 ** rng.uniform(-1, 1)).astype(np.float32), masks


drawings = st.tuples(st.integers(0, 2**32), st.sampled_from(["gamma", "flat", "zeros"]), st.sampled_from([0, 3]))


@settings(max_examples=60)
@given(drawings, st.sampled_from([16, 40, 200]), st.sampled_from([1, 100, 500]))
def test_the_exact_metrics_lie_within_the_stated_error(drawing, bins, buffer):
    seed, kind, first = drawing
    maps, masks = drawn(seed, kind=kind, first_defect=first)
    counts = streamed(maps, masks, bins=bins, buffer=buffer)
    got, worst = counts.metrics(LIMITS)
    exact, errors = pixel_metrics(maps, masks, LIMITS), stated(counts)
    for name in NAMES:
        assert abs(got[name] - exact[name]) <= errors[name] + ROUNDING, name
    assert worst == max(errors.values())


@settings(max_examples=25)
@given(drawings, st.sampled_from([1, 100, 10**6]))
def test_with_room_for_every_score_it_is_exact(drawing, buffer):
    seed, kind, first = drawing
    maps, masks = drawn(seed, kind=kind, first_defect=first)
    counts = streamed(maps, masks, bins=2000, buffer=buffer)
    got, worst = counts.metrics(LIMITS)
    assert worst == 0
    assert got == pytest.approx(pixel_metrics(maps, masks, LIMITS), abs=ROUNDING)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_the_slow_definition_lies_within_the_stated_error(seed):
    maps, masks = drawn(seed, images=3, size=8)
    counts = streamed(maps, masks, bins=24, buffer=50)
    got, _ = counts.metrics(LIMITS)
    for name, limit in zip(NAMES[3:], LIMITS, strict=True):
        assert abs(got[name] - slow_aupro(maps, masks, limit)) <= stated(counts)[name] + ROUNDING


def test_the_error_is_small_at_the_default_size():
    maps, masks = drawn(1, images=40, size=200)
    got, worst = streamed(maps, masks, bins=1 << 14, buffer=1 << 16).metrics(LIMITS)
    assert 0 < worst < 2e-3
    assert got == pytest.approx(pixel_metrics(maps, masks, LIMITS), abs=worst)


def test_scores_that_drift_stay_within_the_error():
    """Good images first, then much higher scores than any seen before."""
    maps, masks = drawn(2, images=12, size=40, first_defect=6)
    maps[6:] += 5 * maps.max()
    counts = streamed(maps, masks, bins=300, buffer=1600)
    errors, exact = stated(counts), pixel_metrics(maps, masks, LIMITS)
    got, worst = counts.metrics(LIMITS)
    assert all(abs(got[name] - exact[name]) <= errors[name] + ROUNDING for name in NAMES)
    assert worst < 0.1


def test_a_heavy_tie_stays_alone():
    """Most pixels score exactly 0: joined with their neighbours they would make the error as large as they are."""
    maps, masks = drawn(3, images=20, size=40, kind="zeros")
    assert (maps == 0).mean() > 0.5
    assert streamed(maps, masks, bins=600, buffer=3000).metrics(LIMITS)[1] < 0.02


@pytest.mark.parametrize("masks", ["none", "all"])
def test_one_class_is_undefined(masks):
    maps = np.random.default_rng(0).random((2, 5, 5)).astype(np.float32)
    counts = streamed(maps, np.full(maps.shape, masks == "all"))
    got, worst = counts.metrics(LIMITS)
    assert all(math.isnan(value) for value in got.values()) and worst == 0
    assert all(math.isnan(value) for value in stated(counts).values())


def test_memory_does_not_grow_with_the_maps():
    def peak(images):
        tracemalloc.start()
        try:
            counts = StreamedPixels(bins=2000, buffer=4096)
            for seed in range(images):
                score_map, mask = drawn(seed, images=1, size=64)
                counts.update(score_map[0], mask[0])
            counts.metrics(LIMITS)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak(10)
    assert peak(60) < 1.3 * few


def test_sizes_that_cannot_work():
    for sizes in ({"bins": 2}, {"buffer": 0}):
        with pytest.raises(ConfigError, match="cannot be used"):
            StreamedPixels(**sizes)


# ---- the meter


def filled(maps, masks, **options):
    meter = CategoryMeter(**options)
    for score_map, mask in zip(maps, masks, strict=True):
        meter.update([score_map.max()], [int(mask.any())], score_map[None], mask[None])
    return meter


def test_a_meter_counts_beyond_its_bytes_and_says_the_error():
    maps, masks = drawn(4, images=10, size=20)
    exact = filled(maps, masks)
    whole = exact.compute()
    assert exact.pixel_error == 0
    counting = filled(maps, masks, exact_bytes=5 * 3 * 400)
    got = counting.compute()
    assert got == pytest.approx(whole, abs=ROUNDING)  # few distinct scores: counted, and still exact
    assert len(counting) == 0 and all(math.isnan(value) for value in counting.compute().values())


def test_a_meter_holds_no_maps_beyond_its_bytes():
    maps, masks = drawn(5, images=10, size=20)
    meter = filled(maps, masks, exact_bytes=0)
    assert not meter._pairs
    assert meter.compute() == pytest.approx(filled(maps, masks).compute(), abs=ROUNDING)


def test_the_papers_thresholds_need_all_maps():
    maps, masks = drawn(6)
    assert (
        filled(maps, masks, protocol="paper", exact_bytes=0).compute()
        == filled(maps, masks, protocol="paper").compute()
    )


def test_names_are_those_of_the_exact_metrics():
    maps, masks = drawn(7)
    assert tuple(streamed(maps, masks).metrics(LIMITS)[0]) == PIXEL_METRICS
