"""Trained tensors on disk: what comes back is what was saved, and anything else is named in one line."""

import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from sowa.artifact import digest, find_trained, load_trained, read_meta, read_trained, save_trained
from sowa.errors import ArtifactError
from sowa.training.train import describe
from tests.training.small import prepare, settings_for

META = {"detector": "sowa", "backbone": {"name": "random_tiny"}, "weights_id": "random:seed=0"}


@dataclass
class Tower:
    name: str = "random_tiny"
    weights_id: str = "random:seed=0"


def small_detector(width=3, seed=0):
    from sowa.detectors.base import Detector

    class Small(Detector):
        def __init__(self):
            super().__init__()
            torch.manual_seed(seed)
            self.layer = nn.Linear(width, 2)
            self.backbone = Tower()

        fit_tokens = score = None

    return Small()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "trained.safetensors"
    save_trained(path, small_detector(), meta=META)
    return path


def test_round_trip(saved):
    other = small_detector(seed=1)
    assert load_trained(saved, other) == META == read_meta(saved)
    assert digest(other.trained_state()) == digest(small_detector().trained_state())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def refused(path, detector=None):
    detector = detector or small_detector(seed=1)
    before = digest(detector.trained_state())
    with pytest.raises(ArtifactError) as caught:
        load_trained(path, detector)
    assert digest(detector.trained_state()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_or_missing_byte_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "trained.safetensors"
    save_trained(path, small_detector(), meta=META)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_trained(path)
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    absent, foreign = tmp_path / "absent.safetensors", tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    assert "no file" in refused(absent)
    assert "sowa import" in refused(foreign)


@pytest.mark.parametrize("version", ["2", "99", "", "-1", "x"])
def test_newer_format(tmp_path, version):
    path = tmp_path / "newer.safetensors"
    header = {"format": "sowa.trained", "version": version, "meta": json.dumps(META)}
    save_file({"weight": torch.zeros(2)}, path, metadata=header)
    assert "version" in refused(path)


@pytest.mark.parametrize("meta", ["", "[]", "{}", "nonsense", '{"detector": "sowa"}'])
def test_description_that_lacks_something(tmp_path, meta):
    path = tmp_path / "trained.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "sowa.trained", "version": "1", "meta": meta})
    assert "description" in refused(path)


def test_other_backbone(saved):
    detector = small_detector()
    detector.backbone.weights_id = "sha256:0123"
    line = refused(saved, detector)
    assert "random:seed=0" in line
    assert "sha256:0123" in line


def test_other_shapes(saved):
    assert "shape" in refused(saved, small_detector(width=4))


def test_what_is_meant_by_a_path(data_dir, tmp_path):
    training = prepare(data_dir, tmp_path / "run")
    training.fit()
    folder = training.folder
    assert find_trained(folder.path) == folder.trained
    whole, meta = read_trained(folder.trained)
    under_way, about = read_trained(folder.state)
    assert digest(whole) == digest(under_way)
    assert meta == json.loads(json.dumps(about)) | {"steps": 3}
    folder.trained.unlink()
    assert find_trained(folder.path) == folder.state
    with pytest.raises(ArtifactError, match="no file"):
        find_trained(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="holds no"):
        find_trained(tmp_path)


def test_a_description_carries_no_paths(data_dir, tmp_path):
    training = prepare(data_dir, tmp_path)
    settings = settings_for(data_dir, f"data.target.root={tmp_path}", f"paths.cache_dir={tmp_path}")
    about = describe(training.detector, settings, training.data)
    assert str(tmp_path) not in json.dumps(about)
    assert str(data_dir) not in json.dumps(about)
    assert about["trained_on"] == {"dataset": "mvtec", "categories": ["bottle", "grid"]}


def test_incomplete_meta_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="weights_id"):
        save_trained(tmp_path / "x", small_detector(), meta={"detector": "sowa", "backbone": {}})
