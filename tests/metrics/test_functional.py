"""Exact metrics against scikit-learn, against a loop over all thresholds, and against what must leave them alone."""

import math
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from sowa.metrics import (
    PIXEL_METRICS,
    aupro,
    aupro_at,
    auroc,
    average_precision,
    f1_max,
    f1_max_threshold,
    image_metrics,
    pixel_metrics,
)
from sowa.metrics.functional import aupro_key
from tests.metrics.oracle import slow_aupro

quick = settings(max_examples=40, deadline=None)


@st.composite
def truths(draw):
    """Scores with few or many ties, labels of both classes, a generator."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, count = draw(st.integers(2, 60)), draw(st.sampled_from([2, 5, 1000]))
    labels = np.concatenate(([0, 1], rng.integers(0, 2, size - 2)))
    scores = rng.integers(-count, count, size) / 7 + rng.random() * labels
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), labels, rng


@st.composite
def pictures(draw, same_size=False):
    """Lists of small maps with ties and of masks, sizes differing; at least one region and one normal pixel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels, images = draw(st.sampled_from([1, 3, 20, 10**6])), draw(st.integers(1, 4))
    shapes = [(5, 6) if same_size else tuple(rng.integers(2, 9, 2)) for _ in range(images)]
    masks = [rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.4])) for shape in shapes]
    masks[0][0, 0], masks[0][-1, -1] = True, False
    maps = [(rng.integers(-levels, levels + 1, m.shape) / 3 + m * rng.random()).astype(np.float32) for m in masks]
    return maps, masks, rng


@quick
@given(truths())
def test_image_metrics_are_scikit_learns(truth):
    scores, labels, _ = truth
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.nanmax(2 * precision * recall / np.where(precision + recall > 0, precision + recall, np.nan))
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert f1_max(scores, labels) == pytest.approx(best, abs=1e-12)


@quick
@given(pictures())
def test_pixel_metrics_pool_all_pixels(picture):
    maps, masks, _ = picture
    pooled = image_metrics(np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks]))
    got = pixel_metrics(maps, masks)
    assert {name: got[name.replace("image", "pixel")] for name in pooled} == pooled


@quick
@given(pictures(), st.sampled_from([0.01, 0.05, 0.3, 0.9, 1.0]))
def test_aupro_is_the_loop_over_every_distinct_score(picture, limit):
    maps, masks, _ = picture
    assert aupro(maps, masks, limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-12)


@quick
@given(pictures())
def test_a_strictly_increasing_transform_changes_nothing(picture):
    maps, masks, _ = picture
    levels = np.unique(np.concatenate([m.ravel() for m in maps]))
    ranked = [np.searchsorted(levels, m) ** 2 - 1e4 for m in maps]  # float64, other sign, other spacing
    assert pixel_metrics(ranked, masks) == pixel_metrics(maps, masks)


@quick
@given(pictures())
def test_the_order_of_images_and_pixels_does_not_matter(picture):
    maps, masks, rng = picture
    order = rng.permutation(len(maps))
    # Mirrored pixels keep their neighbours, so the regions too.
    moved = pixel_metrics([maps[i][::-1, ::-1] for i in order], [masks[i][::-1, ::-1] for i in order])
    assert moved == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)


@quick
@given(pictures())
def test_fewer_scores_above_normal_are_never_better(picture):
    maps, masks, _ = picture
    lifted = [m + mask.astype(np.float32) for m, mask in zip(maps, masks, strict=True)]
    before, after = pixel_metrics(maps, masks), pixel_metrics(lifted, masks)
    assert all(after[name] >= before[name] - 1e-12 for name in before)


@quick
@given(truths())
def test_the_threshold_reaches_f1_max_and_is_the_highest_that_does(truth):
    scores, labels, _ = truth
    best, threshold = f1_max(scores, labels), f1_max_threshold(scores, labels)

    def f1(at):
        called = scores >= at
        return 2 * np.sum(called & (labels == 1)) / (called.sum() + labels.sum())

    assert f1(threshold) == best
    assert all(f1(at) < best for at in scores[scores > threshold])


@quick
@given(pictures(same_size=True))
def test_stacks_lists_and_tensors_agree(picture):
    maps, masks, _ = picture
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(np.stack(maps), np.stack(masks).astype(np.uint8) * 255) == expected
    assert pixel_metrics(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks))) == expected
    as_tensors = [torch.from_numpy(m).requires_grad_() for m in maps], [torch.from_numpy(m).float() for m in masks]
    assert pixel_metrics(*as_tensors) == expected


@quick
@given(pictures())
def test_float64_maps_have_the_same_value(picture):
    maps, masks, _ = picture
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics([m.astype(np.float64) for m in maps], masks) == expected


def test_float64_differences_below_float32_still_count():
    maps, masks = np.array([[[1.0, 1.0 + 1e-12]]]), np.array([[[0, 1]]])
    assert aupro(maps, masks) == 1.0
    assert aupro(maps.astype(np.float32), masks) == pytest.approx(0.15)


def test_half_precision_is_read_exactly():
    maps = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
    masks = torch.tensor([[[0, 1, 0, 1]]])
    for dtype in (torch.float16, torch.bfloat16):
        assert pixel_metrics(maps.to(dtype), masks) == pixel_metrics(maps, masks)


def test_a_perfect_map_has_one_everywhere():
    masks = np.zeros((3, 8, 8), bool)
    masks[1, 2:4, 2:5] = masks[2, 6:, 6:] = True
    assert set(pixel_metrics(masks * 7.0 - 3, masks).values()) == {1.0}


def test_a_reversed_map_has_no_overlap_below_the_limit():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, :2] = True
    got = pixel_metrics(-masks.astype(np.float32), masks)
    assert got["pixel_auroc"] == got["pixel_aupro"] == got["pixel_aupro_05"] == 0.0


def test_a_constant_map_is_the_diagonal():
    masks = np.zeros((2, 5, 5), bool)
    masks[0, :2, :2] = True
    got = pixel_metrics(np.full((2, 5, 5), 3.5), masks)
    assert got["pixel_auroc"] == 0.5
    assert got["pixel_ap"] == pytest.approx(4 / 50)
    assert got["pixel_aupro"] == pytest.approx(0.3 / 2)
    assert got["pixel_aupro_05"] == pytest.approx(0.05 / 2)


def test_zeros_of_both_signs_are_one_score():
    maps = np.array([[[0.0, -0.0, 0.0, -0.0]]], np.float32)
    masks = np.array([[[1, 1, 0, 0]]])
    assert pixel_metrics(maps, masks) == pixel_metrics(np.abs(maps), masks)


def test_corner_neighbours_are_one_region():
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True  # one region by corners
    masks[0, 4, 4] = True  # and a second one
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 0, 0], maps[0, 4, 4] = 2, 1
    # Half of the first and all of the second region are above all normal pixels: 0.75, then the ties at 0.
    assert aupro(maps, masks, 1e-9) == pytest.approx(0.75, abs=1e-8)


def test_regions_weigh_the_same_whatever_their_area():
    masks = np.zeros((1, 9, 9), bool)
    masks[0, :4, :4] = masks[0, 8, 8] = True
    maps = np.zeros((1, 9, 9), np.float32)
    maps[0, 8, 8] = 1
    assert aupro(maps, masks, 1e-9) == pytest.approx(0.5, abs=1e-8)


def test_several_limits_share_a_sort_and_a_name():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((2, 9, 9)), rng.random((2, 9, 9)) < 0.2
    limits = (0.3, 0.05, 0.1, 0.005, 1.0)
    assert aupro_at(maps, masks, limits) == tuple(aupro(maps, masks, limit) for limit in limits)
    assert tuple(pixel_metrics(maps, masks, limits).values())[3:] == aupro_at(maps, masks, limits)
    names = ["pixel_aupro", "pixel_aupro_05", "pixel_aupro_10", "pixel_aupro_005", "pixel_aupro_100"]
    assert [aupro_key(limit) for limit in limits] == names
    assert tuple(pixel_metrics(maps, masks)) == PIXEL_METRICS


def test_inputs_are_left_as_they_were():
    maps, masks = (
        np.random.default_rng(0).random((2, 5, 5)).astype(np.float32),
        np.eye(5, dtype=np.uint8)[None].repeat(2, 0),
    )
    scores, labels = np.array([3.0, 1, 2]), np.array([0, 1, 1])
    kept = [array.copy() for array in (maps, masks, scores, labels)]
    pixel_metrics(maps, masks)
    pixel_metrics(list(maps), list(masks))
    image_metrics(scores, labels)
    assert all(np.array_equal(a, b) for a, b in zip((maps, masks, scores, labels), kept, strict=True))


def test_counts_do_not_overflow():
    # 2 * 60000 * 60000 is past the largest int32.
    labels = np.repeat([0, 1], 60_000)
    assert auroc(np.zeros(120_000), labels) == 0.5
    assert auroc(labels * 1.0, labels) == 1.0


def test_scores_are_never_squashed():
    # All saturate in a float32 sigmoid.
    assert auroc([100.0, 101.0, 102.0, 103.0], [0, 0, 1, 1]) == 1.0
    assert math.isclose(average_precision([-3.0, 250.0, 251.0], [0, 1, 0]), 0.5)


def test_memory_stays_below_three_times_the_maps():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((12, 256, 256), dtype=np.float32), np.zeros((12, 256, 256), bool)
    masks[:6, 20:130, 20:130] = True  # 9 % of the pixels
    tracemalloc.start()
    try:
        pixel_metrics(maps, masks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * maps.nbytes
