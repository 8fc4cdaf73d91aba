"""How a training is set up from its settings."""

import inspect
import logging
import warnings

import lightning.pytorch.loggers
import pytest
import torch

from sowa.errors import ConfigError, UnknownNameError
from sowa.training.build import call
from sowa.training.callbacks import quiet
from sowa.training.compose import compose_job
from sowa.training.record import RunFolder
from sowa.training.sources import read_source
from sowa.training.train import Training
from tests.training.small import Killed, prepare, settings_for, train


def test_call_names_what_there_is():
    def function(*, first, second=2):
        return first, second

    assert call(function, {"first": 1}, what="part") == (1, 2)
    assert call(function, {}, what="part", first=3) == (3, 2)
    with pytest.raises(UnknownNameError, match=r"setting of part 'frist' .did you mean 'first'"):
        call(function, {"frist": 1}, what="part")


def test_each_attempt_has_curves_of_its_own(data_dir, tmp_path):
    for more in ([], ["resume=true", "trainer.max_epochs=2"]):
        prepare(data_dir, tmp_path, ["logger=csv", "trainer.log_every_n_steps=1", *more]).fit()
    first, second = (tmp_path / f"csv/version_{n}/metrics.csv" for n in (0, 1))
    header, *rows = first.read_text().splitlines()
    assert {"train/loss", "train/loss_step", "train/focal", "train/dice", "train/cross_entropy"} <= {*header.split(",")}
    assert len(rows) == 4  # three steps and the epoch
    assert second.exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("tensorboard", "TensorBoardLogger"), ("mlflow", "MLFlowLogger"), ("wandb", "WandbLogger")]
)
def test_a_logger_without_its_package(data_dir, tmp_path, monkeypatch, name, kind):
    def missing(**options):
        raise ModuleNotFoundError("no such package")

    missing.__signature__ = inspect.signature(getattr(lightning.pytorch.loggers, kind))
    monkeypatch.setattr(lightning.pytorch.loggers, kind, missing)
    with pytest.raises(ConfigError, match=rf"pip install 'sowa\[{name}\]'"):
        prepare(data_dir, tmp_path, [f"logger={name}"])


def test_a_method_without_auxiliary_training(data_dir, tmp_path, monkeypatch):
    training = prepare(data_dir, tmp_path)
    monkeypatch.setattr(type(training.detector), "trains", "none")
    with pytest.raises(ConfigError, match="use eval"):
        Training(training.detector, training.data, settings_for(data_dir), RunFolder(tmp_path))


def test_quiet_is_local(recwarn):
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with quiet():
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in recwarn] == ["something else"]
    assert levels == {name: logging.getLogger(name).level for name in levels}


def test_methods_bring_their_own_optimiser_and_batches(data_dir, tmp_path):
    april = prepare(data_dir, tmp_path / "a", ["model=april_gan"])
    optimiser = april.shell.configure_optimizers()
    assert type(optimiser) is torch.optim.Adam
    group = optimiser.param_groups[0]
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.5, 0.999), 0.0, 1e-3)
    settings = compose_job("train", ["model=inctrl"]).settings
    assert settings["optimisation"]["weight_decay"] == 0.01 and settings["optimisation"]["optimizer"] == "adamw"
    assert (settings["data"]["batch_size"], settings["data"]["steps_per_epoch"]) == (16, 100)
    assert settings["data"]["balanced"] and settings["trainer"]["max_epochs"] == 10


def test_what_a_method_brings_can_be_overridden():
    settings = compose_job("train", ["model=inctrl", "data.steps_per_epoch=7", "trainer.max_epochs=2"]).settings
    assert (settings["data"]["steps_per_epoch"], settings["trainer"]["max_epochs"]) == (7, 2)


def test_inctrl_compares_with_normals_of_the_auxiliary_training_split(data_dir, tmp_path):
    few = ["model=inctrl", "data.batch_size=4", "data.steps_per_epoch=3", "trainer.max_epochs=2"]
    training = prepare(data_dir, tmp_path, few)
    samples = read_source(dataset="mvtec", data_dir=str(data_dir)).samples
    normal = {c: sum(s.category == c and s.split == "train" for s in samples) for c in {s.category for s in samples}}
    assert {name: len(images) for name, images in training.detector._normals.items()} == normal
    before = training.detector.trained_state()
    training.fit()
    after = training.detector.trained_state()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_inctrl_resumed_ends_with_the_same_bits(data_dir, tmp_path):
    few = ["model=inctrl", "data.batch_size=4", "data.steps_per_epoch=3", "save_every_steps=1"]
    few += ["optimisation.lr=0.0001"]
    whole = train(data_dir, tmp_path / "whole", [*few, "trainer.max_epochs=2"])
    with pytest.raises(Killed):
        train(data_dir, tmp_path / "cut", [*few, "trainer.max_epochs=2"], kill_before=4)
    assert train(data_dir, tmp_path / "cut", [*few, "trainer.max_epochs=2", "resume=true"]).bits == whole.bits


def test_an_unknown_optimiser_is_answered_with_those_there_are(data_dir, tmp_path):
    with pytest.raises(UnknownNameError, match="adam, adamw"):
        prepare(data_dir, tmp_path, ["optimisation.optimizer=sgd"])
