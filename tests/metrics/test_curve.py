"""What is undefined is NaN, what is wrong is one line."""

import math

import numpy as np
import pytest

from sowa.errors import ConfigError, DataError, SowaError
from sowa.metrics import aupro, auroc, average_precision, f1_max, f1_max_threshold, image_metrics, pixel_metrics
from sowa.metrics.legacy import aupro_april, aupro_sowa

IMAGE = (auroc, average_precision, f1_max, f1_max_threshold)


@pytest.mark.parametrize("metric", IMAGE)
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_is_undefined(metric, labels):
    assert math.isnan(metric(np.arange(len(labels), dtype=float), labels))


@pytest.mark.parametrize("value", [0, 1])
def test_pixels_of_one_class_are_undefined(value):
    got = pixel_metrics(np.random.default_rng(0).random((2, 4, 4)), np.full((2, 4, 4), value))
    assert len(got) == 5 and all(math.isnan(number) for number in got.values())


def test_no_images_are_undefined():
    for maps, masks in (([], []), (np.empty((0, 4, 4)), np.empty((0, 4, 4)))):
        assert all(math.isnan(number) for number in pixel_metrics(maps, masks).values())


def test_an_image_without_normal_pixels_still_counts():
    maps, masks = np.array([[[2.0, 2.0]], [[0.0, 3.0]]]), np.array([[[1, 1]], [[0, 0]]])
    assert aupro(maps, masks, 1.0) == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_stop(bad):
    maps, masks = np.zeros((3, 2, 2), np.float32), np.eye(2)[None].repeat(3, 0)
    maps[1, 0, 1] = bad
    for metric in (pixel_metrics, aupro, aupro_sowa, aupro_april):
        with pytest.raises(SowaError, match=r"map 1 .*NaN or infinity") as caught:
            metric(maps, masks)
        assert "\n" not in str(caught.value)
    with pytest.raises(SowaError, match="finite"):
        image_metrics([0.0, bad], [0, 1])


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.zeros((2, 4, 4)), np.zeros((3, 4, 4)), "2 score maps for 3 masks"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), r"\(4, 4\) and its mask \(4, 5\)"),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)), r"must be \[h, w\]"),
        (np.zeros((1, 4, 4)), np.full((1, 4, 4), 0.5), "cut a soft mask"),
        (np.zeros((1, 4, 4)), np.full((1, 4, 4), np.nan), "cut a soft mask"),
        (np.zeros((1, 4, 4)), np.full((1, 4, 4), "x"), "mask 0 is of type"),
    ],
)
def test_unfit_pictures_stop(maps, masks, message):
    with pytest.raises(DataError, match=message):
        pixel_metrics(maps, masks)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0], "one label per score"),
        ([1.0, 2.0], [0, 2], "0 is normal, 1 is anomalous"),
        ([1.0, 2.0], [-1, 1], "0 is normal, 1 is anomalous"),
        ([1.0, 2.0], [math.nan, 1], "0 is normal, 1 is anomalous"),
        ([1j, 2.0], [0, 1], "real numbers"),
        (["a", "b"], [0, 1], "real numbers"),
    ],
)
def test_unfit_scores_stop(scores, labels, message):
    with pytest.raises(SowaError, match=message):
        image_metrics(scores, labels)


@pytest.mark.parametrize("limit", [0, -0.1, 1.1, math.nan])
def test_a_limit_is_a_rate(limit):
    for metric in (aupro, aupro_sowa, aupro_april):
        with pytest.raises(ConfigError, match="AUPRO limit"):
            metric(np.zeros((1, 2, 2)), np.eye(2)[None], limit)


def test_integer_and_bool_scores_are_scores():
    assert auroc(np.array([0, 3, 2**40, 2**40 + 1]), [0, 0, 0, 1]) == 1.0
    assert auroc([False, True], [0, 1]) == 1.0
