"""The example of docs/EXPORT.md runs where torch cannot be imported, and says what the detector says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.predictor.parts import part, parts

EXAMPLE = Path(__file__).parents[2] / "examples" / "predict_without_torch.py"
WITHOUT = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'sowa', 'onnx', 'scipy')));"
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_prediction_without_torch(onnx_file, small_detectors, tmp_path):
    pictures = {"good.png": part(60), "bad.png": part(61, defect=True), "grey.png": part(62).convert("L")}
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    words = [sys.executable, "-c", WITHOUT, EXAMPLE, onnx_file, *(tmp_path / name for name in pictures)]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    rows, exact = [json.loads(line) for line in done.stdout.splitlines()], small_detectors("sowa_plus")
    assert len(EXAMPLE.read_text().splitlines()) <= 30 and len(rows) == len(pictures)
    for row in rows:
        wanted = exact.predict(row["name"])
        assert row["score"] == pytest.approx(wanted.score, rel=1e-4, abs=1e-4) and row["verdict"] == wanted.verdict
    square = parts(1, first=63, size=(112, 112), defect=True)[0]  # at the model's size nothing is resampled
    square.save(tmp_path / "square.png")
    words[5:] = [tmp_path / "square.png"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    heat = exact.predict(square).heatmap
    assert json.loads(done.stdout)["heat"] == pytest.approx(float(np.max(heat)), rel=1e-4)
