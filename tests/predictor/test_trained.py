"""Tensors of a training become part of a detector."""

import pytest
import torch

from sowa.artifact import digest, save_trained
from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.errors import ArtifactError, ConfigError
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part, parts

META = {
    "detector": "sowa",
    "weights_id": "random:seed=0",
    "backbone": {"name": "random_tiny", "image_size": None},
    "model": {"name": "sowa", "window": 2, "text_weight": 0.5},
}


@pytest.fixture
def trained(tmp_path):
    detector = build_detector("sowa", backbone=build_backbone("random_tiny"), window=2, text_weight=0.5)
    with torch.no_grad():
        for _, value in detector.trainable_parameters():
            value += 0.01
    save_trained(tmp_path / "trained.safetensors", detector, meta=META)
    return tmp_path / "trained.safetensors", digest(detector.trained_state())


def test_model_backbone_and_options_are_what_the_training_says(trained, tmp_path):
    path, hash_of_tensors = trained
    detector = Predictor.fit(parts(2), trained=path)
    about = detector.info()
    assert about["model"]["name"] == "sowa"
    said = {"window": 2, "text_weight": 0.5, "temperature": 0.07}  # and what nobody said, as it is today
    assert said.items() <= about["model"]["options"].items()
    assert about["backbone"]["name"] == "random_tiny"
    assert about["trained"] == {"name": "trained.safetensors", "sha256": hash_of_tensors}
    plain = Predictor.fit(parts(2), model="sowa", backbone="random_tiny", options={"window": 2, "text_weight": 0.5})
    assert detector.predict(part(9)).score != plain.predict(part(9)).score
    detector.save(tmp_path / "d.sowa")
    path.unlink()
    assert Predictor.load(tmp_path / "d.sowa").predict(part(9)).score == detector.predict(part(9)).score


def test_what_does_not_belong_together(trained):
    path, _ = trained
    with pytest.raises(ConfigError, match="leave out the model"):
        Predictor.fit(parts(2), trained=path, model="padim")
    with pytest.raises(ArtifactError, match="trained on backbone weights"):
        Predictor.fit(parts(2), trained=path, backbone_options={"seed": 1})
    with pytest.raises(ArtifactError):
        Predictor.fit(parts(2), trained=path, options={"window": 4, "depth": 2})
