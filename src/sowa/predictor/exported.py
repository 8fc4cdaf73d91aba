"""A detector that was exported: another runtime scores, everything else of a `Predictor` stays as it is."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sowa.detectors.base import Detector
from sowa.errors import ArtifactError, ConfigError, DataError
from sowa.predictor.content import Content, described, understood
from sowa.predictor.sessions import HEAT, SCORE, Session, open_session
from sowa.types import Prediction, Reference, Tokens

__all__ = ["FORMAT", "VERSION", "ExportedDetector", "exported_meta", "load_exported"]

FORMAT, VERSION = "sowa.exported", 1
MOST_TEXT = 16 << 20
MOST_SIDE = 4096
KEYS = ("format", "version", "artifact", "about", "evidence", "mask", "export")
PLACES = ("precision", "words_trained", "expected_spread")


class ExportedDetector(Detector):
    """Scores by a session. Its tokens are the pictures themselves: the graph goes from pixels to score and map."""

    exported = True
    """Cannot be saved as a `.sowa` file, nor exported again."""

    threads_itself = True

    def __init__(self, session: Session, content: Content, facts: Mapping[str, Any]):
        super().__init__()
        self.session, self.taps = session, ()
        self.expected_spread = facts["expected_spread"]
        self._artifact, self._pixel_threshold = facts["artifact"], content.calibration.pixel_threshold
        # All that a Predictor asks of a backbone: what it is, where and in which numbers it computes.
        self.backbone = SimpleNamespace(
            mean=torch.zeros(3, 1, 1),
            precision=facts["precision"],
            name=content.recipe.backbone,
            image_size=content.view.size,
            text_trained=facts["words_trained"],
            weights_id=content.recipe.weights_id,
        )

    def encode(self, images_B3HW: Tensor) -> Tokens:
        """The pictures as they are, uint8 [B, 3, S, S]."""
        return Tokens(cls=images_B3HW, levels=(), grid=(1, 1))

    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Raw score [B] and raw map [B, S, S], as those of the detector that was exported."""
        found = self.session.run(np.ascontiguousarray(tokens.cls.numpy()))
        heat = found.get(HEAT)
        if self._pixel_threshold is None or heat is None:
            return Prediction(score=torch.from_numpy(found[SCORE]))
        return Prediction(torch.from_numpy(found[SCORE]), torch.from_numpy(heat * np.float32(self._pixel_threshold)))

    def trained_state(self) -> dict[str, Tensor]:
        """What sets this detector apart where an identity is made of a changed calibration."""
        return {"exported": torch.tensor(list(self._artifact.encode()), dtype=torch.uint8)}

    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """Raises ConfigError: what was learnt is a part of the graph."""
        raise ConfigError("an exported detector cannot learn: add pictures to the .sowa file and export it again")

    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """Raises ConfigError: what was learnt is a part of the graph."""
        return self.fit_tokens(category, tokens)


def exported_meta(content: Content, artifact: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """What an exported file says of itself, without the common prefix: all that `load_exported` needs beside the graph.

    facts: about the export, ready for JSON; needs `precision`, `words_trained` and `expected_spread`.
    """
    scale = content.calibration
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "artifact": artifact,
        "about": json.dumps(described(content, inside=True), sort_keys=True, allow_nan=False),
        "evidence": json.dumps({"scores": scale.scores, "peaks": scale.peaks}, allow_nan=False),
        "mask": "" if content.view.mask is None else _as_png(content.view.mask),
        "export": json.dumps(dict(facts), sort_keys=True, allow_nan=False),
    }


def load_exported(path: Path) -> tuple[ExportedDetector, Content, str]:
    """The detector, what is known of it, and its identity. ArtifactError in one line for a file that cannot be used."""
    session = open_session(path)
    try:
        content, facts = _understood({key.partition(".")[2]: value for key, value in session.meta.items()})
        detector = ExportedDetector(session, content, facts)
        _check_outputs(session, content)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' cannot be used: {error}") from None
    return detector, content, facts["artifact"]


def _understood(meta: Mapping[str, str]) -> tuple[Content, dict[str, Any]]:
    if meta.get("format") != FORMAT:
        raise ArtifactError("it is no exported detector: give a file written by `sowa export`")
    version = meta.get("version", "")
    if not version.isdecimal() or not 1 <= int(version[:9]) <= VERSION:
        raise ArtifactError(f"it has format version {version[:20]!r}, this program reads up to {VERSION}: upgrade sowa")
    for key in KEYS:
        if key not in meta or len(meta[key]) > MOST_TEXT:
            raise ArtifactError(f"its entry '{key}' is missing or longer than {MOST_TEXT >> 20} MB")
    if not re.fullmatch(r"sha256:[0-9a-f]{16}", meta["artifact"]):
        raise ArtifactError("it does not say which detector it is")
    evidence, facts = _object(meta["evidence"], "evidence"), _object(meta["export"], "export")
    if missing := [key for key in PLACES if key not in facts]:
        raise ArtifactError(f"its entry 'export' lacks '{missing[0]}'")
    spread = facts["expected_spread"]
    if not isinstance(facts["words_trained"], bool) or not (spread is None or _is_positive(spread)):
        raise ArtifactError("its entry 'export' cannot be understood")
    content, _ = understood(
        _object(meta["about"], "about"),
        reference={},
        scores=_numbers(evidence.get("scores")),
        peaks=_numbers(evidence.get("peaks")),
        mask=_from_png(meta["mask"]) if meta["mask"] else None,
        thumbnails=None,
    )
    return content, facts | {"artifact": meta["artifact"]}


def _check_outputs(session: Session, content: Content) -> None:
    """A grey picture, twice: the graph answers in the form that a detector does, for more than one picture too."""
    size = content.view.size
    try:
        found = session.run(np.full((2, 3, size, size), 127, np.uint8))
    except DataError as error:
        raise ArtifactError(str(error)) from None
    wanted = {SCORE: (2,)} if content.calibration.pixel_threshold is None else {SCORE: (2,), HEAT: (2, size, size)}
    for name, shape in wanted.items():
        value = found.get(name)
        if value is None or value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
            raise ArtifactError(f"its graph gives no '{name}' of shape {list(shape)}")


def graph_identity(artifact: str, precision: str, graph: bytes) -> str:
    """Identity of an export whose results differ from the detector's own."""
    return f"sha256:{hashlib.sha256(f'{artifact}|{precision}|'.encode() + graph).hexdigest()[:16]}"


def _object(text: str, what: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise ArtifactError(f"its entry '{what}' holds the number {word}")

    try:
        found = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise ArtifactError(f"its entry '{what}' is not JSON") from None
    if not isinstance(found, dict):
        raise ArtifactError(f"its entry '{what}' is not an object")
    return found


def _numbers(values: Any) -> NDArray[np.float64]:
    if not isinstance(values, list) or not all(isinstance(one, float | int) for one in values):
        raise ArtifactError("its scores of good pictures are no numbers")
    return np.array(values, dtype=np.float64)


def _is_positive(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < float("inf")


def _as_png(mask_hw: NDArray[np.bool_]) -> str:
    packed = io.BytesIO()
    Image.fromarray(mask_hw.astype(np.uint8) * np.uint8(255)).save(packed, "PNG")
    return base64.b64encode(packed.getvalue()).decode()


def _from_png(text: str) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            if max(image.size) > MOST_SIDE or image.mode != "L":
                raise ArtifactError("its mask is no mask")
            mask_hw = np.asarray(image) > 127
    except ArtifactError:
        raise
    except Exception:  # decoders meet damaged bytes with whatever their code runs into
        raise ArtifactError("its mask is damaged") from None
    if not mask_hw.any():
        raise ArtifactError("its mask leaves nothing to look at")
    return mask_hw
