"""Nothing lost, nothing doubled: whatever ends in the middle, the results are those of one undisturbed run."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from sowa.errors import ArtifactError, DataError, SowaError
from sowa.scale import files, local
from sowa.scale.files import Place, pictures
from sowa.scale.merge import merge
from sowa.scale.run import predict_many
from tests.scale.conftest import BROKEN, rows


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it on its way."""


def results(out) -> list[dict]:
    return rows((Path(out) / "results.jsonl").read_text())


@pytest.fixture(scope="module")
def alone(detector, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    outcome = predict_many(detector, [folder], str(out), block=4)
    found = results(out)
    assert outcome.pictures == len(found) == outcome.merged.pictures and outcome.unreadable == len(BROKEN)
    return found


def test_rows_are_those_of_the_predictor_in_order(alone, detector, folder):
    import sowa

    paths = pictures([folder])
    assert [row["path"] for row in alone] == paths
    for row, result in zip(alone, sowa.load(detector).stream(paths), strict=True):
        expected = result.record()
        assert row["verdict"] == expected["verdict"] and row["error"] == expected["error"]
        assert row["name"] == expected["name"] == row["path"]
        if expected["score"] is not None:
            assert row["score"] == pytest.approx(expected["score"], rel=1e-5, abs=1e-6)
    assert {row["verdict"] for row in alone} == {"good", "defective", "error"}


def test_a_finished_run_computes_nothing(alone, detector, folder, tmp_path, monkeypatch):
    first = predict_many(detector, [folder], str(tmp_path), block=4)
    monkeypatch.setattr("sowa.scale.work.Scorer.__call__", None)
    again = predict_many(detector, [folder], str(tmp_path), block=4)
    assert (again.pictures, again.found) == (0, -(-first.pictures // 4))
    assert results(tmp_path) == alone


@pytest.mark.parametrize("moment", ["between blocks", "before a part gets its name"])
def test_killed_and_resumed(alone, detector, folder, tmp_path, monkeypatch, moment):
    replaced = iter(range(10**6))
    replace = os.replace

    def dying(source, target):
        if "parts" in str(target) and next(replaced) == 1:
            raise Killed
        replace(source, target)

    def stop(done, total):
        if moment == "between blocks" and done == 8:
            raise Killed

    with monkeypatch.context() as patch:
        if moment != "between blocks":
            patch.setattr(files.os, "replace", dying)
            patch.setattr(files.os, "unlink", lambda path: None)  # a dead process does not tidy up
        with pytest.raises(Killed):
            predict_many(detector, [folder], str(tmp_path), block=4, progress=stop)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("0*.jsonl")}
    assert len(finished) == (2 if moment == "between blocks" else 1) and not (tmp_path / "results.jsonl").exists()
    with pytest.raises(DataError, match="blocks are missing"):
        merge(Place(str(tmp_path)))
    outcome = predict_many(detector, [folder], str(tmp_path), block=4)
    assert outcome.found == len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert results(tmp_path) == alone


def test_shards_make_the_whole_and_say_what_is_missing(alone, detector, folder, tmp_path):
    for shard in ("3/3", "1/3"):
        assert predict_many(detector, [folder], str(tmp_path), block=4, shard=shard).merged is None
    with pytest.raises(DataError, match="1 of 4 blocks are missing, the first is number 1"):
        merge(Place(str(tmp_path)))
    assert not (tmp_path / "results.jsonl").exists()
    predict_many(detector, [folder], str(tmp_path), block=4, shard="2/3")
    assert merge(Place(str(tmp_path))).pictures == len(alone)
    assert results(tmp_path) == alone


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], lines[0], *lines[2:]],
        lambda lines: lines[::-1],
        lambda lines: [line[:20] for line in lines],
        lambda lines: ["[]", *lines[1:]],
        lambda lines: [],
    ],
)
def test_a_part_that_lost_or_doubled_a_picture_is_found(detector, folder, tmp_path, damage):
    predict_many(detector, [folder], str(tmp_path), block=4)
    (tmp_path / "results.jsonl").unlink()
    path = sorted((tmp_path / "parts").iterdir())[1]
    path.write_text("".join(f"{line}\n" for line in damage(path.read_text().splitlines())))
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        merge(Place(str(tmp_path)))
    assert not (tmp_path / "results.jsonl").exists()
    path.unlink()
    assert predict_many(detector, [folder], str(tmp_path), block=4).pictures == 4


def test_everything_may_lie_in_an_object_store(alone, detector, folder, memory):
    memory.put(detector, "/models/disc.sowa")
    local_paths = pictures([folder])
    for path in local_paths:
        memory.pipe_file(f"/in/{Path(path).relative_to(folder)}", Path(path).read_bytes())
    memory.pipe_file("/list.txt", b"memory://gone.png\n")
    outcome = predict_many(
        "memory://models/disc.sowa", ["memory://in"], "memory://out", lists=["memory://list.txt"], block=4
    )
    found = rows(memory.cat_file("/out/results.jsonl").decode())
    assert outcome.merged.pictures == len(found) == len(alone) + 1
    assert "cannot be opened" in next(row for row in found if row["path"] == "memory://gone.png")["error"]
    scores = {Path(row["path"]).name: (row["score"], row["verdict"]) for row in alone}
    for row in found:
        score, verdict = scores.get(Path(row["path"]).name, (None, "error"))
        assert row["verdict"] == verdict
        assert row["score"] == (None if score is None else pytest.approx(score, rel=1e-5, abs=1e-6))


def test_a_line_that_stays_broken_is_no_verdict(detector, memory, monkeypatch):
    memory.pipe_file("/in/a.png", b"x")
    memory.pipe_file("/in/b.png", b"x")
    monkeypatch.setattr(files, "PAUSE", 0.0)
    whole = type(memory).cat_file

    def broken(self, path, **options):
        if path.endswith("a.png"):
            raise OSError("no route")
        return whole(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "cat_file", broken)
        outcome = predict_many(detector, ["memory://in"], "memory://out", block=1)
    assert outcome.pictures == 1 and outcome.merged is None
    assert outcome.failed == ["block 0: memory:///in/a.png: no route"]
    assert predict_many(detector, ["memory://in"], "memory://out", block=1).merged.pictures == 2


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"workers": 0}, "workers=0"),
        ({"block": 0}, "block=0"),
        ({"shard": "2"}, "--shard 2"),
        ({"detector": "nowhere.sowa"}, "no such detector"),
        ({"sources": []}, "no picture to score"),
        ({"out": "memory://out", "workers": 2}, "memory of one process"),
    ],
)
def test_what_cannot_be_is_one_line(detector, folder, tmp_path, options, answer):
    given = {"detector": detector, "sources": [folder], "out": str(tmp_path / "out"), **options}
    with pytest.raises(SowaError, match=answer) as caught:
        predict_many(**given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/parts").exists()


def killing(monkeypatch, when, pause=0.0):
    """Workers are killed with a block in their hands."""
    give = local._Worker.give

    def deadly(self, block):
        if not when(block):
            return give(self, block)
        if not pause:
            os.kill(self.process.pid, signal.SIGSTOP)  # so that it cannot be quicker than the signal that kills it
        give(self, block)
        time.sleep(pause)
        self.process.kill()
        return None

    monkeypatch.setattr(local._Worker, "give", deadly)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_killed_workers_are_replaced(alone, detector, folder, tmp_path, monkeypatch, pause):
    victims = {1, 2}
    killing(monkeypatch, lambda block: block.number in victims and not victims.remove(block.number), pause)
    outcome = predict_many(detector, [folder], str(tmp_path), block=4, workers=2, threads=1)
    assert not victims and not outcome.failed
    assert outcome.lost == 2 or pause
    assert results(tmp_path) == alone
    assert len(list((tmp_path / "parts").iterdir())) == -(-len(alone) // 4)


@pytest.mark.slow
def test_a_block_that_kills_every_worker_is_given_up_and_the_others_stand(
    alone, detector, folder, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        killing(patch, lambda block: block.number == 1)
        outcome = predict_many(detector, [folder], str(tmp_path), block=4, workers=2, threads=1)
    assert outcome.failed == ["block 1: its worker was lost (SIGKILL), 3 times"]
    assert outcome.merged is None and outcome.lost == 2
    assert predict_many(detector, [folder], str(tmp_path), block=4).pictures == 4
    assert results(tmp_path) == alone


@pytest.mark.slow
def test_a_detector_that_no_worker_can_load_is_one_line(folder, tmp_path):
    path = tmp_path / "bad.sowa"
    path.write_bytes(json.dumps({"no": "detector"}).encode())
    with pytest.raises(SowaError, match=r"bad\.sowa") as caught:
        predict_many(str(path), [folder], str(tmp_path / "out"), workers=2)
    assert "\n" not in str(caught.value)
