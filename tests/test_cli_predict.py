"""`sowa predict` as it is typed: rows, drawings, exit codes, what stands in the way, a line that is watched."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sowa.cli import main
from sowa.predictor import outputs
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import fitted, part, parts


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def rows(folder, name="results.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def table(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "disc.sowa"
    fitted().save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two good ones, two defective ones of the same names in another folder, one that is no picture."""
    home = tmp_path_factory.mktemp("tray")
    for folder, defect in (("a", False), ("b/deep", True)):
        (home / folder).mkdir(parents=True)
        for seed in (30, 31):
            part(seed, defect=defect).save(home / folder / f"{seed}.png")
    (home / "b" / "broken.png").write_bytes(b"no picture")
    return home


PATHS = ["a/30.png", "a/31.png", "b/broken.png", "b/deep/30.png", "b/deep/31.png"]
VERDICTS = ["good", "good", "error", "defective", "defective"]


def test_a_folder_gives_a_row_for_each_picture(artifact, pictures, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    code, said, err = run(capsys, "predict", artifact, pictures, "-o", out)
    assert code == 0 and said == f"wrote {out}\n"
    assert "5 pictures: 2 good, 2 defective, 1 could not be read" in err
    found = rows(out)
    assert [row["path"] for row in found] == PATHS and [row["verdict"] for row in found] == VERDICTS
    alone = fitted().predict(pictures / "b/deep/31.png")
    numbers = ("score", "probability")
    same = found[-1].keys() - {"path", "milliseconds", *numbers}
    assert {key: found[-1][key] for key in same} == {key: alone.record()[key] for key in same}
    assert [found[-1][key] for key in numbers] == pytest.approx([alone.record()[key] for key in numbers], rel=1e-5)
    assert "not an image" in found[2]["error"] and found[2]["score"] is None
    for row, line in zip(found, table(out), strict=True):
        assert line["path"] == row["path"] and line["verdict"] == row["verdict"]
        assert line["regions"] == str(len(row["regions"])) and (line["score"] == "") == (row["score"] is None)
    assert sorted(path.name for path in out.iterdir()) == ["predict.json", "results.jsonl", "scores.csv"]


def test_predict_json_says_what_was_run(artifact, pictures, tmp_path, capsys):
    run(capsys, "predict", artifact, pictures, "-o", tmp_path / "out", "--batch-size", 2, "--threshold", 0.25)
    about = json.loads((tmp_path / "out/predict.json").read_text())
    assert about["command"] == [
        "sowa", "predict", "disc.sowa", pictures.name, "--threshold", "0.25", "--batch-size", "2",
    ]  # fmt: skip
    assert about["counts"] == {
        verdict: sum(row["verdict"] == verdict for row in rows(tmp_path / "out"))
        for verdict in ("good", "defective", "error")
    }
    assert about["artifact"] == about["info"]["id"] == rows(tmp_path / "out")[0]["artifact"]
    assert about["began"] <= about["ended"] and about["info"]["calibration"]["kind"] == "user"
    assert {"cpu", "threads", "torch"} <= about["hardware"].keys()
    assert str(tmp_path) not in json.dumps(about)


def test_drawings(artifact, pictures, tmp_path, capsys):
    run(capsys, "predict", artifact, pictures, "-o", tmp_path / "all", "--overlays", "all", "--heatmaps", "png")
    run(capsys, "predict", artifact, pictures, "-o", tmp_path / "bad", "--overlays", "defective", "--heatmaps", "npy")
    for row in rows(tmp_path / "all"):
        if row["verdict"] == "error":
            assert not {"overlay", "heatmap"} & row.keys()
            continue
        heat = fitted().predict(pictures / row["path"]).heatmap
        with Image.open(tmp_path / "all" / row["heatmap"]) as image:
            assert np.abs(np.asarray(image) - 10000 * heat).max() <= 51  # batches differ in the last digits
        with Image.open(tmp_path / "all" / row["overlay"]) as image:
            assert image.size[1] > heat.shape[0] and image.mode == "RGB"
    drawn = [row.get("overlay") for row in rows(tmp_path / "bad")]
    assert drawn == [None, None, None, "overlays/000004_30.png", "overlays/000005_31.png"]
    assert len({row["overlay"] for row in rows(tmp_path / "all") if "overlay" in row}) == 4
    stored = np.load(tmp_path / "bad" / rows(tmp_path / "bad")[0]["heatmap"], allow_pickle=False)
    assert stored.dtype == np.float32 and stored.shape == (110, 150)


def test_a_good_part_looks_as_it_is():
    """The colours are tied to the threshold: heat below half of it is invisible."""
    from sowa.figures.marked import marked

    picture = part(1)
    sheet = marked(picture, np.full((110, 150), 0.49), [], words="good", alarm=False)
    assert (np.asarray(sheet)[:110, :150] == np.asarray(picture)).all()
    hot = marked(picture, np.full((110, 150), 1.5), [], words="defective", alarm=True)
    assert (np.asarray(hot)[:110, :150] != np.asarray(picture)).any(axis=-1).mean() > 0.9
    huge = marked(picture.resize((4000, 300)), None, [(3900, 200, 100, 100)], words="x", alarm=True)
    assert huge.size[0] == 1600 and np.asarray(huge)[80:120, 1560:1600].std() > 0


def test_thumbnails_of_the_good_ones(pictures, tmp_path, capsys):
    path = tmp_path / "t.sowa"
    Predictor.fit(parts(3), name="disc", backbone="random_tiny", thumbnails=True).save(path)
    run(capsys, "predict", path, pictures / "a", "-o", tmp_path / "out")
    with Image.open(tmp_path / "out/normals.png") as image:
        assert image.size == (192, 64)


@pytest.mark.parametrize(
    ("which", "code"),
    [(["a"], 0), (["b/deep"], 1), (["b/broken.png"], 3), (["a", "b"], 3), (["a", "b/deep/30.png"], 1)],
)
def test_exit_codes_for_machines(artifact, pictures, tmp_path, capsys, which, code):
    words = [artifact, *(pictures / one for one in which), "-o", tmp_path / "out"]
    assert run(capsys, "predict", *words, "--exit-code")[0] == code
    assert run(capsys, "predict", *words, "--overwrite")[0] == 0


def test_one_picture_from_standard_input(artifact, capsys, monkeypatch):
    data = io.BytesIO()
    part(31, defect=True).save(data, format="PNG")
    for given, verdict, code in ((data.getvalue(), "defective", 1), (b"", "error", 3), (b"no", "error", 3)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        found, out, _ = run(capsys, "predict", artifact, "-", "--exit-code")
        row = json.loads(out)
        assert found == code and row["verdict"] == verdict and row["path"] == "-"
        assert verdict != "error" or row["error"].startswith("standard input: ")


def test_rows_are_printed_where_no_folder_is_given(artifact, pictures, capsys):
    code, out, _ = run(capsys, "predict", artifact, pictures)
    assert code == 0 and [json.loads(line)["path"] for line in out.splitlines()] == PATHS


HOSTILE = ["-rf.png", "=1+1.png", "a\nb.png", "ünï 日本.png", "%2e%2e%2f.png", "x" * 240 + ".png", "$(id).png"]


@pytest.mark.parametrize(
    ("total", "done", "rate", "said"),
    [
        (None, 3, 1.0, ""),
        (10, 10, 1.0, ""),
        (100, 10, 3.0, ", 30 s left"),
        (1000, 0, 2.0, ", 8 min left"),
        (10**6, 0, 10.0, ", 28 h left"),
        (10**8, 0, 10.0, ", 116 days left"),
    ],
)
def test_the_time_that_is_left(total, done, rate, said):
    from sowa.cli_predict import _left

    assert _left(total, done, rate) == said


def test_names_may_be_anything(artifact, tmp_path, capsys):
    """Also names that are no text: rows keep them apart, drawings get names of their own inside the folder."""
    tray, out = tmp_path / "tray", tmp_path / "out"
    tray.mkdir()
    names = [os.fsencode(name) for name in HOSTILE] + [b"\xff\xfe.png"]
    for name in names:
        part(1).save(tray / "plain.png")
        os.rename(os.fsencode(tray / "plain.png"), os.fsencode(tray) + b"/" + name)
    code, _, _ = run(capsys, "predict", artifact, tray, "-o", out, "--overlays", "all")
    found = rows(out)
    wanted = {os.fsdecode(name).encode("utf-8", "backslashreplace").decode() for name in names}
    assert code == 0 and {row["path"] for row in found} == wanted
    assert {line["path"] for line in table(out)} == wanted
    drawn = [out / row["overlay"] for row in found]
    assert len(set(drawn)) == len(found) == len(list((out / "overlays").iterdir()))
    assert all(path.resolve().parent == (out / "overlays").resolve() and path.is_file() for path in drawn)


def test_the_results_are_no_source(artifact, tmp_path, capsys):
    """A folder inside the one that is judged is written and not read."""
    part(1).save(tmp_path / "one.png")
    for _ in range(2):
        run(capsys, "predict", artifact, tmp_path, "-o", tmp_path / "out", "--overlays", "all", "--overwrite")
        assert [row["path"] for row in rows(tmp_path / "out")] == ["one.png"]


# ------------------------------------------------------------------------------------------------------ in the way


def test_results_are_not_lost_by_mistake(artifact, pictures, tmp_path, capsys):
    out, words = tmp_path / "out", ["predict", artifact, pictures / "a", "-o", tmp_path / "out"]
    run(capsys, *words, "--overlays", "all")
    code, _, err = run(capsys, *words)
    assert code == 2 and "--overwrite" in err and err.count("\n") == 1
    (out / "overlays" / "mine.png").write_bytes(b"mine")
    assert run(capsys, *words, "--overwrite")[0] == 0
    assert [path.name for path in (out / "overlays").iterdir()] == ["mine.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    code, _, err = run(capsys, "predict", artifact, pictures / "a", "-o", tmp_path / "mine", "--overwrite")
    assert code == 2 and "holds other things" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "nothing to judge"),
        (["{tray}/nowhere"], "no such file or folder"),
        (["{tray}/*.bmp"], "nothing fits"),
        (["{tray}", "--idle", "3"], "--idle"),
        (["{tray}", "--watch", "{tray}"], "--watch"),
        (["--watch", "{tray}/nowhere"], "no such folder"),
        (["{tray}", "--overlays", "all"], "-o DIR"),
        (["{tray}", "-o", "{out}", "--overlays", "some"], "choose none, defective, all"),
        (["{tray}", "-o", "{out}", "--resume"], "no ended run"),
        (["{tray}", "-o", "{out}", "--resume", "--overwrite"], "one of them"),
        (["{tray}", "-o", "{tray}/a/30.png/out"], "cannot be written"),
        (["{tray}", "--threshold", "nan"], "threshold"),
        (["-", "-"], "once"),
    ],
)
def test_mistakes_are_one_line(artifact, pictures, tmp_path, capsys, words, answer):
    places = {"tray": pictures, "out": tmp_path / "out"}
    code, out, err = run(capsys, "predict", artifact, *(word.format(**places) for word in words))
    assert code == 2 and out == "" and err.count("\n") == 1 and answer in err
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_no_artifact(pictures, tmp_path, capsys):
    (tmp_path / "bad.sowa").write_bytes(b"bad")
    for name in ("bad.sowa", "absent.sowa"):
        code, _, err = run(capsys, "predict", tmp_path / name, pictures, "-o", tmp_path / "out")
        assert code == 2 and name in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_full_disk_keeps_what_was_judged(artifact, pictures, tmp_path, capsys, monkeypatch):
    class Full(outputs.ResultFolder):
        def _flush(self):
            if self._rows == 3:
                raise OSError(28, "No space left on device")
            super()._flush()

    monkeypatch.setattr(outputs, "ResultFolder", Full)
    out = tmp_path / "out"
    code, _, err = run(capsys, "predict", artifact, pictures, "-o", out)
    assert code == 2 and "No space left" in err and "--resume" in err and err.count("\n") == 1
    monkeypatch.undo()
    assert run(capsys, "predict", artifact, pictures, "-o", out, "--resume")[0] == 0
    assert [row["path"] for row in rows(out)] == PATHS


def test_an_interrupted_run_goes_on(artifact, pictures, tmp_path, capsys, monkeypatch):
    out, words = tmp_path / "out", ["predict", artifact, pictures, "-o", tmp_path / "out", "--overlays", "all"]
    add = outputs.ResultFolder.add

    def add_until_interrupted(self, *given):
        if self._rows == 3:
            raise KeyboardInterrupt
        return add(self, *given)

    monkeypatch.setattr(outputs.ResultFolder, "add", add_until_interrupted)
    code, _, err = run(capsys, *words)
    assert code == 130 and "--resume" in err
    assert [row["path"] for row in rows(out, "results.jsonl.partial")] == PATHS[:3]
    assert json.loads((out / "predict.json").read_text())["ended"] is None
    with (out / "results.jsonl.partial").open("ab") as file:
        file.write('{"path": "b/deep/30.png", "name": "ü'.encode()[:-1])  # a kill in the middle of a letter
    monkeypatch.undo()
    code, _, err = run(capsys, *words)
    assert code == 2 and "did not end" in err
    assert run(capsys, *words, "--resume")[0] == 0
    assert [row["path"] for row in rows(out)] == PATHS == [line["path"] for line in table(out)]
    assert json.loads((out / "predict.json").read_text())["counts"] == {"good": 2, "defective": 2, "error": 1}
    assert len(list((out / "overlays").iterdir())) == 4
    assert not list(out.glob("*.partial"))


def test_two_runs_do_not_share_a_folder(artifact, pictures, tmp_path, capsys):
    pytest.importorskip("fcntl")
    with outputs.ResultFolder.open(tmp_path / "out"):
        for more in ("--resume", "--overwrite"):
            code, _, err = run(capsys, "predict", artifact, pictures, "-o", tmp_path / "out", more)
            assert code == 2 and "another run" in err


# ------------------------------------------------------------------------------------------------------------ watching


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_line_is_watched_until_nothing_comes(artifact, tmp_path, capsys):
    """A file that is written slowly is read once, when it is whole."""
    tray, out = tmp_path / "tray", tmp_path / "out"
    tray.mkdir()
    part(1).save(tray / "early.png")
    data = io.BytesIO()
    part(2, defect=True).save(data, format="PNG")

    def drop():
        until(lambda: (out / "results.jsonl.partial").is_file() and rows(out, "results.jsonl.partial"))
        with (tray / "slow.png").open("wb") as file:
            for start in range(0, len(data.getvalue()), 1 + len(data.getvalue()) // 5):
                file.write(data.getvalue()[start : start + 1 + len(data.getvalue()) // 5])
                file.flush()
                time.sleep(0.25)
        part(3).save(tray / "late.png")

    thread = threading.Thread(target=drop)
    thread.start()
    code, said, _ = run(capsys, "predict", artifact, "--watch", tray, "-o", out, "--idle", 3, "--exit-code")
    thread.join()
    assert code == 1
    assert {row["path"]: row["verdict"] for row in rows(out)} == {
        "early.png": "good",
        "slow.png": "defective",
        "late.png": "good",
    }
    assert len(rows(out)) == 3 and re.search(r"defective +slow\.png +score", said)


def test_a_watch_ends_cleanly_when_asked(artifact, tmp_path, capsys):
    tray, out = tmp_path / "tray", tmp_path / "out"
    tray.mkdir()
    part(1).save(tray / "1.png")

    def ask():
        until(lambda: (out / "results.jsonl.partial").is_file() and rows(out, "results.jsonl.partial"))
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=ask)
    thread.start()
    code, _, err = run(capsys, "predict", artifact, "--watch", tray, "-o", out)
    thread.join()
    assert code == 0 and "1 picture: 1 good" in err and len(rows(out)) == 1
    assert json.loads((out / "predict.json").read_text())["ended"] and signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_killed_watch_loses_nothing(artifact, tmp_path, capsys):
    tray, out = tmp_path / "tray", tmp_path / "out"
    tray.mkdir()
    for seed in range(3):
        part(seed).save(tray / f"{seed}.png")
    words = ["predict", str(artifact), "--watch", str(tray), "-o", str(out)]
    code = "import sys; from sowa.cli import main; main(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE) as process:
        for _ in range(3):
            process.stdout.readline()
        process.kill()
    assert len(rows(out, "results.jsonl.partial")) == 3
    part(9).save(tray / "9.png")
    assert run(capsys, *words, "--resume", "--idle", 1)[0] == 0
    assert [row["path"] for row in rows(out)] == ["0.png", "1.png", "2.png", "9.png"]
