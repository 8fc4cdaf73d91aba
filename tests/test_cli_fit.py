"""`sowa fit`, `add`, `calibrate` and `info` as they are typed."""

import json
import re

import pytest

from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part
from tests.test_cli_predict import run


@pytest.fixture(scope="module")
def tray(tmp_path_factory):
    home = tmp_path_factory.mktemp("tray")
    for folder, first, count, defect in (("good", 0, 4, False), ("more", 10, 6, False), ("bad", 20, 3, True)):
        (home / folder).mkdir()
        for seed in range(first, first + count):
            part(seed, defect=defect).save(home / folder / f"{seed}.png")
    return home


TINY = ("--backbone", "random_tiny")


@pytest.fixture(scope="module")
def fitted_file(tray, tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted") / "disc.sowa"
    Predictor.fit(tray / "good", name="disc", backbone="random_tiny").save(path)
    return path


def test_fit_says_what_it_learnt_and_what_it_cannot_promise(tray, fitted_file, tmp_path, capsys):
    out = tmp_path / "disc.sowa"
    code, said, _ = run(capsys, "fit", tray / "good", "--name", "disc", "-o", out, *TINY)
    assert code == 0 and "disc: sowa_plus on random_tiny remembers 4 good pictures." in said
    assert "known only to be below 53 % with 95 % confidence; give 59 for 5 %" in said
    again = Predictor.load(out)
    assert again.predict(part(5)).score == Predictor.load(fitted_file).predict(part(5)).score
    assert again.id in said and f"sowa predict {out}" in said


def test_files_lists_and_numbers(tray, tmp_path, capsys):
    (tray / "list.txt").write_text("good/1.png\ngood/2.png\ngood/1.png\n")
    out = tmp_path / "disc.sowa"
    code, said, _ = run(capsys, "fit", tray / "list.txt", tray / "more", "-k", 2, "--seed", 1, "-o", out, *TINY)
    about = Predictor.load(out).info()
    assert code == 0 and "1 picture of those given showed the same" in said
    assert [normal["use"] for normal in about["normals"]] == ["reference"] * 2 + ["threshold"] * 6


def test_options_reach_the_detector(tray, tmp_path, capsys):
    ignore = tmp_path / "ignore.png"
    part(1).convert("1").point(lambda value: 0).save(ignore)
    out = tmp_path / "disc.sowa"
    words = ["--model", "patchcore", "--option", "neighbours=2", "--option", "backbone.image_size=56"]
    words += ["--fit", "letterbox", "--tile", "0.5", "--overlap", "0.1", "--thumbnails", "--bundle", "--ignore", ignore]
    code, _, err = run(capsys, "fit", tray / "good", "-o", out, *words, *TINY)
    about = Predictor.load(out).info()
    assert code == 0, err
    assert about["model"]["name"] == "patchcore" and about["model"]["options"]["neighbours"] == 2
    assert about["view"]["size"] == 56 and about["view"]["fit"] == "letterbox" and about["view"]["views"] == 9
    assert about["backbone"]["inside"] and Predictor.load(out).thumbnails.shape == (4, 64, 64, 3)


def test_zero_shot_is_asked_for_and_warned_of(tmp_path, capsys):
    code, said, _ = run(capsys, "fit", "--zero-shot", "--name", "disc", "-o", tmp_path / "z.sowa", *TINY)
    assert code == 0 and "not calibrated" in said and "scores mean nothing" in said


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "--zero-shot"),
        (["{tray}/good", "--zero-shot"], "--zero-shot is without"),
        (["{tray}"], "no picture in this folder"),
        (["{tray}/nowhere"], "no such file or folder"),
        (["{tray}/good", "-k", "some"], 'or "all"'),
        (["{tray}/good", "-k", "9"], "k=9"),
        (["{tray}/good", "--model", "sova_plus"], "did you mean 'sowa_plus'"),
        (["{tray}/good", "--option", "neighbours"], "KEY=VALUE"),
        (["{tray}/good", "--option", "colour=1"], "colour"),
        (["{tray}/good", "--option", "backbone.colour=1"], "colour"),
        (["{tray}/good", "--fit", "crop"], "crop"),
        (["{tray}/good", "--tile", "2"], "tile=2"),
        (["{tray}/good", "--roi", "{tray}/nowhere.png"], "roi mask"),
        (["{tray}/good", "--name", ""], "name"),
        (["{tray}/good", "--target-false-alarms", "2"], "share between 0 and 1"),
        (["{tray}/good", "-o", "{tray}"], "is a folder"),
        (["{tray}/good", "-o", "{file}"], "is there already"),
    ],
)
def test_mistakes_are_one_line(tray, fitted_file, tmp_path, capsys, monkeypatch, words, answer):
    monkeypatch.chdir(tmp_path)
    given = [word.format(tray=tray, file=fitted_file) for word in words]
    code, out, err = run(capsys, "fit", *given, *TINY)
    assert code == 2 and out == "" and err.count("\n") == 1 and answer in err
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_the_file_where_none_is_given(tray, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "fit", tray / "good", "--name", "a/../b c", *TINY)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a____b_c.sowa"]


def test_more_good_pictures(tray, fitted_file, tmp_path, capsys):
    out = tmp_path / "more.sowa"
    code, said, _ = run(capsys, "add", fitted_file, tray / "more", "-o", out)
    assert code == 0 and "remembers 10 good pictures" in said
    assert len(Predictor.load(out).info()["normals"]) == 10 and len(Predictor.load(fitted_file).info()["normals"]) == 4
    assert run(capsys, "add", out, tray / "more")[2].count("remembered already") == 1
    assert run(capsys, "add", out)[0] == 2


def test_calibrate_from_good_pictures_and_by_hand(tray, fitted_file, tmp_path, capsys):
    out = tmp_path / "c.sowa"
    code, said, _ = run(
        capsys, "calibrate", fitted_file, "--normals", tray / "more", "--defects", tray / "bad", "-o", out
    )
    assert code == 0 and "6 good pictures not learnt from; estimated for 1 % false alarms" in said
    assert "It finds 3 of 3 defective pictures" in said
    before = Predictor.load(out)
    code, said, _ = run(capsys, "calibrate", out, "--threshold", 99)
    after = Predictor.load(out)
    assert code == 0 and after.threshold == 99 and "set by the user" in said
    assert after.predict(part(3)).score == before.predict(part(3)).score
    for words, answer in (
        ([], "--normals DIR, or --threshold"),
        (["--defects", tray / "bad"], "--normals DIR"),
        (["--normals", tray / "good"], "learnt from"),
        (["--normals", tray / "more", "--target-false-alarms", 0], "between 0 and 1"),
    ):
        code, _, err = run(capsys, "calibrate", out, *words)
        assert code == 2 and answer in err and err.count("\n") == 1
    assert Predictor.load(out).id == after.id


def test_pictures_that_set_the_threshold_are_not_added_behind_its_back(tray, fitted_file, tmp_path, capsys):
    """The threshold says it rests on pictures that were not learnt from."""
    out = tmp_path / "c.sowa"
    run(capsys, "calibrate", fitted_file, "--normals", tray / "more", "-o", out)
    code, _, err = run(capsys, "add", out, tray / "more")
    assert code == 2 and "set the threshold" in err
    assert run(capsys, "add", out, tray / "bad")[0] == 0


def test_info_needs_no_backbone(tray, fitted_file, capsys, monkeypatch):
    wanted = Predictor.load(fitted_file).info()
    for loaded in ("precision", "device"):  # of a loaded detector, not of a file
        wanted.pop(loaded)
    monkeypatch.setattr("sowa.predictor.making.build_backbone", None)
    code, said, _ = run(capsys, "info", fitted_file)
    assert code == 0 and "4 remembered" in said and "53 %" in said and re.search(r"backbone +random_tiny", said)
    code, said, _ = run(capsys, "info", fitted_file, "--json")
    assert code == 0 and json.loads(said) == wanted
    code, _, err = run(capsys, "info", tray / "good/1.png")
    assert code == 2 and err.count("\n") == 1
