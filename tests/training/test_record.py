"""Run folders: never shared by accident, found again on purpose."""

import json

import pytest
import yaml

from sowa.errors import ConfigError
from sowa.training.compose import compose_job
from sowa.training.record import LAUNCHED, identity, open_folder


def settings(tmp_path, *more):
    return compose_job("train", ["backbone=random_tiny", f"paths.runs_dir={tmp_path}/runs", *more]).settings


def test_folders_of_the_same_second_differ(tmp_path):
    paths = [open_folder("train", "name", settings(tmp_path)).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.parent == tmp_path / "runs/train/name" and path.is_dir() for path in paths)


def test_what_a_run_leaves(tmp_path):
    chosen = settings(tmp_path)
    folder = open_folder("train", "name", chosen)
    with folder.recording(chosen, ["seed=0"]):
        assert json.loads((folder.path / "run.json").read_text())["status"] == "running"
        folder.note(steps=3)
    run = json.loads((folder.path / "run.json").read_text())
    assert (run["status"], run["steps"], run["overrides"], run["seed"]) == ("finished", 3, ["seed=0"], 0)
    assert run["ended"] >= run["started"]
    assert {"python", "torch", "lightning", "numpy"} <= run["versions"].keys()
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == chosen


def test_a_failure_is_written_down_and_the_next_attempt_keeps_it(tmp_path):
    chosen = settings(tmp_path, f"paths.output_dir={tmp_path}/out", "resume=true")
    for error in (ConfigError("lower the rate"), KeyboardInterrupt()):
        with pytest.raises(type(error)), open_folder("train", "name", chosen).recording(chosen, []):
            raise error
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["status"] == "interrupted"
    assert [attempt["status"] for attempt in run["attempts"]] == ["failed: lower the rate"]


def test_a_folder_given_twice_is_refused_unless_resumed(tmp_path):
    chosen = settings(tmp_path, f"paths.output_dir={tmp_path}/out")
    with open_folder("train", "name", chosen).recording(chosen, []):
        pass
    with pytest.raises(ConfigError, match="resume=true"):
        open_folder("train", "name", chosen)
    assert open_folder("train", "name", {**chosen, "resume": True}).path == tmp_path / "out"


def test_a_folder_nothing_was_put_in_disappears(tmp_path):
    folder = open_folder("train", "name", settings(tmp_path))
    with pytest.raises(ConfigError), folder.unless_unused():
        raise ConfigError("no such card")
    assert not folder.path.exists()


def test_resume_takes_the_newest_of_the_same_settings(tmp_path, capsys):
    resume = settings(tmp_path, "resume=true")
    first = open_folder("train", "name", resume).path
    assert "nothing to resume" in capsys.readouterr().err
    for name, more in (("2001", []), ("2002", ["trainer.max_epochs=5"]), ("2003", ["seed=1"])):
        path = first.parent / name
        path.mkdir()
        (path / "config.yaml").write_text(yaml.safe_dump(settings(tmp_path, *more)))
    (first.parent / "2004").mkdir()
    (first.parent / "2004" / "config.yaml").write_text("[damaged")
    first.rmdir()
    assert open_folder("train", "name", resume).path.name == "2002"
    assert open_folder("train", "name", settings(tmp_path, "resume=true", "seed=1")).path.name == "2003"


def test_processes_of_one_run_share_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(LAUNCHED, str(tmp_path / "shared"))
    folder = open_folder("train", "name", settings(tmp_path))
    with folder.recording(settings(tmp_path), []):
        pass
    assert folder.path == tmp_path / "shared"
    assert not folder.path.exists(), "only the first process writes"


def test_processes_started_from_outside_need_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"paths\.output_dir"):
        open_folder("train", "name", settings(tmp_path))


@pytest.fixture(scope="module")
def composed():
    return compose_job("train", []).settings


def changed(settings, key, value):
    first, _, rest = key.partition(".")
    return {**settings, first: changed(settings[first], rest, value) if rest else value}


@pytest.mark.parametrize(
    "key",
    ["paths.data_dir", "data.num_workers", "data.auxiliary.root", "trainer.max_epochs", "shots", "backbone.weights"],
)
def test_another_place_or_length_is_the_same_training(composed, key):
    assert identity(changed(composed, key, "other")) == identity(composed)


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "protocol",
        "optimisation.lr",
        "data.auxiliary.mosaic_rate",
        "data.batch_size",
        "model.depth",
        "backbone.tag",
    ],
)
def test_what_decides_the_weights_is_another_training(composed, key):
    assert identity(changed(composed, key, "other")) != identity(composed)
