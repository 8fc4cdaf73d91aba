"""Into the model's square and back: nothing is lost, nothing moves."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sowa.data.frames import PADDING, Frame, mask_to_model, squash, to_model
from sowa.data.intake import intake_of
from sowa.errors import ConfigError

SIDES = st.integers(1, 90)


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@given(SIDES, SIDES)
def test_letterbox_touches_two_sides_and_pads_the_rest(width, height):
    image, frame = to_model(picture(width, height), 32, "letterbox")
    top, left, bottom, right = frame.inside
    assert image.shape == (3, 32, 32) and image.dtype == torch.uint8
    assert max(bottom - top, right - left) == 32 and min(bottom - top, right - left) >= 1
    assert abs(top - (32 - bottom)) <= 1 and abs(left - (32 - right)) <= 1
    beside = torch.ones(32, 32, dtype=torch.bool)
    beside[top:bottom, left:right] = False
    assert (image[:, beside] == torch.tensor(PADDING, dtype=torch.uint8)[:, None]).all()


@given(SIDES)
def test_a_square_picture_is_the_same_either_way(side):
    image = picture(side, side)
    assert torch.equal(to_model(image, 24, "letterbox")[0], squash(image, 24))


@given(SIDES, SIDES, st.sampled_from(["squash", "letterbox"]), st.sampled_from([14, 32]))
def test_a_map_comes_back_in_the_pictures_own_size(width, height, fit, cells):
    frame = Frame(width, height, 28, fit)
    assert frame.restore(torch.ones(cells, cells)).shape == (height, width)
    torch.testing.assert_close(frame.restore(torch.full((cells, cells), 2.5)), torch.full((height, width), 2.5))


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("size", [(60, 20), (20, 60), (44, 44), (64, 48)])
def test_a_spot_comes_back_where_it_was(size, fit):
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 4 + 6, width // 2 : width // 2 + 8] = 1
    small = mask_to_model(mask, 64, "nearest", fit)
    back = Frame(width, height, 64, fit).restore(torch.from_numpy(small).float()).numpy() > 0.5
    assert (back & (mask > 0)).sum() / (back | (mask > 0)).sum() > 0.75


def test_what_lies_beside_the_picture_is_cut_away():
    square = torch.full((40, 40), 9.0)
    frame = Frame(40, 20, 40, "letterbox")
    top, left, bottom, right = frame.inside
    square[top:bottom, left:right] = 1.0
    assert (frame.restore(square) == 1.0).all()


def test_mask_beside_a_letterboxed_picture_is_empty():
    assert mask_to_model(np.ones((10, 40), np.uint8), 20, "nearest", "letterbox").sum() == 20 * 5


def test_a_picture_decoded_small_has_the_frame_of_its_full_size():
    image, frame = to_model(picture(51, 38), 16, "letterbox", full_wh=(203, 151))
    assert (frame.width, frame.height) == (203, 151) and image.shape == (3, 16, 16)


@pytest.mark.parametrize("bad", [{"fit": "crop"}, {"width": 0}])
def test_impossible_frames_are_named(bad):
    with pytest.raises(ConfigError):
        Frame(**({"width": 4, "height": 4, "size": 8, "fit": "squash"} | bad))


def test_the_papers_squash_every_pixel():
    assert intake_of("paper", "squash") == {"fit": "squash", "reduce": False}
    assert intake_of("standard", "letterbox") == {"fit": "letterbox", "reduce": True}
    for protocol, fit in (("paper", "letterbox"), ("standard", "crop")):
        with pytest.raises(ConfigError, match="fit"):
            intake_of(protocol, fit)


def test_reading_images_needs_no_torch():
    code = "import sys, sowa.data.images, sowa.data.check; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
