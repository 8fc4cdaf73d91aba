"""The whole way: trace, quantise, write beside, load as any user would, compare, keep."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from sowa import __version__
from sowa.backbones.cnn import CnnBackbone
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, SowaError, UnknownNameError
from sowa.export.gates import Drift, Parity, check_drift, check_parity, drift, parity, stand_ins, with_another
from sowa.export.graphs import detector_graph, open_graph
from sowa.export.int8 import quantized
from sowa.export.onnx_graph import OPSET, onnx_model, without_notes
from sowa.export.writing import KINDS, check_suffix, library, moved, write_candidate
from sowa.predictor.exported import ExportedDetector, exported_meta, graph_identity
from sowa.predictor.graph import fed, graph_meta, served
from sowa.predictor.pictures import as_picture, given_pictures
from sowa.predictor.predictor import Predictor
from sowa.predictor.sessions import MAP

__all__ = ["DRIFT", "LEAST_INT8", "TOLERANCE", "Report", "export_detector"]

TOLERANCE = 1e-3
"""Largest difference of a score, as a share of the threshold's size, and of heat."""
DRIFT = 0.01
"""Image AUROC that int8 may cost."""
LEAST_INT8 = 4
MOST_VIEWS = 300
"""Views whose values set the scales of int8."""
FLOAT, INT8 = "float32", "int8"
REFERENCES = ("baked", "input")


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
    reference: Literal["baked", "input"] = "baked",
    good: Any = None,
    defects: Any = None,
    tolerance: float = TOLERANCE,
    drift_allowed: float = DRIFT,
) -> Report:
    """Write a fitted detector for another runtime, whole or not at all.

    to: "onnx" (one file `.onnx`) or "openvino" (`.xml` and `.bin` beside each other).
    int8: the network's weights and activations in eight bits; needs at least 4 good pictures.
    reference: what was learnt is `baked` into the file, which then needs nothing else; or an `input` of a graph that
        serves all `.sowa` files of this method, with these options, on this backbone (`sowa.load(path, graph=)`).
    good, defects: pictures, as `Predictor.fit` takes them, on which the file is compared with the detector; without
        good ones drawn pictures stand in, without defects painted ones do.
    tolerance, drift_allowed: see `TOLERANCE` and `DRIFT`.
    ConfigError, and nothing written, where the file would say something else than the detector.
    """
    out = Path(out)
    if to not in KINDS:
        raise UnknownNameError("kind of file", got=to, known=KINDS)
    check_suffix(to, out)
    if reference not in REFERENCES:
        raise UnknownNameError("reference", got=reference, known=REFERENCES)
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
    made = _made(predictor, given if int8 else None, reference)
    work = _beside(out)
    try:
        checks = _Checks(pictures, given, bad, tolerance, drift_allowed, drawn=not given and not bad)
        return _written(predictor, made, out, to, work, checks)
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


class _Made(NamedTuple):
    model: ModelProto
    artifact: str
    """Identity of what it computes."""
    meta: dict[str, str]
    precision: str
    open_: bool
    """Whether the reference is an input."""


def _made(predictor: Predictor, good: Sequence[Image.Image] | None, reference: str) -> _Made:
    """The graph, in int8 where there are good pictures for it, and what it says of itself."""
    content, detector = predictor.content, predictor.detector
    method, precision, open_ = content.recipe.model, FLOAT if good is None else INT8, reference == "input"
    if open_:
        graph = open_graph(detector, content.reference, method=method)
        inputs = {name: asked.told() for name, asked in graph.inputs.items()}
        feed = fed(content.reference, inputs)
    else:
        threshold, feed = content.calibration.pixel_threshold, {}
        graph = detector_graph(detector, content.reference, method=method, pixel_threshold=threshold)
    model, artifact = onnx_model(graph, content.view.size), predictor.id
    if good is None:
        model = without_notes(model)
    else:
        transformer = not isinstance(detector.backbone, CnnBackbone)
        model = quantized(model, _views(predictor, good), transformer=transformer, reference=feed)
        artifact = graph_identity(predictor.id, INT8, model.SerializeToString(deterministic=True))
    facts = _facts(detector, precision)
    if open_:
        facts |= {"rows": graph.rows, "maps": MAP in graph.outputs, "graph": artifact}
        meta = graph_meta(served(content, detector.trained_state()), inputs, facts)
    else:
        meta = exported_meta(content, artifact, facts | {"detector": predictor.id})
    return _Made(model, artifact, meta, precision, open_)


def _facts(detector: Detector, precision: str) -> dict[str, Any]:
    return {
        "precision": precision,
        "words_trained": detector.backbone.text_trained,
        "expected_spread": detector.expected_spread,
        "sowa": __version__,
        "opset": OPSET,
        "input": "images: uint8 [B, 3, size, size], RGB, resampled as `about.view` says (docs/EXPORT.md); with"
        " `inputs`, the tensors of the same names of a .sowa file",
        "output": "score: float32 [B], defective above the calibration's threshold; heat: float32 [B, size, size], 1 is"
        " the most that is expected of a good part, or map: heat times the calibration's pixel_threshold",
    }


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
    with _telling(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))


def _written(predictor: Predictor, made: _Made, out: Path, to: str, work: Path, checks: _Checks) -> Report:
    candidate, drifted = work / f"candidate{KINDS[to][0]}", None
    with _telling(out):
        write_candidate(to, made.model, made.meta, candidate)
    exported = _loaded(predictor, made, candidate)
    found = parity(predictor, exported, checks.pictures)
    if made.precision == INT8:
        drifted = drift(predictor, exported, checks.good, checks.bad)
        check_drift(drifted, checks.drift)
    else:
        check_parity(found, checks.tolerance)
        if made.open_ and (pair := with_another(predictor, exported, checks.pictures)):
            check_parity(parity(*pair, checks.pictures), checks.tolerance)
    with _telling(out):
        files = moved(candidate, out, KINDS[to])
    tolerance = checks.tolerance if drifted is None else None
    return Report(tuple(files), made.artifact, made.precision, found, checks.drawn, tolerance, drifted)


def _loaded(predictor: Predictor, made: _Made, candidate: Path) -> Predictor:
    """As any user would load it."""
    if not made.open_:
        return Predictor.load(candidate)
    own = candidate.with_suffix(".sowa")
    predictor.save(own)
    return Predictor.load(own, graph=candidate)


@contextmanager
def _telling(out: Path) -> Iterator[None]:
    """A disk that refuses is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written: {error.strerror or error}; choose another place") from None
