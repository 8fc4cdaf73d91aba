"""Speed rows are complete, and a method that cannot run costs only its own."""

import json

import pytest

from sowa.backbones import build_backbone
from sowa.benchmark import speed
from sowa.benchmark.speed import COLUMNS, measure, speed_main
from sowa.detectors import build_detector
from sowa.errors import ConfigError, WeightsError

TINY = ["backbone=random_tiny", "backbone.image_size=56"]


def job(*words, shots=(0, 1), batches=(1, 2)):
    return {"name": "m", "words": [*TINY, *words], "batches": list(batches), "shots": list(shots), "seconds": 0.01}


def test_a_row_for_every_batch_and_number_of_shots():
    rows = measure(job("model=sowa_hfwa"))
    assert [(row["k"], row["batch"]) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    for row in rows:
        assert set(COLUMNS) <= row.keys()
        assert row["images_per_second"] > 0 and row["ms_p95"] >= row["ms_median"] > 0
        assert 0 < row["trainable"] < row["parameters"] and row["weights"] == "random" and row["image_size"] == 56


def test_a_method_without_zero_shot_has_rows_with_shots_alone():
    assert {row["k"] for row in measure(job("model=padim"))} == {1}


def test_weights_that_are_not_at_hand_are_drawn(monkeypatch):
    import sowa.training.build as door

    def build(settings):
        if settings["backbone"].get("weights") != "random":
            raise WeightsError("weights are not in the cache")
        assert settings["backbone"]["name"] == "clip" and settings["backbone"]["image_size"] == 64
        return build_detector("sowa", backbone=build_backbone("random_tiny"))

    monkeypatch.setattr(door, "build", build)
    rows = measure(job("model=sowa_linear", "backbone=clip", "backbone.image_size=64", shots=(1,), batches=(1,)))
    assert [row["weights"] for row in rows] == ["random"]


def test_what_cannot_be_drawn_either_is_answered_with_the_first_error(monkeypatch):
    import sowa.training.build as door

    def build(settings):
        raise WeightsError("not in the cache" if settings["backbone"].get("weights") is None else "not drawn")

    monkeypatch.setattr(door, "build", build)
    with pytest.raises(WeightsError, match="not in the cache"):
        measure(job("model=sowa_linear"))


def test_files_are_written_and_failures_named(tmp_path, monkeypatch):
    def apart(asked):
        return {"error": "no weights"} if asked["name"] == "broken" else {"rows": measure(asked)}

    monkeypatch.setattr(speed, "_apart", apart)
    said = []
    rows = speed_main(
        methods=[("padim", [*TINY, "model=padim"]), ("broken", TINY)],
        common=56,
        batches=[1],
        shots=[1],
        seconds=0.01,
        out=tmp_path,
        said=said.append,
    )
    assert len(rows) == 1  # its own size is the common one
    assert any("broken" in line and "no weights" in line for line in said)
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert kept["rows"][0]["method"] == "padim" and kept["failed"]
    assert all((tmp_path / f"speed.{kind}").stat().st_size for kind in ("csv", "md", "png"))


def test_nothing_to_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_apart", lambda asked: {"error": "no weights"})
    with pytest.raises(ConfigError, match="no weights"):
        speed_main(methods=[("a", TINY)], out=tmp_path, said=lambda line: None)
    with pytest.raises(ConfigError, match="seconds"):
        speed_main(methods=[("a", TINY)], seconds=0, out=tmp_path)


def test_a_row_is_measured_in_a_process_of_its_own():
    found = speed._apart(job("model=padim", shots=[1], batches=[1]))
    assert found["rows"][0]["method"] == "m"
    assert "did you mean" in speed._apart(job("model=padym"))["error"]
