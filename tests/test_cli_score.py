"""`sowa eval FILE.sowa FOLDER` as it is typed."""

import json

import numpy as np
import pytest
from PIL import Image

from sowa.cli_score import is_ours
from sowa.metrics.functional import METRICS, auroc, pixel_metrics
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part
from tests.test_cli_predict import rows, run, table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """good/ and two kinds of defect, one of them with masks; the first three good ones are learnt from."""
    home = tmp_path_factory.mktemp("labelled") / "disc"
    for name, first, count, defect in (("good", 0, 8, False), ("dent", 20, 3, True), ("spot", 30, 2, True)):
        (home / name).mkdir(parents=True)
        for seed in range(first, first + count):
            part(seed, defect=defect).save(home / name / f"{seed}.png")
    mask = np.zeros((110, 150), np.uint8)
    mask[36:63, 50:77] = 255
    for name in ("dent", "spot"):
        (home / "masks" / name).mkdir(parents=True)
        for path in (home / name).iterdir():
            Image.fromarray(mask).save(home / "masks" / name / path.name)
    return home


@pytest.fixture(scope="module")
def artifact(folder):
    path = folder.parent / "disc.sowa"
    Predictor.fit([folder / "good" / f"{seed}.png" for seed in range(3)], backbone="random_tiny").save(path)
    return path


def test_metrics_rows_and_words(artifact, folder, tmp_path, capsys):
    out = tmp_path / "out"
    code, said, _ = run(capsys, "eval", artifact, folder, "-o", out, "--overlays", "defective")
    found, about = rows(out), json.loads((out / "predict.json").read_text())
    assert code == 0 and len(found) == 10
    assert [row["path"] for row in found] == sorted(row["path"] for row in found)
    assert {row["defect_type"] for row in found} == {"good", "dent", "spot"}
    for row in found:
        assert row["label"] == (row["defect_type"] != "good")
        assert (row["mask"] is None) == (row["label"] == 0)
    assert [line["label"] for line in table(out)] == [str(row["label"]) for row in found]
    metrics, labels = about["metrics"], [row["label"] for row in found]
    assert metrics["image_auroc"] == auroc([row["score"] for row in found], labels)
    called = [row["verdict"] == "defective" for row in found]
    assert metrics["confusion"]["defective"]["defective"] == sum(np.array(called) & np.array(labels) == 1)
    assert metrics["recall_by_type"].keys() == {"dent", "spot"} and metrics["recall_by_type"]["spot"]["images"] == 2
    assert metrics["left_out"] == {"unreadable": 0, "known_to_the_detector": 3, "masks": 0}
    assert about["counts"]["defective"] == sum(called) and about["command"][:2] == ["sowa", "eval"]
    assert "3 pictures left out: the detector has learnt" in said and "with 95 % confidence" in said


def test_pixel_metrics_are_exact_at_the_original_size(artifact, folder, capsys):
    code, said, _ = run(capsys, "eval", artifact, folder, "--json")
    detector, metrics = Predictor.load(artifact), json.loads(said)
    maps, masks = [], []
    for name in ("good", "dent", "spot"):
        for path in sorted((folder / name).iterdir()):
            if name != "good" or int(path.stem) > 2:
                maps.append(detector.predict(path).heatmap)
                mask = folder / "masks" / name / path.name
                masks.append(np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros((110, 150), bool))
    wanted = pixel_metrics(maps, masks)
    assert code == 0 and {name: metrics[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)
    assert not metrics["pixels_shrunk"] and set(METRICS) <= metrics.keys()


def test_many_pixels_are_shrunk_and_it_is_said(artifact, folder, capsys, monkeypatch):
    monkeypatch.setattr("sowa.predictor.evaluating.MOST_PIXELS", 40_000)
    code, said, _ = run(capsys, "eval", artifact, folder)
    assert code == 0 and "shrunk alike" in said and "pixel_auroc" in said


def test_a_limit_a_threshold_and_a_bad_picture(artifact, folder, tmp_path, capsys):
    (folder / "dent" / "99.png").write_bytes(b"no picture")
    try:
        words = ["eval", artifact, folder, "-o", tmp_path / "out", "--threshold", 1e6]
        code, said, err = run(capsys, *words)
        assert code == 0 and "1 picture could not be read" in said and "1 could not be read" in err
        metrics = json.loads((tmp_path / "out/predict.json").read_text())["metrics"]
        assert metrics["recall"]["defective"] == 0 and metrics["threshold_source"] == "set by the user"
        assert run(capsys, *words, "--overwrite", "--limit", 2)[0] == 0
        assert [row["label"] for row in rows(tmp_path / "out")] == [1, 1, 0, 0]
    finally:
        (folder / "dent" / "99.png").unlink()


def test_good_pictures_alone_tell_the_false_alarms(artifact, folder, capsys):
    code, said, _ = run(capsys, "eval", artifact, folder / "good", "--json")
    metrics = json.loads(said)
    assert code == 0 and metrics["image_auroc"] is None and metrics["false_alarms"]["images"] == 5
    code, said, _ = run(capsys, "eval", artifact, folder / "good")
    assert code == 0 and "image metrics are undefined" in said and "of 5 good pictures called defective" in said


def test_an_interrupted_evaluation_says_how_to_begin_anew(artifact, folder, tmp_path, capsys, monkeypatch):
    words = ["eval", artifact, folder, "-o", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr("sowa.predictor.evaluating.Tally.metrics", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, err = run(capsys, *words)
    assert code == 130 and "--overwrite" in err and "--resume" not in err
    code, _, err = run(capsys, *words)
    assert code == 2 and "did not end" in err and "--resume" not in err
    assert run(capsys, *words, "--overwrite")[0] == 0


def test_a_published_layout_is_read_as_it_is(artifact, data_dir, capsys):
    root = data_dir / "mvtec_anomaly_detection"
    code, _, err = run(capsys, "eval", artifact, root)
    assert code == 2 and "choose with --category" in err
    code, said, _ = run(capsys, "eval", artifact, root, "--category", "bottle", "--json")
    assert code == 0 and json.loads(said)["recall"]["images"] > 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["{file}"], "folder"),
        (["{file}", "{folder}/nowhere"], "no such directory"),
        (["{file}", "{folder}", "--layout", "mvtek"], "layout"),
        (["{file}", "{folder}", "--overlays", "all"], "-o dir"),
        (["absent.sowa", "{folder}"], "absent.sowa"),
        (["ckpt_path=absent.sowa"], "absent.sowa"),
    ],
)
def test_mistakes_are_one_line(artifact, folder, capsys, words, answer):
    code, out, err = run(capsys, "eval", *(word.format(file=artifact, folder=folder) for word in words))
    assert code == 2 and out == "" and err.count("\n") == 1 and answer in err.casefold()


def test_both_doors_of_eval(artifact):
    assert is_ours([str(artifact), "x"]) and is_ours(["--json", "absent.sowa", "x"])
    assert not is_ours(["ckpt_path=x.sowa"]) and not is_ours([]) and not is_ours(["--help"]) and not is_ours(["run"])
