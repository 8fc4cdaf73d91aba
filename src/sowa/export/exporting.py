"""The whole way: trace, quantise, write beside, load as any user would, compare, keep."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from sowa import __version__
from sowa.backbones.cnn import CnnBackbone
from sowa.errors import ConfigError, SowaError, UnknownNameError
from sowa.export.gates import Drift, Parity, check_drift, check_parity, drift, parity, stand_ins
from sowa.export.graphs import detector_graph
from sowa.export.int8 import quantized
from sowa.export.onnx_graph import OPSET, onnx_model, without_notes
from sowa.export.writing import KINDS, check_suffix, library, moved, write_candidate
from sowa.predictor.exported import ExportedDetector, exported_meta, graph_identity
from sowa.predictor.pictures import as_picture, given_pictures
from sowa.predictor.predictor import Predictor

__all__ = ["DRIFT", "LEAST_INT8", "TOLERANCE", "Report", "export_detector"]

TOLERANCE = 1e-3
"""Largest difference of a score, as a share of the threshold's size, and of heat."""
DRIFT = 0.01
"""Image AUROC that int8 may cost."""
LEAST_INT8 = 4
MOST_VIEWS = 300
"""Views whose values set the scales of int8."""
FLOAT, INT8 = "float32", "int8"


@dataclass(frozen=True, slots=True)
class Report:
    """What was written and how near it is to the detector."""

    files: tuple[Path, ...]
    artifact: str
    precision: str
    parity: Parity
    drawn: bool
    """Whether the pictures compared were drawn ones."""
    tolerance: float | None
    """That the parity was held to; None for int8, which the drift is for."""
    drift: Drift | None

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {
            "files": [str(path) for path in self.files],
            "bytes": sum(path.stat().st_size for path in self.files),
        }


def export_detector(
    predictor: Predictor,
    out: Path | str,
    *,
    to: str,
    int8: bool = False,
    good: Any = None,
    defects: Any = None,
    tolerance: float = TOLERANCE,
    drift_allowed: float = DRIFT,
) -> Report:
    """Write a fitted detector for another runtime, whole or not at all.

    to: "onnx" (one file `.onnx`) or "openvino" (`.xml` and `.bin` beside each other).
    int8: the network's weights and activations in eight bits; needs at least 4 good pictures.
    good, defects: pictures, as `Predictor.fit` takes them, on which the file is compared with the detector; without
        good ones drawn pictures stand in, without defects painted ones do.
    tolerance, drift_allowed: see `TOLERANCE` and `DRIFT`.
    ConfigError, and nothing written, where the file would say something else than the detector.
    """
    out = Path(out)
    if to not in KINDS:
        raise UnknownNameError("kind of file", got=to, known=KINDS)
    check_suffix(to, out)
    if isinstance(predictor.detector, ExportedDetector):
        raise ConfigError("an exported detector cannot be exported again: give the .sowa file")
    for name in ("onnxscript", "onnxruntime" if to == "onnx" else "openvino", *(["nncf"] if int8 else [])):
        if name != "nncf":  # loaded where it can be kept silent
            library(name)
    given = [as_picture(one) for one in given_pictures(good)] if good is not None else []
    bad = [as_picture(one) for one in given_pictures(defects)] if defects is not None else None
    if int8 and len(given) < LEAST_INT8:
        raise ConfigError(
            f"int8 takes its scales from good pictures and was given {len(given)}: give {LEAST_INT8} or more"
        )
    pictures = [*given, *(bad or [])] or stand_ins(predictor.content.view.size)
    predictor = _in_float32(predictor)
    model, artifact = _model(predictor, given if int8 else None)
    work = _beside(out)
    try:
        checks = _Checks(pictures, given, bad, tolerance, drift_allowed, drawn=not given and not bad)
        return _written(predictor, model, artifact, out, to, work, checks, int8=int8)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Checks:
    pictures: Sequence[Image.Image]
    good: Sequence[Image.Image]
    bad: Sequence[Image.Image] | None
    tolerance: float
    drift: float
    drawn: bool


def _model(predictor: Predictor, good: Sequence[Image.Image] | None) -> tuple[ModelProto, str]:
    """The graph, in int8 where there are good pictures for it, and the identity of what it computes."""
    content, detector = predictor.content, predictor.detector
    graph = detector_graph(
        detector,
        content.reference,
        method=content.recipe.model,
        pixel_threshold=content.calibration.pixel_threshold,
    )
    model = onnx_model(graph, content.view.size)
    if good is None:
        return without_notes(model), predictor.id
    small = quantized(model, _views(predictor, good), transformer=not isinstance(detector.backbone, CnnBackbone))
    return small, graph_identity(predictor.id, INT8, small.SerializeToString(deterministic=True))


def _in_float32(predictor: Predictor) -> Predictor:
    """Exported files are exact; a detector that scores in fewer digits is read again from its own file."""
    if predictor.info()["precision"] == "fp32" or not hasattr(predictor.detector, "at_precision"):
        return predictor
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exact.sowa"
        predictor.save(path, bundle=predictor.info()["backbone"]["inside"])
        try:
            exact = Predictor.load(path, precision="fp32")
        except SowaError as error:
            raise ConfigError(f"exported files are float32: fit or load with precision=fp32 ({error})") from None
    return Predictor(exact.detector, predictor.content, identity=predictor.id)


def _views(predictor: Predictor, pictures: Sequence[Image.Image]) -> list[NDArray[np.uint8]]:
    views = [view for picture in pictures for view in predictor.content.view.look(picture).views_T3SS.numpy()]
    step = max(1, -(-len(views) // MOST_VIEWS))
    return views[::step]


def _beside(out: Path) -> Path:
    """A folder on the same disk, for what is not yet known to be right."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror or error}; choose another place") from None


def _written(
    predictor: Predictor,
    model: ModelProto,
    artifact: str,
    out: Path,
    to: str,
    work: Path,
    checks: _Checks,
    *,
    int8: bool,
) -> Report:
    facts = {
        "precision": INT8 if int8 else FLOAT,
        "words_trained": predictor.detector.backbone.text_trained,
        "expected_spread": predictor.detector.expected_spread,
        "sowa": __version__,
        "opset": OPSET,
        "detector": predictor.id,
        "input": "images: uint8 [B, 3, size, size], RGB, resampled as `about.view` says (docs/EXPORT.md)",
        "output": "score: float32 [B], defective above about.calibration.threshold; heat: float32 [B, size, size], 1 is"
        " the most that is expected of a good part",
    }
    candidate = work / f"candidate{KINDS[to][0]}"
    try:
        write_candidate(to, model, exported_meta(predictor.content, artifact, facts), candidate)
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror or error}; choose another place") from None
    exported = Predictor.load(candidate)
    found, drifted = parity(predictor, exported, checks.pictures), None
    if int8:
        drifted = drift(predictor, exported, checks.good, checks.bad)
        check_drift(drifted, checks.drift)
    else:
        check_parity(found, checks.tolerance)
    try:
        files = moved(candidate, out, KINDS[to])
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror or error}; choose another place") from None
    return Report(
        tuple(files), artifact, facts["precision"], found, checks.drawn, None if int8 else checks.tolerance, drifted
    )
