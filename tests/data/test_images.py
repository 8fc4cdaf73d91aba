"""Odd but honest files come out as a person would see them; mendacious ones end in one line with their path."""

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from sowa.data.frames import mask_to_model, squash
from sowa.data.images import mask_is_empty, read_image, read_mask, read_reduced
from sowa.errors import ConfigError, DataError
from sowa.types import Sample
from tests import trees

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


# ----------------------------------------------------------------------------------------------------------- odd images


def test_grey_image_has_three_equal_channels(tmp_path):
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", Image.fromarray(RAMP))), grey(RAMP))


def test_one_bit_image_is_black_and_white(tmp_path):
    image = Image.fromarray(RAMP > 100)
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", image)), grey((RAMP > 100) * np.uint8(255)))


def test_palette_image_has_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", image)), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_257_whatever_the_image_holds(tmp_path, suffix):
    values = np.array([[0, 128, 257], [32896, 65279, 65535]], dtype=np.uint16)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    np.testing.assert_array_equal(pixels(path), grey(np.array([[0, 0, 1], [128, 254, 255]], dtype=np.uint8)))
    dark = saved(tmp_path / f"dark.{suffix}", Image.fromarray(values // 256))
    assert pixels(dark).max() == 1


def test_big_endian_16_bit_is_the_same(tmp_path):
    header = struct.pack(">2sHI", b"MM", 42, 8)
    tags = [(256, 3, 1, 2 << 16), (257, 3, 1, 1 << 16), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16)]
    tags += [(262, 3, 1, 1 << 16), (273, 4, 1, 122), (277, 3, 1, 1 << 16), (278, 3, 1, 1 << 16), (279, 4, 1, 4)]
    body = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags) + struct.pack(">I", 0)
    (tmp_path / "a.tif").write_bytes((header + body).ljust(122, b"\0") + struct.pack(">HH", 257, 65535))
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey(np.array([[1, 255]], dtype=np.uint8)))


def test_float_image_in_0_1_is_read_and_others_named(tmp_path):
    values = np.array([[0, 0.5, 1]], dtype=np.float32)
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.tif", Image.fromarray(values)))[0, :, 0], [0, 128, 255])
    for odd in (2.0, -0.1, np.nan, np.inf):
        path = saved(tmp_path / "b.tif", Image.fromarray(np.array([[0.2, odd]], dtype=np.float32)))
        with pytest.raises(DataError, match=r"b\.tif: float image.*0\.\.1 is read"):
            read_image(path)


def test_32_bit_integers_are_read_in_the_16_bit_range(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, 65535]], dtype=np.int32)))
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 255])
    path = saved(tmp_path / "b.tif", Image.fromarray(np.array([[0, 65536]], dtype=np.int32)))
    with pytest.raises(DataError, match=r"0\.\.65535 is read"):
        read_image(path)


def png_16_bit_colour(path: Path) -> Path:
    pixels = zlib.compress(b"\0" + struct.pack(">6H", 0, 0x1234, 0xFFFF, 0x8000, 0x00FF, 0xFF00))
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), b"IDAT" + pixels, b"IEND"]
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    return path


def test_16_bit_colour_keeps_the_high_bytes(tmp_path):
    assert pixels(png_16_bit_colour(tmp_path / "a.png")).tolist() == [[[0, 0x12, 255], [0x80, 0, 255]]]


def test_cmyk_photograph_keeps_its_colour(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    colour = pixels(saved(tmp_path / "a.jpg", red.convert("CMYK"), quality=95))[8, 8].astype(int)
    assert abs(colour - (200, 30, 30)).max() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", image.convert(mode)))[0, :, 0], [0, 255])


def test_transparent_palette_colour_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", image, transparency=1))[0, :, 0], [0, 255])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    lossless = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **lossless)
    assert pixels(path).min() == 255


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photograph_is_turned_as_its_exif_says(tmp_path, orientation, suffix):
    upright = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    back = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned = upright.transpose(1, 0, 2)
    back |= {5: turned, 6: np.rot90(upright, 1), 7: turned[::-1, ::-1], 8: np.rot90(upright, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(np.ascontiguousarray(back[orientation])), exif=exif)
    np.testing.assert_array_equal(pixels(path), upright)


def test_wrong_suffix_is_no_hindrance(tmp_path):
    saved(tmp_path / "a.png", Image.fromarray(RAMP))
    (tmp_path / "a.png").rename(tmp_path / "b.jpg")
    np.testing.assert_array_equal(pixels(tmp_path / "b.jpg"), grey(RAMP))


# ----------------------------------------------------------------------------------------------------------- bad files


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header, with a right checksum, declares any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def one_line(path: Path, match: str, **options) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_image(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_absent_empty_foreign_and_directory(tmp_path):
    one_line(tmp_path / "absent.png", "No such file")
    (tmp_path / "empty.png").touch()
    one_line(tmp_path / "empty.png", "empty file")
    (tmp_path / "text.png").write_text("not an image at all")
    one_line(tmp_path / "text.png", "not an image")
    one_line(tmp_path, "not a file")


def test_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    one_line(tmp_path / "pipe.png", "not a file")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif", "webp"])
def test_truncated_image_is_an_error_not_a_grey_area(tmp_path, suffix):
    path = trees.picture(tmp_path / f"a.{suffix}", (64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    one_line(path, "damaged|not an image")


@pytest.mark.parametrize("side", [50_000, 2_000_000_000])
def test_huge_declared_size_is_refused_before_decoding(tmp_path, side):
    (tmp_path / "huge.png").write_bytes(huge_png(side, side))
    start = time.perf_counter()
    one_line(tmp_path / "huge.png", "pixels")
    assert time.perf_counter() - start < 1


def test_limit_is_the_callers(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RAMP))
    assert read_image(path, max_pixels=48).size == (8, 6)
    one_line(path, "declares 8 x 6 pixels, at most 47", max_pixels=47)


def test_jpeg_of_endless_scans_is_refused(tmp_path):
    image = saved(tmp_path / "a.jpg", Image.fromarray(RAMP), progressive=True).read_bytes()
    (tmp_path / "b.jpg").write_bytes(image[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00" * 300 + image[-2:])
    one_line(tmp_path / "b.jpg", "scans")


def test_postscript_is_never_started(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    one_line(tmp_path / "a.png", "not an image")


def test_damaged_exif_costs_only_the_orientation(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RAMP), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(path), grey(RAMP))


# --------------------------------------------------------------------------------------------------------------- resize


def test_squash_is_torchvisions_bicubic_resize():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    expected = np.asarray(resize(image, [16, 16], InterpolationMode.BICUBIC))
    result = squash(image, 16)
    assert result.dtype == torch.uint8 and result.is_contiguous()
    np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), expected)


# ---------------------------------------------------------------------------------------------------------------- masks


def bad_sample(image: Path, *masks: Path) -> Sample:
    return Sample(name=image.name, image=image, category="c", split="test", label=1, defect="cut", masks=masks)


@pytest.mark.parametrize("value", [1, 9, 128, 255])
def test_every_value_above_zero_is_defect(tmp_path, value):
    sample = bad_sample(tmp_path / "a.png", trees.mask(tmp_path / "m.png", value=value))
    result = read_mask(sample, (12, 8))
    assert result.dtype == np.uint8 and result.sum() == 6 and result[:2, :3].all()


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA", "P", "I;16"])
def test_mask_of_any_mode(tmp_path, mode):
    sample = bad_sample(tmp_path / "a.png", trees.mask(tmp_path / "m.png", mode=mode))
    assert read_mask(sample, (12, 8)).sum() == 6


def test_any_colour_channel_counts(tmp_path):
    image = Image.new("RGB", (4, 4))
    image.putpixel((1, 2), (0, 0, 1))
    assert np.argwhere(read_mask(bad_sample(tmp_path, saved(tmp_path / "m.png", image)), (4, 4))).tolist() == [[2, 1]]


@pytest.mark.parametrize("palette", [[255, 255, 255, 0, 0, 0], [0, 0, 0, 128, 0, 0], [0, 0, 0, 0, 0, 0]])
def test_palette_masks_go_by_colour_or_else_by_number(tmp_path, palette):
    image = Image.new("P", (4, 4), 0 if sum(palette[:3]) == 0 else 1)
    image.putpalette(palette)
    image.putpixel((1, 2), 1 - image.getpixel((0, 0)))
    assert np.argwhere(read_mask(bad_sample(tmp_path, saved(tmp_path / "m.png", image)), (4, 4))).tolist() == [[2, 1]]


@pytest.mark.parametrize("ground, paint", [((255, 255, 255, 0), (255, 0, 0, 255)), ((0, 0, 0, 0), (0, 0, 0, 255))])
def test_transparent_ground_is_no_defect(tmp_path, ground, paint):
    image = Image.new("RGBA", (4, 4), ground)
    image.putpixel((1, 2), paint)
    assert np.argwhere(read_mask(bad_sample(tmp_path, saved(tmp_path / "m.png", image)), (4, 4))).tolist() == [[2, 1]]


def test_masks_are_united(tmp_path):
    other = Image.new("L", (12, 8))
    other.putpixel((11, 7), 240)
    masks = trees.mask(tmp_path / "a.png"), saved(tmp_path / "b.png", other)
    assert read_mask(bad_sample(tmp_path, *masks), (12, 8)).sum() == 7


def test_normal_image_has_zeros_of_its_height_and_width(tmp_path):
    sample = Sample(name="a", image=tmp_path / "a", category="c", split="test", label=0)
    assert read_mask(sample, (12, 8)).shape == (8, 12) and not read_mask(sample, (12, 8)).any()


def test_mask_of_another_size_is_never_resized(tmp_path):
    trees.picture(tmp_path / "a.png", (12, 8))
    sample = bad_sample(tmp_path / "a.png", trees.mask(tmp_path / "m.png", (8, 12)))
    with pytest.raises(DataError, match=r"m\.png: mask of 8 x 12 pixels for an image of 12 x 8 .*a\.png"):
        read_mask(sample, (12, 8))


def test_missing_pixel_truth_is_said(tmp_path):
    with pytest.raises(DataError, match="no mask for this defective image"):
        read_mask(bad_sample(tmp_path / "a.png"), (12, 8))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_mask_drawn_on_the_unturned_photograph_turns_with_it(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    marked = np.zeros((8, 12), dtype=np.uint8)
    marked[:2, :3] = 255
    image = saved(tmp_path / f"a.{suffix}", Image.fromarray(marked), exif=exif)
    sample = bad_sample(image, saved(tmp_path / "m.png", Image.fromarray(marked)))
    photograph = read_image(image)
    assert photograph.size == (8, 12)
    np.testing.assert_array_equal(read_mask(sample, photograph.size), np.asarray(photograph)[..., 0] > 0)
    upright = saved(tmp_path / "u.png", photograph)
    np.testing.assert_array_equal(read_mask(bad_sample(image, upright), photograph.size), read_mask(sample, (8, 12)))


def test_mask_is_empty(tmp_path):
    assert mask_is_empty(trees.blank(tmp_path / "b.png")) and not mask_is_empty(trees.mask(tmp_path / "m.png", value=1))


def test_mask_rules_by_hand():
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:4, 2:4] = 1
    assert mask_to_model(mask, 4, "nearest").sum() == 1
    assert mask_to_model(mask, 4, "paper_test").sum() == 1
    # Antialiased bilinear reaches half a pixel of the small grid further: the eight neighbours are positive too.
    assert mask_to_model(mask, 4, "paper_train").sum() == 9
    with pytest.raises(ConfigError, match="nearest, paper_train, paper_test"):
        mask_to_model(mask, 4, "paper")


@given(arrays(np.uint8, (9, 13), elements=st.integers(0, 1)), st.integers(1, 30))
def test_mask_rules_agree_with_torchvision(mask, size):
    grey = resize(Image.fromarray(mask * np.uint8(255)), [size, size], InterpolationMode.BILINEAR)
    unit = np.asarray(grey, dtype=np.float32) / 255
    np.testing.assert_array_equal(mask_to_model(mask, size, "paper_train"), unit > 0)
    np.testing.assert_array_equal(mask_to_model(mask, size, "paper_test"), unit > 0.5)
    assert (mask_to_model(mask, size, "paper_test") <= mask_to_model(mask, size, "paper_train")).all()
    assert set(np.unique(mask_to_model(mask, size))) <= {0, 1}


# ----------------------------------------------------------------------------------------------------- reduced decoding


def photograph(width: int, height: int) -> Image.Image:
    """Smooth shading with a few edges, as a camera sees a part."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ground = 120 + 60 * np.sin(x / 37) * np.cos(y / 53) + 40 * ((x // 97 + y // 71) % 2)
    return Image.fromarray(np.stack([ground, ground * 0.8, 255 - ground], axis=-1).clip(0, 255).astype(np.uint8))


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    path = saved(tmp_path / "a.jpg", photograph(1200, 900), quality=92)
    image, size = read_reduced(path, side=100)
    assert size == (1200, 900) and image.size == (300, 225)
    near = np.abs(squash(image, 100).numpy().astype(int) - squash(read_image(path), 100).numpy())
    assert near.mean() < 0.5 and near.max() <= 12


@pytest.mark.parametrize(
    ("side", "expected"), [(450, (1200, 900)), (225, (600, 450)), (226, (1200, 900)), (10, (150, 113))]
)
def test_a_reduced_jpeg_keeps_twice_the_side_wanted(tmp_path, side, expected):
    image, _ = read_reduced(saved(tmp_path / "a.jpg", photograph(1200, 900)), side=side)
    assert image.size == expected


def test_a_turned_jpeg_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", photograph(400, 200), exif=exif)
    image, size = read_reduced(path, side=20)
    assert size == (200, 400) and image.height > image.width
    assert read_image(path).size == size


def test_other_formats_are_decoded_whole(tmp_path):
    path = saved(tmp_path / "a.png", photograph(300, 200))
    image, size = read_reduced(path, side=10)
    assert image.size == size == (300, 200)


def test_grey_jpeg_reduced_is_rgb(tmp_path):
    image, _ = read_reduced(saved(tmp_path / "a.jpg", photograph(800, 800).convert("L")), side=50)
    assert image.mode == "RGB" and image.size == (100, 100)


def test_a_damaged_jpeg_is_named_when_reduced(tmp_path):
    path = saved(tmp_path / "a.jpg", photograph(800, 800))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"a\.jpg"):
        read_reduced(path, side=50)
