"""`sowa export` as it is typed."""

import json

import pytest

from sowa.cli import main
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import fitted, part, parts

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(*words):
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return caught.value.code


def test_export_and_predict(tmp_path, capsys):
    exact = fitted("patchcore")
    exact.save(tmp_path / "disc.sowa")
    (tmp_path / "good").mkdir()
    for number, picture in enumerate(parts(2, first=40)):
        picture.save(tmp_path / "good" / f"{number}.png")
    assert run("export", tmp_path / "disc.sowa", "--good", tmp_path / "good", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == [str(tmp_path / "disc.onnx")] and report["parity"]["pictures"] == 2
    assert report["bytes"] == (tmp_path / "disc.onnx").stat().st_size and report["precision"] == "float32"
    exported = Predictor.load(tmp_path / "disc.onnx")
    assert exported.predict(part(60)).score == pytest.approx(exact.predict(part(60)).score, abs=1e-4)


def test_one_graph_for_two_files(tmp_path, capsys):
    (tmp_path / "parts").mkdir()
    part(60).save(tmp_path / "parts" / "0.png")
    exact = {}
    for name, first in (("one", 0), ("two", 20)):
        made = Predictor.fit(parts(2 + first // 10, first=first), name=name, model="patchcore", backbone="random_tiny")
        made.save(tmp_path / f"{name}.sowa")
        exact[name] = made.predict(part(60))
    graph = tmp_path / "core.onnx"
    assert run("export", tmp_path / "one.sowa", "--reference", "input", "-o", graph) == 0
    capsys.readouterr()
    for name, wanted in exact.items():
        assert run("predict", tmp_path / f"{name}.sowa", tmp_path / "parts", "--graph", graph) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["score"] == pytest.approx(wanted.score, abs=1e-4) and row["artifact"] == wanted.artifact


def test_errors_are_one_line(tmp_path, capsys):
    fitted("patchcore").save(tmp_path / "disc.sowa")
    for words, said in (
        ((tmp_path / "none.sowa",), "no detector at"),
        ((tmp_path / "disc.sowa", "--to", "tflite"), "unknown kind of file 'tflite': choose one of onnx, openvino"),
        ((tmp_path / "disc.sowa", "-o", tmp_path / "x.bin"), "does not end in .onnx"),
        ((tmp_path / "disc.sowa", "--int8"), "give 4 or more"),
        ((tmp_path / "disc.sowa", "--reference", "apart"), "unknown reference 'apart': choose one of baked, input"),
        ((tmp_path / "disc.sowa", "--tolerance", "0"), "nothing was written"),
    ):
        assert run("export", *words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and error.startswith("sowa: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["disc.sowa"]
