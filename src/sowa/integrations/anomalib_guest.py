"""An installed anomalib's model as a method of this project's benchmark: same shots, same images, same metrics."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sowa.detectors.base import Detector
from sowa.errors import ConfigError, NeedsSupportError, SowaError, UnknownNameError
from sowa.types import Prediction, Reference, Support, Tokens

__all__ = ["Guest", "guest_detector"]

SIDE = 256
"""Side of the images that guests are given; each resizes them to its own taste."""


def guest_detector(name: str, options: Mapping[str, Any] | None = None) -> "Guest":
    """An anomalib model by its class name, such as `Patchcore`, built with `options`.

    ConfigError without anomalib or for options it does not take, UnknownNameError for a model it does not have.
    """
    models = _anomalib_models()
    known = {str(one).rpartition(".")[2] for one in models.list_models(case="pascal")}
    if name not in known:
        raise UnknownNameError("anomalib model", got=name, known=known)
    return Guest(name=name, options=dict(options or {}))


def _anomalib_models() -> ModuleType:
    try:
        with _quiet():
            from anomalib import models
    except ImportError as error:
        raise ConfigError(f"anomalib is not installed ({error}): pip install 'sowa[anomalib]'") from None
    return models


class _Pictures(nn.Module):
    """Stands where other detectors have a backbone: a guest sees pictures, not tokens."""

    def __init__(self, name: str, options: Mapping[str, Any]):
        super().__init__()
        self.name, self.image_size, self.text_trained = f"anomalib {name}", SIDE, True
        self.weights_id = "anomalib's own" if not options else f"anomalib's own, {dict(sorted(options.items()))}"
        self.nowhere = nn.Parameter(torch.zeros(1), requires_grad=False)


class Guest(Detector):
    """Trains the model on the shots by anomalib's Engine with the model's own settings; scores are raw, unnormalised.

    What was learnt stays with this object (`guest` of the reference is its number): it is no plain tensor.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "target"

    def __init__(self, *, name: str, options: Mapping[str, Any]):
        super().__init__()
        self.name, self.options = name, options
        self.backbone, self.taps = _Pictures(name, options), ()
        self._fitted: list[nn.Module] = []
        self._built()  # wrong options are known now

    def encode(self, images_B3HW: Tensor) -> Tokens:
        """The pictures themselves, as float 0..1."""
        images = images_B3HW if images_B3HW.is_floating_point() else images_B3HW.float() / 255
        return Tokens(cls=images, levels=(), grid=(1, 1))

    def fit(self, support: Support) -> Reference:
        return self.fit_tokens(support.category, self.encode(support.images) if len(support.images) else None)

    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        if tokens is None:
            raise NeedsSupportError(f"anomalib's {self.name} learns from normal images: give shots of 1 or more")
        model = self._built()
        # What is learnt here is used again in inference mode elsewhere, and must not be born in it.
        with torch.inference_mode(False), torch.enable_grad(), tempfile.TemporaryDirectory() as folder, _quiet():
            self._train(model, tokens.cls.clone(), Path(folder))
        self._fitted.append(model.eval())
        return {"guest": torch.tensor(len(self._fitted) - 1)}

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        model, images = self._fitted[int(reference["guest"])], tokens.cls
        with _quiet():
            seen = model.model(model.pre_processor(images) if model.pre_processor else images)
        score_map = None
        if seen.anomaly_map is not None:
            maps_B1HW = seen.anomaly_map.float().reshape(len(images), 1, *seen.anomaly_map.shape[-2:])
            score_map = F.interpolate(maps_B1HW, (SIDE, SIDE), mode="bilinear")[:, 0]
        score_B = seen.pred_score
        if score_B is None:
            score_B = score_map.flatten(1).amax(dim=1)
        return Prediction(score=score_B.float().reshape(len(images)), score_map=score_map)

    def _built(self) -> nn.Module:
        models = _anomalib_models()
        try:
            with _quiet():
                return models.get_model(self.name, **self.options)
        except TypeError as error:
            raise ConfigError(f"anomalib's {self.name} cannot be built: {error}") from None
        except Exception as error:  # hubs answer in many ways that they cannot be reached
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise SowaError(f"anomalib's {self.name} cannot be built ({why}); its weights may need a hub") from None

    def _train(self, model: nn.Module, images_K3HW: Tensor, folder: Path) -> None:
        from anomalib.data import Folder
        from anomalib.engine import Engine

        good = folder / "good"
        good.mkdir()
        for number, image in enumerate((images_K3HW * 255).round().to(torch.uint8)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(good / f"{number:04}.png")
        data = Folder(
            name="shots",
            root=folder,
            normal_dir="good",
            train_batch_size=min(8, len(images_K3HW)),
            eval_batch_size=1,
            num_workers=0,
            test_split_mode="none",
            val_split_mode="none",
        )
        engine = Engine(
            default_root_dir=folder / "runs",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            devices=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        engine.fit(model, datamodule=data)


@contextmanager
def _quiet() -> Iterator[None]:
    """The guest keeps its progress, warnings and log to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
