"""`sowa benchmark` as it is typed."""

import json

import pytest
import yaml

from sowa import cli_benchmark
from sowa.cli import main

TINY = {
    "backbone": "random_tiny",
    "title": "Tiny",
    "shots": [0, 1],
    "seeds": [0],
    "methods": {"padim": ["backbone.image_size=56"], "winclip": ["backbone.image_size=56"]},
    "data": {
        "drawn": [
            "data.target.categories=[cap]",
            *(f"data.target.draw.{key}" for key in ("train_good=1", "test_good=2", "test_bad=2", "size=56")),
        ]
    },
}


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["benchmark", *map(str, words)])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_an_experiment_leaves_cells_tables_and_a_page(experiment, tmp_path, capsys):
    places = ["--out", tmp_path / "out", "--cache-dir", tmp_path / "cache"]
    code, _, err = run(capsys, f"experiment={experiment}", *places)
    assert code == 0 and "3 cells computed" in err and "left out: padim drawn/cap k=0" in err
    page = (tmp_path / "out/tables/README.md").read_text()
    assert "# Tiny" in page and str(tmp_path) not in page.replace(str(experiment), "")
    assert json.loads((tmp_path / "out/benchmark.json").read_text())["computed"] == 3
    code, _, err = run(capsys, f"experiment={experiment}", *places)
    assert code == 0 and "0 cells computed, 3 were there" in err
    code, _, _ = run(capsys, "tables", "--out", tmp_path / "out", "--title", "Again")
    assert code == 0 and "# Again" in (tmp_path / "out/tables/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--methods", "sova"], "did you mean 'sowa'"),
        (["--data", "nowhere"], "unknown data set"),
        (["--shots", "x"], "shots 'x'"),
        (["experiment=ofline"], "offline"),
        (["offline"], "write experiment=NAME"),
        (["--trained", "sowa"], "METHOD=FILE"),
        (["--nonsense"], "nonsense"),
        (["tables", "--out", "nowhere"], "no such folder"),
        (["--methods", "padim", "--data", "visa", "--backbone", "random_tiny", "--data-dir", "nowhere"], "visa"),
    ],
)
def test_slips_are_one_line(capsys, tmp_path, monkeypatch, words, answer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOWA_DATA", raising=False)
    code, _, err = run(capsys, *words)
    lines = [line for line in err.splitlines() if line.startswith("sowa: error:")]
    assert code == 2 and len(lines) == 1 and answer in lines[0], err


def test_help_names_the_other_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "--methods" in out and "figure" in out


def test_places_are_no_part_of_the_command():
    words = ["benchmark", "--out", "a", "--shots", "1", "--data-dir=b", "--debug", "--cache-dir", "c"]
    assert cli_benchmark._lasting(words) == ["benchmark", "--shots", "1"]
