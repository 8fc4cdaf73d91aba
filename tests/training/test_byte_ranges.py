"""Ranges that int8 needs, measured on towers the package has none of."""

import json

import pytest
import torch

from sowa.backbones import build_backbone, ranges
from sowa.backbones.quick_int8 import int8_works, measured_ranges
from sowa.backbones.ranges import ranges_place
from sowa.cli import main
from sowa.errors import ConfigError, WeightsError
from sowa.training import byte_ranges
from sowa.training.byte_ranges import measure_int8

pytestmark = pytest.mark.skipif(not int8_works(), reason="this processor or this torch has no products of bytes")


def drawn(image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(image_size)
    images = torch.randint(0, 256, (9, 3, image_size, image_size), generator=generator).to(torch.uint8)
    return images[:6], images[6:]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path))
    monkeypatch.setattr(byte_ranges, "training_images", drawn)


def test_a_measured_tower_computes_in_bytes_and_an_unmeasured_one_says_what_to_do(tmp_path):
    backbone, told = build_backbone("random_tiny"), []
    with pytest.raises(ConfigError, match="sowa measure-int8 --backbone random_tiny"):
        backbone.at_precision("int8")
    report = measure_int8(backbone, progress=lambda done, total: told.append((done, total)))
    assert report.path.parent == tmp_path / "int8" and (report.images, report.held) == (6, 3)
    assert told[-1] == (9, 9) and list(report.apart) == list(backbone.default_taps)
    lowered = build_backbone("random_tiny").at_precision("int8")
    assert lowered.precision == "int8"
    _, held = drawn(backbone.image_size)
    found, due = (one.encode_image(held, backbone.default_taps).levels[-1] for one in (lowered, backbone))
    assert float((found - due).norm() / due.norm()) == pytest.approx(list(report.apart.values())[-1], rel=1e-3)


def test_ranges_are_those_of_all_images_at_once():
    backbone = build_backbone("random_tiny")
    measure_int8(backbone)
    whole = measured_ranges(backbone.visual, backbone._normalised(drawn(backbone.image_size)[0]))
    for found, due in zip(ranges.known_ranges(backbone.visual, backbone.weights_id), whole, strict=True):
        torch.testing.assert_close(found, due, rtol=2e-3, atol=1e-3)


def test_towers_do_not_share_a_file():
    towers = [build_backbone("random_tiny", **options) for options in ({}, {"activation": "gelu"}, {"seed": 1})]
    assert len({ranges_place(tower.visual, tower.weights_id).path for tower in towers}) == 3
    measure_int8(towers[0])
    for other in towers[1:]:
        with pytest.raises(ConfigError, match="not measured"):
            other.at_precision("int8")


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_file_is_one_line(content):
    backbone = build_backbone("random_tiny")
    path = measure_int8(backbone).path
    if content is None:  # ranges of a tower of another size
        found = measured_ranges(backbone.visual, backbone._normalised(drawn(backbone.image_size)[0]))
        content = ranges.ranges_bytes(type(found)(*(values[:2] for values in found)))
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="delete it and run sowa measure-int8") as refusal:
        backbone.at_precision("int8")
    assert "\n" not in str(refusal.value)


def test_a_tower_that_bytes_do_not_suit_is_refused_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(byte_ranges, "MOST_APART", 1e-6)
    with pytest.raises(ConfigError, match="does not suit"):
        measure_int8(build_backbone("random_tiny"))
    assert not list(tmp_path.rglob("*"))


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot be written.*SOWA_CACHE") as refusal:
        measure_int8(build_backbone("random_tiny"))
    assert "\n" not in str(refusal.value)


def test_what_cannot_be_measured_is_refused(monkeypatch):
    tiny = build_backbone("random_tiny")
    with pytest.raises(ConfigError, match="no products of bytes"):
        measure_int8(build_backbone("random_tiny_cnn"))
    with pytest.raises(ConfigError, match="measure it in fp32"):
        measure_int8(tiny.at_precision("bf16"))
    monkeypatch.setattr(byte_ranges, "shipped_ranges", lambda weights_id: ())
    with pytest.raises(ConfigError, match="come with the package"):
        measure_int8(tiny)


def test_the_command(capsys):
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit) as left:
            main(["measure-int8", "--backbone", "random_tiny", *words])
        assert left.value.code == 0
        out = capsys.readouterr().out
        assert set(json.loads(out)["apart"]) == {"1", "2", "3", "4"} if words else "precision=int8 can be used" in out
    with pytest.raises(SystemExit) as left:
        main(["measure-int8", "--backbone", "random_tiny_cnn"])
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1
