"""The benchmarks of training run, and say what they measured in the common form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "words", "rows"),
    [
        ("token_cache", [], 6),
        ("token_cache", ["--parts"], 3),
        ("train_step", [], 10),
        ("protocol", ["--epochs", "2", "--cache"], 6),
        ("protocol", [], 5),
    ],
)
def test_a_quick_run(tmp_path, name, words, rows):
    path = tmp_path / "numbers.json"
    command = [sys.executable, str(ROOT / f"benchmarks/{name}.py"), "--quick", "--json", str(path), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["name"] == name and found["hardware"]["threads"] >= 1
    assert len(found["rows"]) == rows
    assert all(value > 0 for value in found["ratios"].values())
