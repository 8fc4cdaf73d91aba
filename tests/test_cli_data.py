"""`sowa data ...` as a user meets it: exit codes, what stands on standard output, files that appear."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import typer
from PIL import Image

from sowa.cli_data import data
from sowa.data.layouts import read_samples, scan
from sowa.data.shots import draw_shots, shots_from_record
from sowa.data.sources import SOURCES, Archive, Source
from sowa.errors import DataError, NeedsSupportError, SowaError, UnknownNameError
from tests.trees import TREES, mvtec, picture, visa

app = typer.Typer()
app.add_typer(data, name="data")


@pytest.fixture
def sowa(capsys):
    """Runs `sowa data WORDS`; (exit code, standard output). What the door says in one line is raised here."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = app(["data", *map(str, words)], standalone_mode=False)
        return code or 0, capsys.readouterr().out

    return run


@pytest.fixture
def root(tmp_path):
    return mvtec(tmp_path / "data", categories=("gear",)).root


def test_nothing_heavy_before_a_command_runs():
    heavy = ("torch", "numpy", "PIL", "matplotlib", "scipy")
    code = f"import sys, sowa.cli_data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_get_needs_nothing_heavy_to_say_that_there_is_no_network():
    """Within two seconds, of which most are the probe's."""
    code = "import sys, sowa.data.get; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------------- check


def test_exit_codes(sowa, root, tmp_path):
    assert sowa("check", root)[0] == 0
    (root / "gear/train/good/000.png").write_bytes(b"x")
    assert sowa("check", root)[0] == 1
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    assert sowa("check", root)[0] == 2
    with pytest.raises(DataError) as error:
        sowa("check", tmp_path / "absent")
    assert error.value.exit_code == 2


def test_json_is_all_there_is(sowa, root):
    shutil.copy(root / "gear/test/good/000.png", root / "gear/test/good/001.png")
    code, out = sowa("check", root, "--json")
    counts = {"train_good": 5, "train_bad": 0, "test_good": 2, "test_bad": 4, "masks": 4}
    path = str(root / "gear/test/good/001.png")
    message = f"{path}: same content as {root / 'gear/test/good/000.png'}"
    assert code == 1
    assert json.loads(out) == {
        "layout": "mvtec",
        "categories": {"gear": counts},
        "problems": [{"path": path, "kind": "duplicate", "message": message}],
    }


def test_json_of_nothing(sowa, tmp_path):
    code, out = sowa("check", tmp_path, "--json")
    report = json.loads(out)
    assert code == 2 and report["layout"] is None and report["categories"] == {}
    assert [problem["path"] for problem in report["problems"]] == [str(tmp_path)]
    with pytest.raises(UnknownNameError):
        sowa("check", tmp_path, "--layout", "mvtex", "--json")


def test_table_and_every_problem(sowa, tmp_path):
    tree = visa(tmp_path / "data")
    code, out = sowa("check", tree.root, "--quick")
    lines = out.splitlines()
    assert code == 1 and f"{tree.root}: layout visa, 2 categories" == lines[0]
    assert lines[1].split() == ["category", "train", "good", "train", "bad", "test", "good", "test", "bad", "masks"]
    assert lines[2].split() == ["candle", "5", "0", "2", "2", "2"] and lines[4].split()[0] == "total"
    assert "2 of 2 categories differ from the counts published for visa; 10 are not here" in out
    assert "test_good 2 of 100" in out and lines[-1].startswith("2 problems") and "--quick" in lines[-1]


def test_layout_by_name(sowa, root):
    """What would be read as MVTec AD, read as plain folders."""
    assert json.loads(sowa("check", root, "--layout", "folder", "--json")[1])["layout"] == "folder"


def test_names_that_would_command_a_terminal(sowa, root):
    picture(root / "gear/train/good/a\x1b[2Jb\n.png")
    code, out = sowa("check", root)
    assert code == 2 and "bad_name" in out and "\x1b" not in out
    assert json.loads(sowa("check", root, "--json")[1])["problems"]


# ----------------------------------------------------------------------------------------------------------------- show


def test_a_sheet_for_each_category(sowa, tmp_path):
    tree = mvtec(tmp_path / "data", defects=("cut", "dent"), size=(40, 30))
    code, out = sowa("show", tree.root, "--out", tmp_path / "sheets")
    assert code == 0 and sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["bottle.png", "grid.png"]
    assert str(tmp_path / "sheets/bottle.png") in out
    with Image.open(tmp_path / "sheets/bottle.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
        assert sheet.width <= 1800
    assert any(red > 200 and green < 90 and blue > 180 for red, green, blue in colours)  # the outline


def test_what_cannot_be_shown_is_replaced_or_named(sowa, root, tmp_path, capsys):
    (root / "gear/train/good/000.png").write_bytes(b"x")
    (root / "gear/ground_truth/cut/000_mask.png").write_bytes(b"x")
    app(["data", "show", str(root), "--out", str(tmp_path / "sheets")], standalone_mode=False)
    assert "000_mask.png" in capsys.readouterr().err
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="gear: not one image"):
        sowa("show", root, "--out", tmp_path / "sheets")


def test_categories_from_lists_name_no_file_elsewhere(sowa, tmp_path):
    picture(tmp_path / "data/a.png")
    picture(tmp_path / "data/b.png")
    rows = ["image,label,category", "a.png,0,../../up", "b.png,0,..\\..\\up"]
    (tmp_path / "data/list.csv").write_text("\n".join(rows))
    sowa("show", tmp_path / "data/list.csv", "--out", tmp_path / "sheets")
    assert len(list((tmp_path / "sheets").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "sheets"]
    with pytest.raises(UnknownNameError):
        sowa("show", tmp_path / "data/list.csv", "--category", "down")


# --------------------------------------------------------------------------------------------------- get, export, shots


def test_get_from_a_file_then_check(sowa, root, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "gear"), "gztar", root)
    digest = hashlib.sha256((tmp_path / "gear.tar.gz").read_bytes()).hexdigest()
    source = Source("Gears", "https://example.org", "CC BY 4.0", ("Wheel 2020",), (Archive("g", (), sha256=digest),))
    monkeypatch.setitem(SOURCES, "gear", source)
    code, out = sowa("get", "gear", "--from", archive, "--to", tmp_path / "home")
    assert code == 0 and out.startswith("Gears\nLicence: CC BY 4.0\n") and "layout mvtec, 1 category" in out
    monkeypatch.setitem(SOURCES, "gear", replace(source, archives=(Archive("g", (), sha256="0" * 64),)))
    monkeypatch.setenv("SOWA_DATA", str(tmp_path / "other"))
    with pytest.raises(DataError, match="sha256"):
        sowa("get", "gear", "--from", archive)
    assert sowa("get", "gear", "--from", archive, "--sha256", digest)[0] == 0
    assert (tmp_path / "other/gear/gear/train/good/000.png").is_file()


@pytest.mark.parametrize("to", ["meta_json", "folder", "csv", "coco", "fiftyone"])
def test_export_is_clean_and_comes_back(sowa, root, tmp_path, to):
    code, out = sowa("export", root, "--to", to, "--out", tmp_path / "out")
    assert code == 0 and "11 images, 4 masks" in out
    assert sowa("check", tmp_path / "out")[0] == 0


def test_export_of_some_categories(sowa, tmp_path):
    tree = TREES["dagm"](tmp_path / "data")
    sowa("export", tree.root, "--to", "folder", "--out", tmp_path / "out", "--category", "Class10", "--copy")
    assert {sample.category for sample in scan(tmp_path / "out").samples} == {"Class10"}
    with pytest.raises(UnknownNameError):
        sowa("export", tree.root, "--to", "voc", "--out", tmp_path / "none")


def test_shots_are_those_of_a_training(sowa, tmp_path):
    tree = TREES["dagm"](tmp_path / "data")  # its training split has defects
    out = tmp_path / "runs/shots.json"
    assert sowa("shots", tree.root, "-k", 2, "--seed", 7, "--out", out)[0] == 0
    (record,) = json.loads(out.read_text())
    samples = read_samples(tree.root)
    expected = draw_shots(samples, dataset="dagm", k=2, seed=7)
    assert {key: record[key] for key in ("dataset", "k", "seed")} == {"dataset": "dagm", "k": 2, "seed": 7}
    assert shots_from_record(record, samples) == expected
    assert json.loads(sowa("shots", tree.root, "-k", 2, "--seed", 7, "--out", "-")[1]) == [record]
    with pytest.raises((DataError, NeedsSupportError)):
        sowa("shots", tree.root, "-k", 9, "--out", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    assert sowa("shots", tree.root, "-k", 9, "--allow-fewer", "--out", out)[0] == 0


def test_shots_of_a_rearranged_data_set_are_those_of_its_name(sowa, tmp_path):
    """VisA in MVTec's plan is drawn as VisA; another name is another draw."""
    tree = mvtec(tmp_path / "data", categories=("candle", "pcb1"), train=30)
    draws = {}
    for dataset in (None, "visa", "mine"):
        option = ("--dataset", dataset) if dataset else ()
        (draws[dataset],) = json.loads(sowa("shots", tree.root, "--out", "-", *option)[1])
    assert draws[None] == draws["visa"] and draws["mine"]["shots"] != draws["visa"]["shots"]


def test_files_that_cannot_be_written_are_one_line(sowa, root, tmp_path):
    (tmp_path / "file").write_text("")
    for words in (("shots", root, "--out", tmp_path / "file/x"), ("show", root, "--out", tmp_path / "file/x")):
        with pytest.raises(SowaError, match="cannot be written"):
            sowa(*words)
    with pytest.raises(SowaError, match="cannot be written"):
        sowa("export", root, "--to", "csv", "--out", tmp_path / "file/x")
