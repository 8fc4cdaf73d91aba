"""Training of one detector on an auxiliary data set, from plain settings to trained tensors on disk."""

import inspect
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger

from sowa import __version__
from sowa.artifact import read_state, save_trained
from sowa.data.intake import intake_of
from sowa.data.remembered import RememberedImages
from sowa.data.shots import draw_shots
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, UnknownNameError
from sowa.training.build import call
from sowa.training.callbacks import AtomicCheckpoints, PlainProgress, SaveState, quiet
from sowa.training.datamodule import AuxiliaryData
from sowa.training.module import LitDetector
from sowa.training.record import LAUNCHED, RunFolder, identity, lasting, refuse_other_training
from sowa.training.scoring import support_of
from sowa.training.sources import Source, auxiliary_images

__all__ = ["Training", "auxiliary_data", "describe"]

NORMALS = 64
"""Normal images of each auxiliary category that are kept in memory for a method that compares with them."""

LOGGERS = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger", "mlflow": "MLFlowLogger", "wandb": "WandbLogger"}

OWNED = frozenset(
    (
        "callbacks",
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "logger",
        "plugins",
        "self",
        "use_distributed_sampler",
    )
)
"""Parameters of the trainer that the run decides."""

INEXACT = frozenset(
    (
        "accumulate_grad_batches",
        "fast_dev_run",
        "limit_train_batches",
        "max_steps",
        "max_time",
        "overfit_batches",
        "reload_dataloaders_every_n_epochs",
    )
)
"""Parameters under which a step no longer tells the position in the data, so that a resumed run could not be exact."""


def auxiliary_data(source: Source, detector: Detector, settings: Mapping[str, Any]) -> AuxiliaryData:
    """The auxiliary images of the settings in the order of their seed."""
    data = settings["data"]
    images = auxiliary_images(
        source,
        image_size=detector.backbone.image_size,
        mosaic_rate=data["auxiliary"].get("mosaic_rate", 0.0),
        protocol=settings["protocol"],
        seed=settings["seed"],
        on_error=data["on_error"],
        fit=data.get("fit", "squash"),
    )
    _give_normals(source, detector, settings)
    cache = settings.get("token_cache") or {}
    if cache.get("enabled"):  # without the backbone, decoding would be a large part of a step
        share = cache["images_gb"] * 1e9 / max(data["num_workers"], 1)
        images = RememberedImages(images=images, limit_bytes=share)
    return AuxiliaryData(
        dataset=images,
        batch_size=data["batch_size"],
        num_workers=data["num_workers"],
        seed=settings["seed"],
        balanced=data.get("balanced", False),
        steps_per_epoch=data.get("steps_per_epoch"),
    )


def _give_normals(source: Source, detector: Detector, settings: Mapping[str, Any]) -> None:
    """A method that compares with normal images while it trains gets some of the auxiliary training split's."""
    if not detector.compares:
        return
    with_normals = {sample.category for sample in source.samples if sample.split == "train" and not sample.label}
    mine = [sample for sample in source.samples if sample.category in with_normals]
    drawn = draw_shots(mine, dataset=source.dataset, k=NORMALS, seed=settings["seed"], allow_fewer=True)
    intake = intake_of(settings["protocol"], settings["data"].get("fit", "squash"))
    size = detector.backbone.image_size
    detector.take_normals({category: support_of(shots, size, intake).images for category, shots in drawn.items()})


class Training:
    """One training, set up and ready: wrong settings are known when it is made, before anything is written."""

    def __init__(self, detector: Detector, data: AuxiliaryData, settings: Mapping[str, Any], folder: RunFolder):
        if detector.trains != "auxiliary":
            raise ConfigError(
                f"model {settings['model']['name']} is not trained on auxiliary data: use eval, not train"
            )
        self.detector, self.data, self.folder = detector, data, folder
        self.about = describe(detector, settings, data)
        self.shell = call(
            LitDetector,
            settings["optimisation"],
            what="optimisation",
            detector=detector,
            seed=settings["seed"],
            identity=identity(settings) | {key: self.about[key] for key in ("images", "weights_id")},
            about=self.about,
        )
        self.state = _state_to_resume(settings, folder)
        if self.state is not None:
            refuse_other_training(self.shell.identity, read_state(self.state)["sowa"].get("identity", {}))
        with quiet():
            self.trainer = _trainer(settings, folder)
        self._check_devices(settings["model"]["name"])

    def _check_devices(self, model: str) -> None:
        """What cannot be shared by this many devices is said before they are started."""
        world = self.trainer.world_size
        if world > 1 and not self.detector.splits:
            raise ConfigError(f"model {model} cannot share a batch between {world} devices: set trainer.devices=1")
        self.data.check_world(world)

    def fit(self) -> dict[str, Any]:
        """Train in place, from the start or from the state to be resumed; returns what `run.json` notes.

        Leaves `checkpoints/last.ckpt`, the logger's curves and `trained.safetensors` in the folder.
        """
        trainer, detector = self.trainer, self.detector
        detector.train()
        with quiet(), _shared_folder(trainer, self.folder), _interrupts_reach_the_caller(trainer):
            trainer.fit(self.shell, datamodule=self.data, ckpt_path=self.state and str(self.state))
        detector.eval()
        if trainer.is_global_zero:
            save_trained(self.folder.trained, detector, meta={**self.about, "steps": trainer.global_step})
        return {
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "trained_parameters": sum(value.numel() for _, value in detector.trainable_parameters()),
            "resumed_from": self.state and str(self.state),
        }


def describe(detector: Detector, settings: Mapping[str, Any], data: AuxiliaryData) -> dict[str, Any]:
    """What trained tensors say of themselves: JSON-able, without paths."""
    about = lasting(settings)
    categories = sorted({sample.category for sample in data.dataset.samples})
    return {
        "sowa": __version__,
        "detector": about["model"]["name"],
        "weights_id": detector.backbone.weights_id,
        "images": len(data.dataset),
        "trained_on": {"dataset": about["data"]["auxiliary"]["dataset"], "categories": categories},
        **about,
    }


def _state_to_resume(settings: Mapping[str, Any], folder: RunFolder) -> Path | None:
    """The checkpoint to continue from."""
    path = folder.state if settings["resume"] and folder.state.exists() else None
    if settings["ckpt_path"] is not None:
        path = Path(settings["ckpt_path"])
        path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    return path


def _trainer(settings: Mapping[str, Any], folder: RunFolder) -> pl.Trainer:
    options = dict(settings["trainer"])
    known = inspect.signature(pl.Trainer.__init__).parameters.keys() - OWNED
    for name in options:
        if name not in known:
            raise UnknownNameError("setting of trainer", got=name, known=known - INEXACT)
        if name in INEXACT:
            raise ConfigError(f"trainer.{name} cannot be used: a resumed run would not be exact")
    if str(options.get("devices", "")).isdecimal():
        options["devices"] = int(options["devices"])
    bar = sys.stderr.isatty()
    try:
        return pl.Trainer(
            **options,
            callbacks=[
                SaveState(path=folder.state, every_steps=settings["save_every_steps"]),
                RichProgressBar(leave=True) if bar else PlainProgress(),
            ],
            logger=_loggers(settings.get("logger") or {}, folder),
            plugins=[AtomicCheckpoints()],
            default_root_dir=folder.path,
            enable_progress_bar=bar,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"the trainer cannot be set up like this: {' '.join(str(error).split())}") from error


def _loggers(chosen: Mapping[str, Mapping[str, Any] | None], folder: RunFolder) -> list[Logger]:
    places = {
        "csv": {"save_dir": folder.path, "name": "csv"},
        "tensorboard": {"save_dir": folder.path, "name": "tensorboard", "version": ""},
        "mlflow": {"save_dir": str(folder.path / "mlruns"), "run_name": folder.path.name},
        "wandb": {"save_dir": folder.path, "name": folder.path.name},
    }
    loggers = []
    for name, options in chosen.items():
        if name not in LOGGERS:
            raise UnknownNameError("logger", got=name, known=LOGGERS)
        kind = getattr(import_module("lightning.pytorch.loggers"), LOGGERS[name])
        try:
            loggers.append(call(kind, options or {}, what=f"logger.{name}", **places[name]))
        except ModuleNotFoundError:
            raise ConfigError(f"logger={name} needs a package of its own: pip install 'sowa[{name}]'") from None
    return loggers


@contextmanager
def _shared_folder(trainer: pl.Trainer, folder: RunFolder) -> Iterator[None]:
    """Processes the trainer starts for further devices find the folder of the first in their environment."""
    before = os.environ.get(LAUNCHED)
    if trainer.world_size > 1:
        os.environ[LAUNCHED] = str(folder.path.absolute())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(LAUNCHED, None)


@contextmanager
def _interrupts_reach_the_caller(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning turns an interrupt from the keyboard into `exit(1)` and leaves the signal ignored: undo both."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)
