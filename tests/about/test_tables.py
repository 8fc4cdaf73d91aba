"""`sowa list` and `sowa licenses`: every row of the tables, one line each."""

import json
import subprocess
import sys
from email.message import Message

import pytest

from sowa import cli
from sowa.about.installed import dependencies, extras, licence_stated, missing, versions
from sowa.about.licences import all_licences
from sowa.about.tables import LISTS, cached_weights, listing
from sowa.backbones import BACKBONES
from sowa.backbones.weights import CONVERTED
from sowa.data.layouts import LAYOUTS
from sowa.data.roots import DATASETS
from sowa.data.sources import SOURCES
from sowa.detectors import DETECTORS, detector_class
from sowa.errors import UnknownNameError


def run(words, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    return done.value.code, capsys.readouterr()


@pytest.mark.parametrize(
    ("kind", "table"),
    [("backbones", BACKBONES), ("models", DETECTORS), ("datasets", DATASETS), ("layouts", LAYOUTS)],
    ids=["backbones", "models", "datasets", "layouts"],
)
def test_every_row_is_listed(kind, table, capsys):
    rows = listing(kind)
    assert [row["name"] for row in rows] == list(table)
    assert all(isinstance(value, str) and value and "\n" not in value for row in rows for value in row.values())
    code, out = run(["list", kind], capsys)
    assert code == 0 and len(out.out.splitlines()) == len(table) + 1
    assert json.loads(run(["list", kind, "--json"], capsys)[1].out) == rows


def test_all_lists_are_tested():
    assert set(LISTS) == {"backbones", "models", "datasets", "layouts"}


def test_training_is_what_the_class_says():
    from sowa.about.tables import TRAINS

    for row in listing("models"):
        assert row["training"] == TRAINS[detector_class(row["name"]).trains]


def test_an_unknown_list(capsys):
    code, out = run(["list", "backbone"], capsys)
    assert code == 2 and "did you mean 'backbones'" in out.err and out.err.count("\n") == 1
    with pytest.raises(UnknownNameError):
        listing("")


def test_listing_is_light():
    code = (
        "import sys; from sowa.about.tables import LISTS; [f() for f in LISTS.values()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_cached_weights(tmp_path):
    assert cached_weights("compact", tmp_path) is None and cached_weights("random_tiny", tmp_path) is None
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / CONVERTED).write_bytes(b"")
    assert cached_weights("compact", tmp_path) == tmp_path / "weights" / CONVERTED


def test_a_data_set_that_is_here(monkeypatch, tmp_path):
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOWA_DATA", str(tmp_path))
    (tmp_path / "BTech" / "01").mkdir(parents=True)
    here = {row["name"]: row["here"] for row in listing("datasets")}
    assert here["btad"] == "yes" and here["visa"] == "no"


def test_licences(capsys):
    found = all_licences()
    assert {row["name"] for row in found["weights"]} >= set(BACKBONES)
    assert {row["name"] for row in found["data sets"]} == set(SOURCES)
    assert found["package"][0]["licence"] == "Apache-2.0"
    assert "numpy" in {row["name"] for row in found["dependencies"]}
    code, out = run(["licenses"], capsys)
    assert code == 0 and "CC BY-NC-SA 4.0" in out.out and "numpy" in out.out
    assert json.loads(run(["licenses", "--json"], capsys)[1].out) == found


class Distribution:
    def __init__(self, *facts):
        self.metadata = Message()
        for key, value in facts:
            self.metadata[key] = value


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "x")], "BSD License"),
        ([("License", "Copyright 2020 somebody")], "Copyright 2020 somebody"),
        ([("Classifier", "Topic :: Science")], "not stated"),
    ],
    ids=["expression", "classifier", "text", "nothing"],
)
def test_licence_of_a_package(facts, says):
    assert licence_stated(Distribution(*facts)) == says


def test_what_is_installed():
    assert versions()["numpy"] and versions()["torch"]
    assert {"anomalib", "mlflow", "wandb", "tensorboard"} <= set(extras())
    assert all(one["present"] == (not one["missing"]) for one in extras().values())
    assert not {"test", "dev"} & set(extras())
    assert not any("torch" in name for name in missing())
    names = [row["name"].lower() for row in dependencies()]
    assert len(names) == len(set(names)) and "sowa" not in names
