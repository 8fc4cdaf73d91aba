"""A training killed at any moment and resumed ends with the bits of one that was never interrupted."""

import os

import pytest
import torch

from sowa import artifact as checkpoint
from sowa.artifact import read_state
from sowa.errors import ArtifactError
from tests.training.small import Killed, prepare, train

# Three epochs of three steps; the rate falls after the second and the third.
LONG = ("trainer.max_epochs=3", "save_every_steps=2", "optimisation.patience=0")


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trained = train(data_dir, folder, LONG)
    assert trained.facts["steps"] == 9
    rate = read_state(folder / "checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1e-5), "or the tests below could not see whether the schedule's state was kept"
    return trained.bits


@pytest.mark.parametrize(
    ("step", "left"),
    [
        pytest.param(1, 9, id="before the first checkpoint"),
        pytest.param(3, 6, id="at the end of an epoch"),
        pytest.param(5, 5, id="within an epoch"),
        pytest.param(8, 1, id="after the rate has fallen"),
    ],
)
def test_killed_and_resumed(data_dir, tmp_path, uninterrupted, step, left):
    with pytest.raises(Killed):
        train(data_dir, tmp_path, LONG, kill_before=step)
    resumed = train(data_dir, tmp_path, [*LONG, "resume=true"], kill_before=left)
    assert resumed.bits == uninterrupted
    assert resumed.facts["steps"] == 9


def test_the_mean_loss_of_an_epoch_counts_what_came_before(data_dir, tmp_path):
    """What the schedule is told after an epoch that was killed in its middle."""
    whole = train(data_dir, tmp_path / "whole", ["save_every_steps=1"])
    with pytest.raises(Killed):
        train(data_dir, tmp_path / "killed", ["save_every_steps=1"], kill_before=2)
    resumed = train(data_dir, tmp_path / "killed", ["save_every_steps=1", "resume=true"])
    assert resumed.training.shell.plateau.best == whole.training.shell.plateau.best


@pytest.mark.parametrize("moment", ["while the bytes are written", "before the file gets its name"])
def test_killed_while_a_checkpoint_is_written(data_dir, tmp_path, uninterrupted, monkeypatch, moment):
    """The second checkpoint never arrives: the first is still whole, and what was begun does no harm."""
    writes = iter(range(10**6))
    replace, fsync = os.replace, os.fsync

    def dying(function, lives):
        def called(*arguments):
            if lives and next(writes) == 1:
                raise Killed
            return function(*arguments)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", dying(replace, moment.startswith("before")))
        patch.setattr(checkpoint.os, "fsync", dying(fsync, moment.startswith("while")))
        patch.setattr(checkpoint.Path, "unlink", lambda *_, **__: None)  # a dead process does not tidy up
        with pytest.raises(Killed):
            train(data_dir, tmp_path, LONG)
    assert read_state(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    resumed = train(data_dir, tmp_path, [*LONG, "resume=true"], kill_before=7)
    assert resumed.bits == uninterrupted


def test_killed_twice(data_dir, tmp_path, uninterrupted):
    for step, more in ((5, []), (2, ["resume=true"])):
        with pytest.raises(Killed):
            train(data_dir, tmp_path, [*LONG, *more], kill_before=step)
    assert train(data_dir, tmp_path, [*LONG, "resume=true"]).bits == uninterrupted


def test_more_epochs_continue_a_finished_training(data_dir, tmp_path, uninterrupted):
    train(data_dir, tmp_path, [*LONG, "trainer.max_epochs=2"])
    state = tmp_path / "checkpoints/last.ckpt"
    resumed = train(data_dir, tmp_path / "elsewhere", [*LONG, f"ckpt_path={state}"], kill_before=3)
    assert resumed.bits == uninterrupted


def test_resuming_what_is_finished_trains_no_further(data_dir, tmp_path):
    short = ("trainer.max_epochs=1",)
    whole = train(data_dir, tmp_path, short)
    again = train(data_dir, tmp_path, [*short, "resume=true"], kill_before=0)
    assert again.bits == whole.bits


def test_worker_processes_change_nothing(data_dir, tmp_path, uninterrupted):
    with pytest.raises(Killed):
        train(data_dir, tmp_path, [*LONG, "data.num_workers=2"], kill_before=5)
    resumed = train(data_dir, tmp_path, [*LONG, "data.num_workers=1", "resume=true"])
    assert resumed.bits == uninterrupted


def test_checkpoint_holds_only_what_is_trained(data_dir, tmp_path):
    trained = train(data_dir, tmp_path, ["trainer.max_epochs=1"])
    path = tmp_path / "checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)
    names = {name for name, _ in trained.detector.trainable_parameters()}
    assert state["state_dict"].keys() == names
    assert not any(name.startswith("backbone") for name in names)
    trained_bytes = sum(value.nbytes for value in state["state_dict"].values())
    assert path.stat().st_size < 4 * trained_bytes + 60_000  # weights, two moments, bookkeeping


@pytest.fixture(scope="module")
def unfinished(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(Killed):
        train(data_dir, folder, ["save_every_steps=1"], kill_before=1)
    return folder


@pytest.mark.parametrize(
    "other",
    ["seed=1", "optimisation.lr=0.01", "model=sowa_linear", "protocol=paper", "data.batch_size=3", "backbone.seed=1"],
)
def test_other_settings_are_not_resumed(data_dir, unfinished, other):
    key = {"model=sowa_linear": "model.", "backbone.seed=1": "weights_id="}.get(other, other.split("=")[0])
    with pytest.raises(ArtifactError, match=rf"cannot resume: .* with {key}") as caught:
        prepare(data_dir, unfinished, [other, "resume=true"])
    assert "\n" not in str(caught.value)


def test_damaged_state_is_named(data_dir, tmp_path):
    train(data_dir, tmp_path, ["trainer.max_epochs=1"])
    path = tmp_path / "checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"last\.ckpt' is damaged"):
        prepare(data_dir, tmp_path, ["resume=true"])
