"""Our detectors as a model of anomalib's own Engine and command line: `sowa.integrations.anomalib.Sowa`.

What is learnt of good pictures, how a picture is read and where the threshold lies are `sowa.predictor`'s: the same
shots give the same scores here and there. docs/ANOMALIB.md shows the commands.

B images, H W pixels, S side of the detector's input.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sowa.calibration import logistic_width
from sowa.data.intake import Fit
from sowa.detectors.base import Detector
from sowa.errors import ArtifactError, ConfigError
from sowa.predictor.content import Content
from sowa.predictor.file import read_file
from sowa.predictor.fitting import fitted_content
from sowa.predictor.heat import Seen, restored
from sowa.predictor.making import Choice, new_detector, probe
from sowa.predictor.pictures import as_picture, given_pictures
from sowa.predictor.predictor import DEFAULT_BACKBONE, Predictor, default_model
from sowa.predictor.view import Looked, View
from sowa.types import Prediction, Reference

try:
    from anomalib import LearningType
    from anomalib.data import Batch, InferenceBatch
    from anomalib.metrics import AUPR, AUPRO, AUROC, Evaluator, F1Max, F1Score
    from anomalib.models.components import AnomalibModule
    from anomalib.post_processing import PostProcessor
    from anomalib.pre_processing import PreProcessor
except ImportError as error:
    raise ConfigError(f"anomalib is not installed ({error}): pip install 'sowa[anomalib]'") from None

__all__ = ["Sowa", "Verdicts"]

STORED = "sowa"
"""Key of a checkpoint that holds the bytes of a `.sowa` file."""
FROZEN = "model.detector."
OPSET = 18
UNLEARNT = "this Sowa has learnt nothing yet: run fit or train first, or give ckpt_path"


class Sowa(AnomalibModule):
    """Learns k good training pictures in one step and judges by `sowa`'s calibration; nothing needs a defect.

    `pred_score` is `Result.probability` (0.5 at the threshold), `pred_label` the verdict, `anomaly_map` h / (1 + h) of
    the heat map h (0.5 at heat 1), at the size of the pictures.
    """

    def __init__(
        self,
        k_shot: int | None = None,
        category: str | None = None,
        detector: str | None = None,
        backbone: str = DEFAULT_BACKBONE,
        options: dict[str, Any] | None = None,
        backbone_options: dict[str, Any] | None = None,
        trained: str | None = None,
        normals: str | None = None,
        fit_view: Fit = "squash",
        seed: int = 0,
        target_false_alarms: float = 0.02,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Any = True,
    ) -> None:
        """
        k_shot: training pictures to remember, drawn by `seed`; the others set the threshold. None: up to 64. 0: none,
            a zero-shot model.
        category: what the pictures show; None: the data module's category, else "object".
        detector, backbone, options, backbone_options, trained: as in `sowa.fit`; `detector` is its `model`.
        normals: a folder of good pictures to learn in place of the training pictures.
        fit_view: "squash" or "letterbox". target_false_alarms: as in `sowa.fit`.
        The others as in anomalib. A pre-processor must leave pictures in 0..1; its own normalisation is the backbone's.
        """
        if k_shot is not None and (isinstance(k_shot, bool) or not isinstance(k_shot, int) or k_shot < 0):
            raise ConfigError(f"k_shot={k_shot!r} is no number of pictures: give 0 or more, or null for all")
        if not 0 < target_false_alarms < 1:
            raise ConfigError(f"target_false_alarms={target_false_alarms}: give a share between 0 and 1, such as 0.01")
        self._shots = k_shot
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        default = partial(default_model, shots=k_shot != 0)
        choice = Choice(detector, backbone, options, backbone_options, trained)
        built, self._recipe = new_detector(choice, default_model=default, default_backbone=DEFAULT_BACKBONE)
        built.requires_grad_(False)
        self.model = _Judge(built, View(built.backbone.image_size, fit=fit_view))
        self._category, self._normals, self._seed = category, normals, seed
        self._target = target_false_alarms
        self._content: Content | None = None
        # Checkpoints hold what was learnt, not the frozen backbone.
        self.strict_loading = False

    # ---- learning

    @property
    def learning_type(self) -> LearningType:
        """ZERO_SHOT without shots. With them ONE_CLASS: so the Engine runs the training that learns them."""
        return LearningType.ZERO_SHOT if self._shots == 0 else LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One batch of one epoch: the pictures are read by their paths, and the loop only has to begin."""
        return {"max_epochs": 1, "limit_train_batches": 1, "num_sanity_val_steps": 0, "devices": 1}

    def setup(self, stage: str) -> None:
        """What needs no training pictures is learnt here: nothing at all, or the folder `normals`."""
        if self._content is None and self._shots == 0:
            self._learn([])
        elif self._content is None and self._normals is not None and stage != "fit":
            self._learn(given_pictures(self._normals))

    def on_train_start(self) -> None:
        """Learn the good training pictures, by their paths, in the order of their names."""
        if self._normals is not None:
            self._learn(given_pictures(self._normals))
            return
        samples = getattr(getattr(self.trainer.train_dataloader, "dataset", None), "samples", None)
        if samples is None:
            raise ConfigError("the training data name no pictures: give a data module of anomalib, or normals=FOLDER")
        good = samples[samples["label_index"] == 0] if "label_index" in samples else samples
        paths = sorted({str(path) for path in good["image_path"]})
        if not paths:
            raise ConfigError("no good picture among the training data: give some, or normals=FOLDER")
        self._learn(given_pictures(paths))

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> Tensor:
        """Nothing is trained by gradients here; `sowa train` does that, and `trained` takes its result."""
        return torch.zeros((), requires_grad=True, device=self.device)

    def configure_optimizers(self) -> None:
        """None."""

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> Batch:
        """Predictions of a batch; they set no threshold."""
        return batch.update(**self.model(batch.image)._asdict())

    def _learn(self, pictures: Sequence[Any]) -> None:
        data = getattr(self._trainer, "datamodule", None)
        name = self._category or getattr(data, "category", None) or "object"
        device = self.device
        detector = self.model.detector.to("cpu")  # pictures are looked at there
        with torch.inference_mode(False), torch.no_grad():
            content = fitted_content(
                detector,
                self._recipe,
                self.model.view,
                pictures,
                name=str(name),
                k="all" if self._shots is None else self._shots,
                seed=self._seed,
                thumbnails=False,
                target=self._target,
                progress=lambda *_: None,
            )
        self._take(content)
        self.model.to(device)

    def _take(self, content: Content) -> None:
        self._content = content
        self.model.take(content.reference)
        if isinstance(self.post_processor, Verdicts):
            self.post_processor.take(content.calibration)

    @property
    def predictor(self) -> Predictor:
        """What was learnt as a `sowa` predictor, for `predict`, `promise` and `save("part.sowa")`."""
        if self._content is None:
            raise ConfigError(UNLEARNT)
        return Predictor(self.model.detector, self._content)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The bytes of a `.sowa` file in place of the frozen backbone."""
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith(FROZEN)}
        if self._content is not None:
            with tempfile.TemporaryDirectory() as folder:
                self.predictor.save(Path(folder) / "it.sowa")
                stored = (Path(folder) / "it.sowa").read_bytes()
            checkpoint[STORED] = torch.from_numpy(np.frombuffer(stored, np.uint8).copy())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what was learnt, validated as any `.sowa` file; ArtifactError if it is of another detector."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get(STORED)
        if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.ndim != 1:
            raise ArtifactError("the checkpoint holds nothing that Sowa has learnt: give one that its fit wrote")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "it.sowa"
            path.write_bytes(stored.cpu().numpy().tobytes())
            found = read_file(path)
        own, theirs = self._recipe, found.content.recipe
        if (own.model, own.options, own.weights_id) != (theirs.model, theirs.options, theirs.weights_id):
            raise ArtifactError(
                f"the checkpoint is of {theirs.model} on {theirs.backbone}, this is {own.model} on {own.backbone}, or"
                " their options or weights differ: build Sowa as it was built for the fit"
            )
        self.model.detector.load_trained_state(found.trained)
        probe(self.model.detector, found.content.reference)
        self._recipe, self.model.view = theirs, found.content.view
        self._take(found.content)

    # ---- parts

    @property
    def input_size(self) -> tuple[int, int]:
        """Side of the detector's input; pictures of any size are taken."""
        side = self.model.view.size
        return side, side

    @classmethod
    def configure_pre_processor(cls, image_size: tuple[int, int] | None = None) -> PreProcessor:
        """None of its own: pictures and masks keep their size, and the detector resizes as `sowa` does."""
        if image_size is not None:
            raise ConfigError("Sowa takes its size from the backbone: give backbone_options, such as {image_size: 224}")
        return PreProcessor()

    def configure_post_processor(self) -> PostProcessor:
        """`sowa`'s calibration in place of a threshold from labelled validation pictures."""
        return Verdicts()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The metrics of the paper's tables, and F1 at the threshold."""
        image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
        metrics = [kind(fields=image, prefix="image_") for kind in (AUROC, AUPR, F1Max)]
        metrics.append(F1Score(fields=["pred_label", "gt_label"], prefix="image_"))
        metrics += [kind(fields=pixel, prefix="pixel_", strict=False) for kind in (AUROC, AUPR, F1Max, AUPRO)]
        return Evaluator(test_metrics=metrics)

    def to_onnx(
        self, export_root: Path | str, model_file_name: str = "model", input_size: Any = None, **kwargs: Any
    ) -> Path:
        """As anomalib's; the exported model takes pictures of the detector's own input size, resized before."""
        if self._content is None:
            raise ConfigError(UNLEARNT)
        if self.model.view.fit != "squash" or tuple(input_size or self.input_size) != self.input_size:
            raise ConfigError(
                f"an exported Sowa takes pictures squashed to {self.input_size[0]} x {self.input_size[1]} pixels:"
                " leave out input_size, and fit with fit_view=squash"
            )
        try:
            from sowa.export.graphs import detector_graph
        except ImportError as error:
            raise ConfigError(f"export needs {error.name}, which is missing: pip install 'sowa[export]'") from None
        pixel = self._content.calibration.pixel_threshold
        kwargs.setdefault("opset_version", OPSET)
        self.model.graph = detector_graph(
            self.model.detector, self.model.reference, method=self._recipe.model, pixel_threshold=pixel
        )
        try:
            return super().to_onnx(export_root, model_file_name, self.input_size, **kwargs)
        finally:
            self.model.graph = None


class _Judge(nn.Module):
    """[B, 3, H, W] pictures in 0..1 -> raw scores [B] and maps [B, H, W], as anomalib's models answer."""

    def __init__(self, detector: Detector, view: View):
        super().__init__()
        self.detector, self.view, self._names = detector, view, ()
        self.graph: nn.Module | None = None

    def train(self, mode: bool = True) -> "_Judge":
        """The detector stays in evaluation mode: the Engine's training trains nothing of it."""
        super().train(mode)
        self.detector.eval()
        return self

    def take(self, reference: Reference) -> None:
        """Judge by this reference."""
        for name in self._names:
            delattr(self, f"reference_{name}")
        for name, value in reference.items():
            self.register_buffer(f"reference_{name}", value, persistent=False)
        self._names = tuple(reference)

    @property
    def reference(self) -> Reference:
        """ConfigError before anything was learnt."""
        if not self._names:
            raise ConfigError(UNLEARNT)
        return {name: getattr(self, f"reference_{name}") for name in self._names}

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> InferenceBatch:
        """Each picture exactly as `Predictor` sees it; by `graph`, of pictures of the right size, while exporting."""
        if self.graph is not None:
            score_B, *heat = self.graph((images_B3HW.clamp(0, 1) * 255).round().to(torch.uint8))
            return InferenceBatch(
                pred_score=score_B, anomaly_map=heat[0] * self.graph.pixel_threshold if heat else None
            )
        looked = [self.view.look(as_picture(image)) for image in images_B3HW.detach().float().cpu()]
        views = torch.cat([one.views_T3SS for one in looked]).to(images_B3HW.device)
        found = self.detector(views, self.reference)
        return InferenceBatch(pred_score=found.score.float(), anomaly_map=_maps(found, looked, images_B3HW.device))


def _maps(found: Prediction, looked: Sequence[Looked], device: torch.device) -> Tensor | None:
    if found.score_map is None:
        return None
    maps = []
    for map_SS, score, picture in zip(found.score_map.float().cpu(), found.score.tolist(), looked, strict=True):
        inside = torch.where(picture.inside_TSS, map_SS[None], 0.0)
        maps.append(torch.from_numpy(restored(Seen(score, None, inside), picture)))
    return torch.stack(maps).to(device)


class Verdicts(PostProcessor):
    """Raw scores and maps on the scale of `sowa`'s calibration; validation pictures change nothing.

    `image_sensitivity` s moves the verdict to a probability of 1 - s, `pixel_sensitivity` that of the mask likewise.
    """

    def __init__(self, image_sensitivity: float = 0.5, pixel_sensitivity: float = 0.5) -> None:
        super().__init__(image_sensitivity=image_sensitivity, pixel_sensitivity=pixel_sensitivity)
        # [3]: threshold, width of the logistic curve, raw map value of heat 1; not finite until something is learnt.
        self.register_buffer("scale", torch.full((3,), math.nan))

    def take(self, calibration: Any) -> None:
        """The scale that was learnt."""
        threshold, pixel = calibration.threshold, calibration.pixel_threshold
        width = logistic_width(threshold=threshold, middle=calibration.middle)
        numbers = [_rounded_down(threshold), width, math.nan if pixel is None else pixel]
        self.scale.copy_(torch.tensor(numbers, dtype=torch.float32))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """No statistics are collected."""

    def on_validation_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """No threshold is made."""

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Probabilities, verdicts and maps in 0..1 of raw ones."""
        found = self._judged(predictions.pred_score, predictions.anomaly_map)
        return InferenceBatch(**found)

    def post_process_batch(self, batch: Batch) -> None:
        """The same, in a batch."""
        for name, value in self._judged(batch.pred_score, batch.anomaly_map).items():
            setattr(batch, name, value)

    def _judged(self, score_B: Tensor, map_BHW: Tensor | None) -> Mapping[str, Tensor | None]:
        threshold, width, pixel = self.scale
        probability_B = torch.sigmoid((score_B - threshold) / width)
        # At the usual 0.5 by the score itself: no rounding of the curve decides.
        label_B = score_B > threshold if self.image_sensitivity == 0.5 else probability_B > 1 - self.image_sensitivity
        heat_BHW = mask_BHW = None
        if map_BHW is not None:
            raw_BHW = (map_BHW / pixel).clamp(min=0)
            heat_BHW = raw_BHW / (1 + raw_BHW)
            mask_BHW = heat_BHW >= 1 - self.pixel_sensitivity
        return {"pred_score": probability_B, "pred_label": label_B, "anomaly_map": heat_BHW, "pred_mask": mask_BHW}


def _rounded_down(value: float) -> float:
    """The largest float32 not above `value`: a float32 score is above both or above neither."""
    near = np.float32(value)
    return float(near if near <= value else np.nextafter(near, np.float32(-np.inf)))
