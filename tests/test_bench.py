"""`make bench`: every script of its table is there and keeps the contract; a failure is named and loses nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_run", BENCHMARKS / "run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_run", module)
    spec.loader.exec_module(module)
    return module


def script(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text("import argparse, json\np = argparse.ArgumentParser()\n" + body)


GOOD = """
p.add_argument("--json"); p.add_argument("--quick", action="store_true"); o = p.parse_args()
ratios = {"a_to_b": 2.5, "quick": int(o.quick)}
json.dump({"name": "good", "rows": [], "ratios": ratios, "hardware": {}}, open(o.json, "w"))
"""


def test_every_script_of_the_table_is_there(run):
    assert all((BENCHMARKS / f"{name}.py").is_file() for name in run.SCRIPTS)


def test_a_page_with_ratios_and_a_named_failure(run, tmp_path, monkeypatch, capsys):
    script(tmp_path, "good", GOOD)
    script(tmp_path, "bad", "p.add_argument('--json'); p.parse_args(); raise SystemExit('no disk left')\n")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "SCRIPTS", {"good": run.Script("A good one."), "bad": run.Script("A bad one.", (), ())})
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("# Speed\n\nBy hand.\n\n## The last run\n\nolder figures\n")
    (out / "bad.json").write_text('{"older": true}')
    assert run.main(["--quick", "--out", str(out)]) == 1
    page = (out / "README.md").read_text()
    assert page.startswith("# Speed\n\nBy hand.\n\n## The last run\n") and "older figures" not in page
    assert "| a_to_b | 2.5 |" in page and "| quick | 1 |" in page
    assert "Failed: no disk left" in page and "make bench-quick" in page
    assert json.loads((out / "good.json").read_text())["ratios"]["a_to_b"] == 2.5
    assert json.loads((out / "bad.json").read_text()) == {"older": True}
    assert not [path for path in out.iterdir() if path.name.endswith(".new")]
    assert run.main(["--out", str(out), "--only", "good"]) == 0
    again = (out / "README.md").read_text()
    assert "| quick | 0 |" in again and again.startswith("# Speed\n\nBy hand.\n\n## The last run\n")
    assert run.main(["--out", str(tmp_path / "fresh"), "--only", "good"]) == 0
    assert (tmp_path / "fresh" / "README.md").read_text().startswith("## The last run")


def test_a_wrong_name_lists_the_right_ones(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run.main(["--only", "nothing", "--out", str(tmp_path)])
    assert "engine" in capsys.readouterr().err


def test_ratios_of_older_scripts(run):
    assert run.ratios_of({"ratio": 12.0, "seconds": 3}) == {"ratio": 12.0}
    rows = [{"format": ".png", "width": 512, "a_to_b": 2.0}, {"format": ".png", "width": 900, "a_to_b": 3.0}]
    assert run.ratios_of(rows) == {"a_to_b_png_512": 2.0, "a_to_b_png_900": 3.0}
