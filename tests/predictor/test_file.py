"""The `.sowa` file: what comes back is what was saved; anything else is refused in one line."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from sowa.artifact import seal
from sowa.errors import ArtifactError, ConfigError, SowaError
from sowa.predictor.file import FORMAT, VERSION, read_file
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import fitted, part, parts

SAMPLE = Path(__file__).parent / "files" / "v1.sowa"
PICTURE = np.add.outer(np.arange(60) * 4, np.arange(80) * 2).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "disc.sowa"
    fitted("patchcore", k=2).save(path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"model": "sowa"},
        {"model": "sowa_plus"},
        {"model": "winclip"},
        {"model": "padim", "options": {"channels": 20}},
        {"model": "inctrl"},
        {"model": "april_gan", "thumbnails": True},
        {"model": "patchcore", "tile": 0.6, "fit": "letterbox", "roi": np.eye(9, dtype=np.uint8)},
    ],
    ids=lambda options: options["model"],
)
def test_round_trip(options, tmp_path):
    detector = Predictor.fit(parts(2), name="disc", backbone="random_tiny", **options)
    detector.save(tmp_path / "d.sowa")
    again = Predictor.load(tmp_path / "d.sowa")
    assert again.info() == detector.info() and again.id == detector.id and again.promise() == detector.promise()
    one, other = (each.predict(part(9, defect=True)) for each in (detector, again))
    assert one.score == other.score and (one.heatmap == other.heatmap).all()
    if detector.thumbnails is not None:
        np.testing.assert_array_equal(again.thumbnails, detector.thumbnails)
    again.save(tmp_path / "again.sowa")
    assert Predictor.load(tmp_path / "again.sowa").id == detector.id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.sowa", "d.sowa"]


def test_later_changes_are_saved_too(tmp_path):
    detector = fitted("patchcore").calibrate(parts(9, first=40), parts(2, first=60, defect=True))
    detector.save(tmp_path / "d.sowa")
    assert Predictor.load(tmp_path / "d.sowa").info() == detector.info()
    Predictor.load(tmp_path / "d.sowa").with_threshold(3).add([part(70)]).save(tmp_path / "d.sowa")
    assert Predictor.load(tmp_path / "d.sowa").threshold == 3


def test_there_is_a_file_of_every_version():
    """Whoever raises VERSION writes a file of the new one and keeps the older ones, each loaded by a test below."""
    files = sorted(path.name for path in SAMPLE.parent.iterdir())
    assert files == sorted(f"v{version}.sowa" for version in range(1, VERSION + 1))
    for version in range(1, VERSION + 1):
        with safe_open(SAMPLE.parent / f"v{version}.sowa", framework="pt") as file:
            assert file.metadata()["version"] == str(version)


def test_what_a_file_says_of_its_origin(tmp_path):
    """Names and hashes of the good pictures' files, licence and identity of the weights; no folder of this machine."""
    for number, picture in enumerate(parts(3)):
        picture.save(tmp_path / f"{number}.png")
    Predictor.fit(tmp_path, k=2, model="patchcore", backbone="random_tiny", thumbnails=True).save(tmp_path / "d.sowa")
    with safe_open(tmp_path / "d.sowa", framework="pt") as file:
        meta, names = file.metadata(), set(file.keys())
    about = json.loads(meta["about"])
    wanted = {f"{n}.png": hashlib.sha256((tmp_path / f"{n}.png").read_bytes()).hexdigest() for n in range(3)}
    assert {one["name"]: one["sha256"] for one in about["normals"]} == wanted
    assert sorted(one["use"] for one in about["normals"]) == ["reference", "reference", "threshold"]
    assert about["backbone"]["licence"] and about["backbone"]["weights_id"]
    assert "normals.thumbnails" in names and str(tmp_path) not in meta["about"]
    assert meta["format"] == FORMAT and meta["version"] == str(VERSION)


def test_the_first_version_still_loads_and_says_the_same():
    """A file of format version 1, written once and never again."""
    assert SAMPLE.stat().st_size < 100_000
    result = Predictor.load(SAMPLE).predict(PICTURE)
    assert result.score == pytest.approx(SAMPLE_SCORE, rel=1e-4)
    assert result.threshold == pytest.approx(SAMPLE_THRESHOLD, rel=1e-12)
    assert result.heatmap.max() == pytest.approx(SAMPLE_HEAT, rel=1e-3)
    assert result.artifact == SAMPLE_ID


SAMPLE_SCORE, SAMPLE_THRESHOLD = 6.9963836669921875, 2.213600034140819
SAMPLE_HEAT, SAMPLE_ID = 3.2012276649475098, "sha256:14929b6357a97ed8"


def refused(path, words=""):
    with pytest.raises(ArtifactError) as caught:
        Predictor.load(path)
    line = str(caught.value)
    assert "\n" not in line and path.name in line and words in line, line
    return line


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_changed_or_missing_byte_is_noticed(saved, tmp_path_factory, data):
    content = bytearray(saved.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(content) - 1)))
    kind = data.draw(st.sampled_from(["cut", "flip", "byte", "insert"]))
    if kind == "cut":
        content = content[:place]
    elif kind == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    elif kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content[place] = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    path = tmp_path_factory.mktemp("damage") / "d.sowa"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "d.sowa"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        read_file(path)


def rewritten(saved, path, *, about=None, tensors=None, **header):
    """The file with other contents and a seal that fits them, as an ill-meaning author would write it."""
    with safe_open(saved, framework="pt") as file:
        meta, values = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    said = json.loads(meta["about"])
    if about:
        about(said)
    values |= tensors or {}
    values = {name: value for name, value in values.items() if value is not None}
    text = json.dumps(said)
    meta = {**meta, "about": text, "sha256": seal(values, text), **header}
    path.write_bytes(save(values, metadata=meta))
    return path


def test_a_rewritten_file_is_read(saved, tmp_path):
    path = rewritten(saved, tmp_path / "d.sowa", about=lambda said: said.update(name="other"))
    assert Predictor.load(path).name == "other"


@pytest.mark.parametrize("version", ["2", "99", "0", "", "-1", "x", "1.0", "9" * 5000])
def test_other_versions(saved, tmp_path, version):
    refused(rewritten(saved, tmp_path / "d.sowa", version=version), "version")


def test_other_files(saved, tmp_path):
    refused(tmp_path / "absent.sowa", "no detector")
    refused(rewritten(saved, tmp_path / "t.sowa", format="sowa.trained"), "not a fitted detector")
    (tmp_path / "folder.sowa").mkdir()
    refused(tmp_path / "folder.sowa")
    shutil.copy(__file__, tmp_path / "text.sowa")
    refused(tmp_path / "text.sowa")


def set_at(*keys, to):
    def change(said):
        for key in keys[:-1]:
            said = said[key]
        said[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_at("extra", to=1),
        set_at("model", "extra", to=1),
        lambda said: said.pop("calibration"),
        lambda said: said["normals"][0].pop("sha256"),
        set_at("name", to=""),
        set_at("name", to="a\nb"),
        set_at("name", to=7),
        set_at("model", to=[]),
        set_at("model", "name", to="__import__"),
        set_at("model", "name", to="winclip"),
        set_at("model", "options", to={"nothing": 1}),
        set_at("model", "options", to={"neighbourhood": 10**9}),
        set_at("model", "options", to={"taps": [1] * 1000}),
        set_at("model", "options", to={"sigma": {"a": 1}}),
        set_at("model", "options", to={"taps": [99]}),
        set_at("backbone", "name", to="../../etc"),
        set_at("backbone", "name", to="random_tiny_cnn"),
        set_at("backbone", "weights_id", to="random:seed=1"),
        set_at("backbone", "options", to={"weights": "/etc/passwd"}),
        set_at("backbone", "options", to={"cache_dir": "/etc"}),
        set_at("backbone", "options", to={"image_size": 10**6}),
        set_at("backbone", "options", to={"image_size": 126}),
        set_at("view", "size", to=64),
        set_at("view", "size", to=-1),
        set_at("view", "fit", to="stretch"),
        set_at("view", "tile", to=0.00001),
        set_at("view", "overlap", to=1),
        set_at("calibration", "threshold", to="0.5"),
        set_at("calibration", "threshold", to=10**400),
        set_at("calibration", "threshold", to=float("nan")),
        set_at("calibration", "threshold", to=float("inf")),
        set_at("calibration", "pixel_threshold", to=0),
        set_at("calibration", "kind", to="guessed"),
        set_at("calibration", "exceeding", to=3),
        set_at("calibration", "normals", to=-1),
        set_at("normals", 0, "name", to="../a.png"),
        set_at("normals", 0, "name", to="C:\\a.png"),
        set_at("normals", 0, "sha256", to="ff"),
        set_at("normals", 0, "use", to="other"),
        set_at("normals", to={}),
        set_at("trained", to={"name": "a/b", "sha256": "0" * 64}),
        set_at("copies", to=True),
    ],
)
def test_hostile_descriptions(saved, tmp_path, change):
    refused(rewritten(saved, tmp_path / "d.sowa", about=change))


@pytest.mark.parametrize(
    "tensors",
    [
        {"reference.bank": None},
        {"reference.bank": torch.full((4, 64), float("nan"))},
        {"reference.bank": torch.full((4, 64), float("inf"))},
        {"reference.bank": torch.zeros(4, 63)},
        {"reference.bank": torch.zeros(0, 64)},
        {"reference.bank": torch.zeros(4, 4, 64)},
        {"reference.bank": torch.zeros(4, 64, dtype=torch.int64)},
        {"reference.bank": torch.zeros(4, 64, dtype=torch.complex64)},
        {"reference.bank": torch.zeros(4, 64, dtype=torch.int8)},
        {"trained.layer": torch.zeros(2)},
        {"backbone.layer": torch.zeros(2)},
        {"other": torch.zeros(2)},
        {"reference./etc/passwd": torch.zeros(2)},
        {"reference...x": torch.zeros(2)},
        {"calibration.scores": None},
        {"calibration.scores": torch.zeros(2)},
        {"calibration.scores": torch.full((2,), float("nan"), dtype=torch.float64)},
        {"calibration.peaks": torch.zeros(2, 2, dtype=torch.float64)},
        {"view.mask": torch.zeros(4, 4, dtype=torch.uint8)},
        {"view.mask": torch.full((4, 4), 7, dtype=torch.uint8)},
        {"view.mask": torch.ones(4, dtype=torch.uint8)},
        {"normals.thumbnails": torch.zeros(1, 64, 64, 3, dtype=torch.uint8)},
        {"normals.thumbnails": torch.zeros(2, 8, 8, 3, dtype=torch.uint8)},
    ],
    ids=lambda tensors: " ".join(f"{n}-{'gone' if v is None else list(v.shape)}" for n, v in tensors.items()),
)
def test_hostile_tensors(saved, tmp_path, tensors):
    refused(rewritten(saved, tmp_path / "d.sowa", tensors=tensors))


def with_header(path, header: bytes, *, length=None, body=b""):
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)
    return path


META = {"format": FORMAT, "version": "1", "about": "{}", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [50_000, 50_000], "data_offsets": [0, 10_000_000_000]},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2.0, 2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [1] * 5000, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 32]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        [],
        None,
    ],
    ids=str,
)
def test_hostile_headers(tmp_path, entry):
    header = json.dumps({"__metadata__": META, "reference.bank": entry}).encode()
    refused(with_header(tmp_path / "d.sowa", header, body=bytes(16)))


def test_hostile_lengths_and_depths(tmp_path):
    path = tmp_path / "d.sowa"
    refused(with_header(path, b"{}", length=1 << 62))
    refused(with_header(path, b"{}", length=100_000_000_000))
    refused(with_header(path, b"[" * 200_000))
    refused(with_header(path, b'{"a":' * 100_000))
    refused(with_header(path, b"\xff\xfe{}"))
    refused(with_header(path, b"[1]"))
    refused(with_header(path, json.dumps({"__metadata__": 3}).encode()))
    refused(with_header(path, json.dumps({"__metadata__": {**META, "version": 1}}).encode()))
    many = {"__metadata__": META} | {f"reference.t{i}": {} for i in range(30_000)}
    refused(with_header(path, json.dumps(many).encode()), "30000")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SowaError) as caught:
        fitted().save(tmp_path / "file" / "d.sowa")
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- bundle


@pytest.mark.parametrize("backbone", ["random_tiny", "random_tiny_cnn"])
def test_a_backbone_drawn_from_a_seed_travels_for_nothing(backbone, tmp_path):
    detector = Predictor.fit(parts(1), model="patchcore", backbone=backbone)
    detector.save(tmp_path / "d.sowa", bundle=True)
    again = Predictor.load(tmp_path / "d.sowa", offline=True, cache_dir=tmp_path / "no-cache")
    assert again.id == detector.id and again.predict(part(5)).score == detector.predict(part(5)).score
    assert again.info()["backbone"]["inside"]


def test_a_backbone_that_cannot_travel_is_named(tmp_path, monkeypatch):
    import sowa.backbones.bundled as bundled

    monkeypatch.setattr(bundled, "BUNDLED", ())
    with pytest.raises(ConfigError, match="without bundle"):
        fitted().save(tmp_path / "d.sowa", bundle=True)
    assert not list(tmp_path.iterdir())
