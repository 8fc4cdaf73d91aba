"""Whatever a picture comes as, it is the same pixels; whatever is no picture is named in one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from sowa.errors import DataError
from sowa.predictor.pictures import as_picture, given_pictures, identity, named, without_copies
from tests.predictor.parts import fitted, part


def every_form(picture, path):
    picture.save(path)
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return {
        "path": path,
        "text": str(path),
        "open": Image.open(path),
        "memory": picture,
        "array": pixels,
        "float array": pixels.astype(np.float32) / 255,
        "tensor": tensor,
        "float tensor": tensor.double() / 255,
    }


def test_every_form_has_the_same_score(tmp_path):
    scores = {
        form: fitted().predict(item).score
        for form, item in every_form(part(7, defect=True), tmp_path / "p.png").items()
    }
    assert len(set(scores.values())) == 1, scores


def test_grey_in_every_form(tmp_path):
    grey = part(3).convert("L")
    grey.save(tmp_path / "g.png")
    pixels = np.asarray(grey)
    forms = [tmp_path / "g.png", grey, pixels, pixels[..., None], torch.from_numpy(pixels.copy())]
    assert len({as_picture(form).tobytes() for form in forms}) == 1


def test_a_turned_photograph_is_turned_in_memory_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    part(1).save(tmp_path / "t.jpg", exif=exif)
    assert as_picture(Image.open(tmp_path / "t.jpg")).tobytes() == as_picture(tmp_path / "t.jpg").tobytes()
    assert as_picture(tmp_path / "t.jpg").size == part(1).size[::-1]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), bool),
        np.full((4, 4), 2.0),
        np.full((4, 4), -0.1),
        np.full((4, 4), np.nan),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.zeros(3),
        None,
        7,
        b"bytes",
    ],
    ids=str,
)
def test_no_picture(bad):
    with pytest.raises(DataError) as caught:
        as_picture(bad, "thing")
    assert "\n" not in str(caught.value) and "thing" in str(caught.value)


def test_which_pictures_are_meant(tmp_path):
    for name in ("b.png", "a.png"):
        part(1).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("x")
    assert [path.name for path in given_pictures(tmp_path)] == ["a.png", "b.png"]
    assert given_pictures(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert len(given_pictures(np.zeros((5, 4, 4, 3), np.uint8))) == 5
    assert len(given_pictures(np.zeros((4, 4, 3), np.uint8))) == 1
    assert len(given_pictures(iter([part(0), part(1)]))) == 2
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", 3):
        with pytest.raises(DataError):
            given_pictures(wrong)


def test_copies_are_found_by_their_pixels(tmp_path):
    part(1).save(tmp_path / "a.png")
    part(1).save(tmp_path / "b.bmp")
    items = [tmp_path / "a.png", part(2), tmp_path / "b.bmp"]
    found = [identity(item, as_picture(item), number) for number, item in enumerate(items, 1)]
    assert without_copies(found) == [0, 1]
    assert found[0].sha256 != found[2].sha256
    assert found[0].name == "a.png" and found[1].name == "array-2"


def test_items_of_a_stream_may_bring_names():
    assert [name for name, _ in named(["x.png", ("y", part(0)), part(1)])] == ["x.png", "y", "array"]


def test_the_content_of_a_file_is_its_picture(tmp_path):
    part(3).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert as_picture(content, "s3://b/a.png").tobytes() == as_picture(tmp_path / "a.png").tobytes()
    assert given_pictures(content) == [content]
    with pytest.raises(DataError, match=r"^s3://b/a\.png: empty file"):
        as_picture(b"", "s3://b/a.png")
    with pytest.raises(DataError, match=r"^s3://b/a\.png: damaged image"):
        as_picture(content[: len(content) // 2], "s3://b/a.png")
