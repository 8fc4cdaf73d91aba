"""How a training is set up from its settings."""

import inspect
import logging
import warnings

import lightning.pytorch.loggers
import pytest

from sowa.errors import ConfigError, UnknownNameError
from sowa.training.build import call
from sowa.training.callbacks import quiet
from sowa.training.record import RunFolder
from sowa.training.train import Training
from tests.training.small import prepare, settings_for


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
