"""The benchmark's loop computes what it is compared for, and its command runs."""

import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sowa.metrics.legacy import aupro_april, linear_thresholds

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "metrics.py"


def test_the_loop_is_the_april_variant():
    names = runpy.run_path(str(SCRIPT))
    maps, masks = names["drawn"](4, 40)
    points = [names["one_threshold"](maps, masks, threshold) for threshold in linear_thresholds(maps)]
    kept = [point for point in points if point[0] < 0.3]
    low, high = kept[-1][0], kept[0][0]
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(kept)) / (high - low)
    assert area == pytest.approx(aupro_april(maps, masks), abs=1e-9)


def test_the_lean_loop_finds_the_same():
    names = runpy.run_path(str(SCRIPT))
    maps, masks = names["drawn"](4, 40)
    found = names["listed_regions"](masks)
    for threshold in (0.1, 1.0, 3.0):
        lean = names["one_lean_threshold"](maps, masks == 0, found, threshold)
        assert lean == pytest.approx(names["one_threshold"](maps, masks, threshold), abs=1e-12)


def test_the_command_prints_a_ratio_and_writes_json(tmp_path, monkeypatch, capsys):
    path = tmp_path / "b.json"
    arguments = ["--images", "3", "--size", "40", "--repeats", "1", "--passes", "2", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "ratio" in capsys.readouterr().out.splitlines()[-1]
    assert json.loads(path.read_text())["loop_thresholds_timed"] == 2
