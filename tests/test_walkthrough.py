"""The walkthrough of the README, line by line as it stands there."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from sowa.cli import main
from tests.predictor.parts import part

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Your own parts, from the shell")[2].partition("\n## ")[0]
LINES = [line.split(" #")[0].strip() for line in re.search(r"```\n(.*?)```", SECTION, re.S)[1].splitlines()]


def typed(line, *more):
    words = shlex.split(line)
    assert words[0] == "sowa"
    with pytest.raises(SystemExit) as end:
        main([*words[1:], *more])
    assert end.value.code == 0, line


def check(home, defect):
    rows = [json.loads(line) for line in (home / "out/results.jsonl").read_text().splitlines()]
    assert len(rows) > 5 and {row["path"].split("/")[0] for row in rows} == {"good", defect}
    for row in rows:
        assert ("overlay" in row) == (row["verdict"] == "defective")
        if "overlay" in row:
            with Image.open(home / "out" / row["overlay"]) as image:
                assert image.size[1] > row["size"][1]
    judged = json.loads((home / "judged/predict.json").read_text())
    assert judged["metrics"]["recall"]["images"] and (home / "calibrated.sowa").is_file()
    assert "</html>" in (home / "report.html").read_text(encoding="utf-8")
    return judged["metrics"]


def test_the_lines_on_drawn_parts(tmp_path, monkeypatch, capsys):
    """The same words with a backbone that needs no weights, on a tree like the one of the first two lines."""
    for folder, first, count, defect in (
        ("train/good", 0, 6, False),
        ("test/good", 10, 6, False),
        ("test/defective", 20, 6, True),
    ):
        (tmp_path / "cells/mono" / folder).mkdir(parents=True)
        for seed in range(first, first + count):
            part(seed, defect=defect).save(tmp_path / "cells/mono" / folder / f"cell{seed - first:04d}.png")
    monkeypatch.chdir(tmp_path)
    for line in LINES:
        if not line.startswith("sowa data"):
            typed(line, *(["--backbone", "random_tiny"] if line.startswith("sowa fit") else []))
    assert "remembers 4 good pictures" in capsys.readouterr().out
    assert check(tmp_path, "defective")["image_auroc"] > 0.9


@pytest.mark.slow
@pytest.mark.weights
def test_the_lines_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in LINES:
        typed(line)
    assert "remembers 4 good pictures" in capsys.readouterr().out
    assert check(tmp_path, "defective")["image_auroc"] > 0.75
