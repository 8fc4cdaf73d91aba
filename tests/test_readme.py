"""What the README says can be typed, can be typed."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sowa.cli import app
from sowa.training.run import train_main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.split(" #")[0].strip() for block in re.findall(r"```\n(.*?)```", README, re.S) for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python src/train.py")])
def test_training_commands_compose(line, tmp_path, capsys):
    words = [word.replace("DATA", str(tmp_path)) for word in shlex.split(line)[2:]]
    assert train_main([*words, "--cfg", "job"]) == 0
    assert "backbone" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("sowa ")])
def test_commands_and_their_options_exist(line):
    words = shlex.split(line.replace("|", "/"))[1:]
    path = [word for word in words[:2] if re.fullmatch(r"[a-z]+(\.sowa)?", word)]
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for option in (word for word in words if word.startswith("--")):
        assert option in done.output


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).is_file()


def test_verbs_of_the_makefile_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M)):
        assert re.search(rf"^{verb}:", makefile, re.M), verb


def test_named_models_and_backbones_exist():
    from sowa.training.compose import list_groups

    groups = list_groups()
    for group in ("model", "backbone", "data", "trainer", "experiment"):
        for name in set(re.findall(rf"\b{group}=([a-z_]+)", README)):
            assert name in groups[group], f"{group}={name}"
