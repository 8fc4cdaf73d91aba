"""Tiles cover everything, masks leave out what they should, and neither changes what it does not touch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sowa.errors import ConfigError, DataError
from sowa.predictor.heat import Seen, heat_regions, restored
from sowa.predictor.predictor import Predictor
from sowa.predictor.view import View, inside_mask
from tests.predictor.parts import SIZE, fitted, part, parts


@settings(max_examples=40, deadline=None)
@given(tile=st.floats(0.15, 0.95), overlap=st.floats(0, 0.7), width=st.integers(1, 90), height=st.integers(1, 90))
def test_tiles_cover_every_pixel_in_the_same_number(tile, overlap, width, height):
    view = View(16, tile=tile, overlap=overlap)
    looked = view.look(Image.new("RGB", (width, height)))
    assert len(looked.boxes) == view.count
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in looked.boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_no_gap_without_overlap():
    for width in range(20, 60):
        looked = View(16, tile=1 / 3, overlap=0).look(Image.new("RGB", (width, 21)))
        whole = restored(Seen(0.0, 0.0, torch.ones(len(looked.boxes), 16, 16)), looked)
        assert np.isfinite(whole).all() and whole.max() == pytest.approx(1)
        assert (whole > 0.99).all()


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("tile", [None, 0.5, 0.37])
def test_a_constant_map_stays_constant_at_the_pictures_size(tile, fit):
    looked = View(28, fit=fit, tile=tile).look(part(0))
    maps = torch.full((len(looked.boxes), 28, 28), 3.0)
    whole = restored(Seen(0.0, 3.0, maps), looked)
    assert whole.shape == SIZE[::-1] and whole.dtype == np.float32
    np.testing.assert_allclose(whole, 3.0, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tile": 0.0},
        {"tile": 1.0},
        {"tile": "x"},
        {"tile": True},
        {"overlap": 0.9},
        {"overlap": -0.1},
        {"overlap": float("nan")},
        {"fit": "stretch"},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigError):
        View(16, **wrong)


def half(side: str, *, shape=(40, 60)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[:, : shape[1] // 2] = side == "left"
    mask[:, shape[1] // 2 :] = side == "right"
    return mask


def test_masks_of_every_form_and_both_kinds(tmp_path):
    Image.fromarray(half("left") * 255).save(tmp_path / "roi.png")
    wanted = half("left").astype(bool)
    for roi in (tmp_path / "roi.png", half("left"), half("left").astype(bool), Image.fromarray(half("left") * 255)):
        np.testing.assert_array_equal(inside_mask(roi, None), wanted)
    np.testing.assert_array_equal(inside_mask(None, half("right")), wanted)
    assert inside_mask(half("left"), half("right", shape=(20, 30))).sum() == wanted.sum()
    assert inside_mask(np.ones((9, 9), np.uint8), None) is None
    assert inside_mask(None, np.zeros((9, 9), np.uint8)) is None
    assert inside_mask(None, None) is None
    assert max(inside_mask(half("left", shape=(3000, 4000)), None).shape) == 1024


@pytest.mark.parametrize(
    ("roi", "ignore"),
    [
        (np.zeros((5, 5), np.uint8), None),
        (None, np.ones((5, 5), np.uint8)),
        (half("left"), half("left")),
        ("x.png", None),
    ],
)
def test_masks_that_leave_nothing(roi, ignore):
    with pytest.raises(ConfigError):
        inside_mask(roi, ignore)


def test_a_mask_that_leaves_nothing_out_changes_nothing():
    masked = Predictor.fit(parts(3), name="disc", model="sowa", backbone="random_tiny", roi=np.ones((4, 4), np.uint8))
    assert masked.predict(part(9)).score == fitted("sowa").predict(part(9)).score


@pytest.mark.parametrize("tile", [None, 0.6])
def test_what_is_ignored_has_no_say(tile):
    """The defect lies left of the middle. Outside of the mask there is no heat, and hardly any echo of it in the score:
    the network itself still sees the whole picture."""
    options = {"model": "patchcore", "backbone": "random_tiny_cnn", "options": {"taps": [1, 2]}, "tile": tile}
    most = np.zeros((30, 30), np.uint8)
    most[:, :20] = 1
    left, right = (Predictor.fit(parts(3), **{word: most}, **options) for word in ("roi", "ignore"))
    good, bad = part(9), part(9, defect=True)
    assert left.predict(bad).verdict == "defective"
    assert left.predict(bad).heatmap[:, SIZE[0] * 2 // 3 + 1 :].max() == 0
    assert right.predict(bad).heatmap[:, : SIZE[0] * 2 // 3 - 1].max() == 0
    gains = [one.predict(bad).score / one.predict(good).score for one in (left, right)]
    assert gains[0] > 3 * gains[1], gains


def test_a_mask_finer_than_the_model_is_named():
    speck = np.zeros((1000, 1000), np.uint8)
    speck[3, 3] = 1
    with pytest.raises(DataError, match="inside the mask"):
        Predictor.fit(parts(1), backbone="random_tiny", roi=speck)


def test_tiles_see_a_small_defect_that_the_whole_does_not():
    """A scratch of a few pixels on a large picture: tiled, it stands out more against the good ones."""
    large = (450, 450)

    def scratched(seed):
        pixels = np.asarray(part(seed, size=large)).copy()
        pixels[200:212, 180:192] = 0
        return pixels

    heat = {}
    for tile in (None, 0.3):
        found = Predictor.fit(parts(2, size=large), model="patchcore", backbone="random_tiny_cnn", tile=tile)
        heat[tile] = found.predict(scratched(9)).heatmap[200:212, 180:192].mean()
    assert heat[0.3] > 1 > heat[None]


def test_regions_of_a_heat_map():
    heat = np.zeros((20, 30), np.float32)
    heat[2:5, 3:7] = 1.0
    heat[10:12, 20:22] = 3.0
    heat[12, 22] = 2.0  # touches by a corner
    first, second = heat_regions(heat)
    assert first.box == (20, 10, 3, 3) and first.area == 5 and first.peak == 3.0
    assert second.box == (3, 2, 4, 3) and second.area == 12 and second.peak == 1.0
    assert heat_regions(heat * 0.3) == ()
