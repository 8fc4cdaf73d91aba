"""`precision` and `device` at the Predictor's door."""

import pytest
import torch

from sowa.backbones import precision
from sowa.errors import ConfigError, UnknownNameError
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part, parts


def test_a_file_of_one_precision_works_under_another(tmp_path):
    options = {"name": "disc", "model": "sowa_plus", "backbone": "random_tiny"}
    exact, lowered = (Predictor.fit(parts(3), **options, precision=name) for name in ("fp32", "bf16"))
    assert (exact.info()["precision"], lowered.info()["precision"]) == ("fp32", "bf16")
    assert exact.info()["device"] == "cpu"
    assert exact.info()["backbone"]["precision"] == "fp32"
    for made, other in ((exact, "bf16"), (lowered, "fp32")):
        made.save(tmp_path / "disc.sowa")
        loaded = Predictor.load(tmp_path / "disc.sowa", precision=other)
        assert loaded.info()["precision"] == other and loaded.id == made.id
        assert loaded.info()["backbone"]["precision"] == made.info()["backbone"]["precision"]  # of the fit
        for seed in (7, 8):
            one, two = made.predict(part(seed)), loaded.predict(part(seed))
            assert one.score == pytest.approx(two.score, abs=0.5) and one.threshold == two.threshold
        again = Predictor.load(tmp_path / "disc.sowa", precision=made.info()["precision"])
        assert again.predict(part(7)).score == made.predict(part(7)).score


def test_what_is_learnt_does_not_depend_on_the_precision_of_scoring(monkeypatch):
    monkeypatch.setattr("sowa.predictor.fitting._now", lambda: "2026-01-01T00:00:00Z")  # a part of the id
    options = {"name": "disc", "model": "sowa_plus", "backbone": "random_tiny"}
    exact, lowered = (Predictor.fit(parts(3), **options, precision=name) for name in ("fp32", "bf16"))
    assert exact.id == lowered.id and exact.content.calibration == lowered.content.calibration
    assert exact.predict(part(7)).score != lowered.predict(part(7)).score


def test_auto_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "native_bf16", lambda: True)
    monkeypatch.setattr(precision, "LEAST_WIDTH", 1)
    fitted = Predictor.fit(parts(2), name="disc", model="sowa_plus", backbone="random_tiny")
    fitted.save(tmp_path / "disc.sowa")
    assert fitted.info()["precision"] == Predictor.load(tmp_path / "disc.sowa").info()["precision"] == "bf16"


def test_int8_is_refused_where_its_ranges_were_not_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "native_int8", lambda: True)
    with pytest.raises(ConfigError, match="not measured; run sowa measure-int8"):
        Predictor.fit(parts(1), name="disc", backbone="random_tiny", precision="int8")


def test_auto_keeps_a_tiny_tower_in_float32(monkeypatch):
    monkeypatch.setattr(precision, "native_bf16", lambda: True)
    fitted = Predictor.fit(parts(2), name="disc", backbone="random_tiny", precision="auto")
    assert fitted.info()["precision"] == "fp32"


def test_what_cannot_be_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(UnknownNameError, match="fp32"):
        Predictor.fit(parts(1), backbone="no such", precision="double")
    with pytest.raises(ConfigError, match="GPU"):
        Predictor.load(tmp_path / "absent.sowa", precision="fp16")
    with pytest.raises(UnknownNameError, match="cuda"):
        Predictor.fit(parts(1), backbone="random_tiny", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cuda"):
            Predictor.fit(parts(1), backbone="random_tiny", device="cuda:0")
