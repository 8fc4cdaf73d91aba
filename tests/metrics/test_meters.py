"""A category's meter: the same numbers in any batches, nothing kept afterwards."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from sowa.errors import DataError, SowaError, UnknownNameError
from sowa.metrics import METRICS, PIXEL_METRICS, CategoryMeter, image_metrics, pixel_metrics
from sowa.metrics.legacy import aupro_sowa, paper_image_score


@pytest.fixture
def category():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 16, 16), np.uint8)
    masks[3:, 4:7, 5:9] = 1
    maps = rng.random(masks.shape).astype(np.float32) + masks * np.float32(0.4)
    return maps.max((1, 2)), masks.any((1, 2)).astype(int), maps, masks


def filled(parts, protocol="standard", size=6):
    meter = CategoryMeter(protocol=protocol)
    for start in range(0, len(parts[0]), size):
        meter.update(*(part[start : start + size] for part in parts))
    return meter


@pytest.mark.parametrize("size", [1, 4, 6])
def test_batches_do_not_matter(category, size):
    scores, labels, maps, masks = category
    got = filled(category, size=size).compute()
    assert got == image_metrics(scores, labels) | pixel_metrics(maps, masks)
    assert tuple(got) == METRICS


def test_tensors_are_taken(category):
    as_tensors = [torch.as_tensor(part) for part in category]
    assert filled(as_tensors, size=2).compute() == filled(category).compute()


def test_paper_protocol_changes_aupro_only(category):
    standard, paper = filled(category).compute(), filled(category, "paper").compute()
    assert {name for name in METRICS if standard[name] != paper[name]} == {"pixel_aupro", "pixel_aupro_05"}
    assert paper["pixel_aupro"] == aupro_sowa(*category[2:], 0.3)
    assert paper["pixel_aupro_05"] == aupro_sowa(*category[2:], 0.05)


def test_scores_known_only_at_the_end_replace_the_others(category):
    scores, labels, *_ = category
    fused = paper_image_score(np.linspace(1, 0, 6), scores)
    got = filled(category, "paper").compute(image_scores=fused)
    assert got["image_auroc"] == image_metrics(fused, labels)["image_auroc"]
    meter = filled(category)
    with pytest.raises(DataError, match="one label per score"):
        meter.compute(image_scores=fused[:3])
    assert len(meter) == 6  # a mistake loses nothing


def test_maps_of_other_sizes(category):
    scores, labels, maps, masks = category
    cropped = [m[: 8 + i] for i, m in enumerate(maps)], [m[: 8 + i] for i, m in enumerate(masks)]
    meter = CategoryMeter()
    meter.update(scores, labels, *cropped)
    got = meter.compute()
    assert {name: got[name] for name in PIXEL_METRICS} == pixel_metrics(*cropped)


@pytest.mark.parametrize("given", ["neither", "maps only", "masks only"])
def test_without_pixel_truth_pixel_metrics_are_undefined(category, given):
    scores, labels, maps, masks = category
    meter = CategoryMeter()
    meter.update(scores, labels, maps if given == "maps only" else None, masks if given == "masks only" else None)
    got = meter.compute()
    assert got["image_auroc"] == image_metrics(scores, labels)["image_auroc"]
    assert all(math.isnan(got[name]) for name in PIXEL_METRICS)


def test_an_image_of_unknown_mask_is_left_out_of_pixels_only(category):
    scores, labels, maps, masks = category
    meter = CategoryMeter()
    meter.update(scores, labels, maps, [*masks[:5], None])
    got = meter.compute()
    assert got == image_metrics(scores, labels) | pixel_metrics(maps[:5], masks[:5])


def test_compute_empties_the_meter(category):
    meter = filled(category)
    first = meter.compute()
    assert len(meter) == 0
    assert all(math.isnan(value) for value in meter.compute().values())
    meter.update(*category)
    assert meter.compute() == first


def test_maps_are_copied(category):
    maps, masks = category[2:]
    expected, meter = filled(category).compute(), CategoryMeter()
    meter.update(*category)
    maps[:], masks[:] = 0, 1
    assert meter.compute() == expected


def test_memory_is_five_bytes_a_pixel_and_is_given_back():
    maps, masks = np.random.default_rng(0).random((4, 256, 256)), np.zeros((4, 256, 256), np.uint8)
    masks[0, :9, :9] = 1
    tracemalloc.start()
    try:
        meter, before = CategoryMeter(), tracemalloc.get_traced_memory()[0]
        meter.update([0.0, 1, 2, 3], [1, 0, 0, 0], maps, masks)
        held = tracemalloc.get_traced_memory()[0] - before
        meter.compute()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 5 * maps.size <= held < 5.1 * maps.size
    assert left < 0.1 * maps.size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y, p, m: (s[:5], y, p, m), "both must be"),
        (lambda s, y, p, m: (s[:, None], y[:, None], p, m), "both must be"),
        (lambda s, y, p, m: (s, y + 1, p, m), "0 is normal"),
        (lambda s, y, p, m: (s, y, p[:5], m), "one of each per image"),
        (lambda s, y, p, m: (s, y, p, m[:, :8]), "resize the map to its mask"),
        (lambda s, y, p, m: (s * np.nan, y, p, m), "NaN or infinity"),
        (lambda s, y, p, m: (s, y, p * np.float32(np.inf), m), "NaN or infinity"),
    ],
)
def test_an_unfit_batch_is_refused_whole(category, change, message):
    meter = CategoryMeter()
    with pytest.raises(SowaError, match=message), np.errstate(invalid="ignore"):
        meter.update(*change(*category))
    assert len(meter) == 0 and math.isnan(meter.compute()["pixel_auroc"])


def test_protocols_are_a_table():
    with pytest.raises(UnknownNameError, match="choose one of paper, standard"):
        CategoryMeter(protocol="papr")
