"""The cheap look at a file never calls whole what the decoder refuses."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sowa.data.images import read_image
from sowa.data.sound import header_size, sound_png, sound_size
from sowa.errors import DataError
from tests.data.test_damaged import MAX_PIXELS, damaged_files, whole_files

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int = 4, height: int = 3, *, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def rows(width: int = 4, height: int = 3, filter_: int = 0) -> bytes:
    return zlib.compress((bytes([filter_]) + bytes(range(width))) * height)


def picture(mode: str = "RGB", size: tuple[int, int] = (23, 17)) -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "1", "I;16"])
def test_plain_pictures_are_known_without_decoding(tmp_path, mode):
    (tmp_path / "a.png").write_bytes(picture(mode))
    assert sound_png(tmp_path / "a.png") == (23, 17)


def test_pictures_larger_than_a_piece_are_followed_to_the_end(tmp_path):
    whole = picture(size=(700, 500))
    assert len(whole) > 3 * (1 << 18)
    (tmp_path / "a.png").write_bytes(whole)
    assert sound_png(tmp_path / "a.png") == (700, 500)
    (tmp_path / "a.png").write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    assert sound_png(tmp_path / "a.png") is None


@pytest.mark.filterwarnings("ignore")
def test_what_is_called_whole_can_be_read(tmp_path):
    paths = damaged_files(tmp_path, 320)
    for i, data in enumerate(whole_files(np.random.default_rng(7))):
        paths.append(tmp_path / f"whole{i}.png")
        paths[-1].write_bytes(data)
    called = [path for path in paths if sound_png(path, max_pixels=MAX_PIXELS)]
    assert len(called) >= 6  # the healthy ones
    for path in called:
        assert read_image(path, max_pixels=MAX_PIXELS).size == sound_png(path, max_pixels=MAX_PIXELS)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_no_flipped_bit_and_no_cut_passes(tmp_path, place, bit, cut):
    whole = picture()
    at = int(place * len(whole))
    changed = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    (tmp_path / "a.png").write_bytes(changed)
    assert sound_png(tmp_path / "a.png") is None


CRAFTED = {
    "fewer rows": header() + chunk(b"IDAT", rows(height=2)) + chunk(b"IEND"),
    "unknown filter": header() + chunk(b"IDAT", rows(filter_=5)) + chunk(b"IEND"),
    "wrong checksum of the rows": header() + chunk(b"IDAT", rows()[:-1] + b"\0") + chunk(b"IEND"),
    "rows cut before their checksum": header() + chunk(b"IDAT", rows()[:-4]) + chunk(b"IEND"),
    "rows after another chunk": header()
    + chunk(b"IDAT", rows()[:6])
    + chunk(b"gAMA", bytes(4))
    + chunk(b"IDAT", rows()[6:])
    + chunk(b"IEND"),
    "no rows": header() + chunk(b"IEND"),
    "no width": header(width=0) + chunk(b"IDAT", rows()) + chunk(b"IEND"),
    "depth of three bits": header(depth=3) + chunk(b"IDAT", rows()) + chunk(b"IEND"),
    "more pixels than allowed": header(50_000, 50_000) + chunk(b"IDAT", rows()) + chunk(b"IEND"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_well_formed_nonsense_is_left_to_the_decoder(tmp_path, name):
    (tmp_path / "a.png").write_bytes(SIGNATURE + CRAFTED[name])
    assert sound_png(tmp_path / "a.png") is None
    try:
        size = read_image(tmp_path / "a.png").size
    except DataError as error:
        with pytest.raises(DataError, match=r"a\.png") as same:
            sound_size(tmp_path / "a.png")
        assert str(same.value) == str(error)
    else:  # the decoder makes do with it
        assert sound_size(tmp_path / "a.png") == size


def test_what_is_uncertain_is_read(tmp_path):
    """Interlaced, with a note nobody checked: not called whole, but read."""
    for note in (header(interlaced=1), header() + chunk(b"tEXt", b"a\0b")):
        (tmp_path / "a.png").write_bytes(SIGNATURE + note + chunk(b"IDAT", rows()) + chunk(b"IEND"))
        assert sound_png(tmp_path / "a.png") is None
    assert sound_size(tmp_path / "a.png") == (4, 3)


def test_sizes_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert header_size(tmp_path / "a.jpg") == sound_size(tmp_path / "a.jpg") == (5, 9)


def test_header_of_a_giant_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(SIGNATURE + CRAFTED["more pixels than allowed"])
    with pytest.raises(DataError, match="pixels"):
        header_size(tmp_path / "a.png")
