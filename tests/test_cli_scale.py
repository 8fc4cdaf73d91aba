"""`sowa scale` as it is typed."""

import json

import pytest

from sowa.cli import main
from tests.predictor.parts import fitted, part


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["scale", *map(str, words)])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("scale")
    fitted().save(home / "disc.sowa")
    (home / "in").mkdir()
    for number in range(5):
        part(number, size=(64, 56)).save(home / f"in/{number}.png")
    (home / "in/broken.png").write_bytes(b"")
    return home


def test_a_folder_becomes_one_file(home, tmp_path, capsys):
    words = ["predict", home / "disc.sowa", home / "in", "--out", tmp_path / "out", "--block", "4"]
    code, out, err = run(capsys, *words)
    assert code == 0 and "6 pictures scored, 0 blocks were there" in err and "1 pictures could not be read" in err
    assert "results.jsonl: 6 pictures (1 error, 5 good)" in out
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(home / f"in/{name}.png") for name in (0, 1, 2, 3, 4, "broken")]
    code, _, err = run(capsys, *words)
    assert code == 0 and "0 pictures scored, 2 blocks were there" in err


def test_shards_are_merged(home, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{home}/in/0.png\n{home}/in/1.png\n")
    words = ["predict", home / "disc.sowa", "--list", tmp_path / "list.txt", "--out", tmp_path / "out", "--block", "1"]
    assert run(capsys, *words, "--shard", "1/2")[0] == 0
    code, _, err = run(capsys, "merge", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "1 of 2 blocks are missing" in err
    assert run(capsys, *words, "--shard", "2/2")[0] == 0
    assert "2 pictures (2 good)" in run(capsys, "merge", tmp_path / "out")[1]


def test_what_was_given_up_is_told_and_ends_with_1(home, tmp_path, capsys, monkeypatch):
    def broken(self, block):
        raise OSError("no route to host")

    monkeypatch.setattr("sowa.scale.work.Scorer.__call__", broken)
    code, _, err = run(capsys, "predict", home / "disc.sowa", home / "in", "--out", tmp_path / "out")
    assert code == 1 and "given up: block 0: no route to host" in err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["predict", "{home}/disc.sowa"], "no pictures given"),
        (["predict", "{home}/none.sowa", "{home}/in"], "no such detector"),
        (["predict", "{home}/disc.sowa", "{home}/nowhere"], "no picture here"),
        (["predict", "{home}/disc.sowa", "{home}/in", "--shard", "5/4"], "--shard 5/4"),
        (["predict", "{home}/disc.sowa", "{home}/in", "--out", "nosuch://x"], "cannot be reached"),
        (["merge", "{home}"], "no work.jsonl"),
        (["predict"], "DETECTOR"),
    ],
)
def test_wrong_words_are_one_line(home, tmp_path, monkeypatch, capsys, words, answer):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *(word.format(home=home) for word in words))
    assert code == 2 and answer in err and err.count("\n") == 1
