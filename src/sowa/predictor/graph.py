"""A `.sowa` file scored by a graph that takes references as inputs: `sowa export --reference input` wrote it once for a
method with its options on a backbone, and every product's own file stays what it was.

The graph says which method it is and what it asks of a reference; both must be what the `.sowa` file has.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sowa.artifact import digest
from sowa.detectors import DETECTORS, detector_class
from sowa.errors import ArtifactError, ConfigError, DataError
from sowa.predictor.content import Content
from sowa.predictor.exported import ExportedDetector
from sowa.predictor.file import Stored, read_file
from sowa.predictor.making import defaults
from sowa.predictor.sessions import MAP, REFERENCE, SCORE, Session, open_session
from sowa.types import Prediction, Reference, Tokens

__all__ = ["FORMAT", "VERSION", "GraphDetector", "graph_meta", "load_with_graph", "served"]

FORMAT, VERSION = "sowa.graph", 1
MOST_TEXT = 1 << 20
MOST_BYTES = 512 << 20
"""Of the table of distances between a batch and a bank; more pictures are taken a few at a time."""
FACTS = ("precision", "words_trained", "expected_spread", "rows", "maps")


class GraphDetector(ExportedDetector):
    """Scores by a session, against whatever reference of the same form."""

    def __init__(self, session: Session, content: Content, facts: Mapping[str, Any], trained: Mapping[str, Tensor]):
        super().__init__(session, content, facts | {"artifact": ""})
        self.inputs, self.rows, self.maps = facts["inputs"], facts["rows"], facts["maps"]
        self.trained, self.own = dict(trained), facts["own"]

    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Raw score [B] and raw map [B, S, S]."""
        feed = fed(reference, self.inputs)
        images = np.ascontiguousarray(tokens.cls.numpy())
        most = max(feed[f"{REFERENCE}bank"].shape[-2] if f"{REFERENCE}bank" in feed else 0, 1)
        step = max(1, MOST_BYTES // (4 * max(1, self.rows) * most))
        found = [self.session.run(images[start : start + step], feed) for start in range(0, len(images), step)]
        scores = torch.from_numpy(np.concatenate([one[SCORE] for one in found]))
        if not self.maps:
            return Prediction(score=scores)
        return Prediction(scores, torch.from_numpy(np.concatenate([one[MAP] for one in found])))

    def trained_state(self) -> dict[str, Tensor]:
        """That of the `.sowa` file; where the graph is no exact one, its hash too, so that results tell of it."""
        return self.trained | ({} if self.own is None else {"graph": torch.tensor(list(self.own), dtype=torch.uint8)})

    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """Raises ConfigError: a graph has no tokens to learn from."""
        raise ConfigError(
            "a graph cannot learn: add pictures to the .sowa file without --graph; the graph then serves it as it is"
        )


def served(content: Content, trained: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a file and a graph must share."""
    recipe = content.recipe
    about = {
        "method": recipe.model,
        "options": defaults(recipe.model) | dict(detector_class(recipe.model).former_defaults) | dict(recipe.options),
        "trained tensors": digest(trained),
        "backbone": recipe.backbone,
        "options of the backbone": dict(recipe.backbone_options),
        "weights": recipe.weights_id,
        "licence": recipe.licence,
        "size": content.view.size,
        "entries of the reference": sorted(content.reference),
    }
    if "head" in content.reference:  # of SOWA Plus: its layers are in the graph, its name in the file's options
        about["trained head"] = content.reference["head"].tolist()
    if "judges" in content.reference:
        about["judges beside the head"] = content.reference["judges"].tolist()
    if "network" in content.reference:
        about["network beside the backbone"] = content.reference["network"].tolist()
    return json.loads(json.dumps(about))  # as they come back from a file


def graph_meta(serves: Mapping[str, Any], inputs: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """What a graph says of itself, without the common prefix.

    inputs: name in the reference -> `dtype`, `shape` with None for what may have any size, `least` of it, and whether
    it may be `filled` up to that with zeros. facts: needs `FACTS`; `rows` of an image are compared with a bank.
    """
    parts = {"serves": dict(serves), "inputs": dict(inputs), "export": dict(facts)}
    text = {name: json.dumps(value, sort_keys=True, allow_nan=False) for name, value in parts.items()}
    return {"format": FORMAT, "version": str(VERSION)} | text


def load_with_graph(path: Path, graph: Path) -> tuple[GraphDetector, Content]:
    """The detector of a `.sowa` file as a graph scores it. ArtifactError in one line where the two do not belong
    together; no weights are needed."""
    stored = read_file(path)
    session = open_session(graph)
    try:
        facts = _understood({key.partition(".")[2]: value for key, value in session.meta.items()})
    except ArtifactError as error:
        raise ArtifactError(f"'{graph}' cannot be used: {error}") from None
    _check_served(stored, facts["serves"], path, graph)
    try:
        detector = GraphDetector(session, stored.content, facts, stored.trained)
        _check_outputs(detector, stored.content)
    except (ArtifactError, DataError) as error:
        raise ArtifactError(f"'{path}' and '{graph.name}' do not fit each other: {error}") from None
    return detector, stored.content


def fed(reference: Reference, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inputs beside the pictures; ArtifactError where the reference is not of the form that is asked for."""
    feed = {}
    for name, asked in inputs.items():
        value = reference.get(name)
        if value is None or str(value.dtype) != f"torch.{asked['dtype']}" or value.ndim != len(asked["shape"]):
            raise ArtifactError(f"the graph asks for '{name}' as {len(asked['shape'])}-dimensional {asked['dtype']}")
        for side, size in enumerate(asked["shape"]):
            short = asked["least"] - value.shape[side] if size is None else 0
            if short > 0 and asked["filled"]:
                more = value.new_zeros([short if here == side else n for here, n in enumerate(value.shape)])
                value = torch.cat((value, more), dim=side)
            elif short > 0 or (size is not None and size != value.shape[side]):
                wanted = f"at least {asked['least']}" if size is None else size
                raise ArtifactError(f"the graph asks for '{name}' with {wanted} along side {side + 1}")
        feed[f"{REFERENCE}{name}"] = value.contiguous().numpy()
    return feed


def _check_served(stored: Stored, serves: Mapping[str, Any], path: Path, graph: Path) -> None:
    recipe = stored.content.recipe
    if recipe.model not in DETECTORS:
        raise ArtifactError(f"'{path}' needs {recipe.model}, which this program does not have")
    own = served(stored.content, stored.trained)
    for what, value in own.items():
        if what != "licence" and serves.get(what) != value:
            shown = ""
            if isinstance(value, str | int) and what != "trained tensors":
                shown = f": {str(value)[:60]}, the graph's is {str(serves.get(what))[:60]}"
            elif isinstance(value, dict) and isinstance(serves.get(what), dict):
                odd = sorted(
                    key for key in value.keys() | serves[what].keys() if value.get(key) != serves[what].get(key)
                )
                shown = f" ({str(odd[0])[:60]})"
            raise ArtifactError(
                f"'{graph.name}' does not serve '{path.name}', which has other {what}{shown}; export a graph from it"
            )


def _check_outputs(detector: GraphDetector, content: Content) -> None:
    """A grey picture, twice: score and map of the right form, for more than one picture too."""
    size = content.view.size
    grey = torch.full((2, 3, size, size), 127, dtype=torch.uint8)
    try:
        found = detector(grey, content.reference)
    except KeyError as error:
        raise ArtifactError(f"the graph gives no {error}") from None
    fits = found.score.shape == (2,) and found.score.dtype == torch.float32 and bool(found.score.isfinite().all())
    if detector.maps:
        fits = fits and found.score_map.shape == (2, size, size) and bool(found.score_map.isfinite().all())
    if not fits:
        raise ArtifactError("no score comes out of them")


def _understood(meta: Mapping[str, str]) -> dict[str, Any]:
    if meta.get("format") != FORMAT:
        raise ArtifactError("it takes no references: give a file of `sowa export --reference input`")
    version = meta.get("version", "")
    if not version.isdecimal() or not 1 <= int(version[:9]) <= VERSION:
        raise ArtifactError(f"it has format version {version[:20]!r}, this program reads up to {VERSION}: upgrade sowa")
    parts = {}
    for key in ("serves", "inputs", "export"):
        text = meta.get(key, "")
        try:
            parts[key] = json.loads(text) if 0 < len(text) <= MOST_TEXT else None
        except (ValueError, RecursionError):
            parts[key] = None
        if not isinstance(parts[key], dict):
            raise ArtifactError(f"its entry '{key}' cannot be understood")
    facts, inputs = parts["export"], parts["inputs"]
    if not all(_is_asked(one) for one in inputs.values()) or not _are_facts(facts):
        raise ArtifactError("its entries 'inputs' and 'export' cannot be understood")
    exact = facts["precision"] == "float32"
    own = None if exact else hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
    return facts | {"serves": parts["serves"], "inputs": inputs, "own": own}


def _is_asked(one: Any) -> bool:
    if not isinstance(one, dict) or one.keys() != {"dtype", "shape", "least", "filled"}:
        return False
    shape = one["shape"]
    sides = isinstance(shape, list) and len(shape) <= 8 and all(side is None or _is_count(side) for side in shape)
    return (
        sides and one["dtype"] in ("float32", "int64") and _is_count(one["least"]) and isinstance(one["filled"], bool)
    )


def _are_facts(facts: Mapping[str, Any]) -> bool:
    if any(key not in facts for key in FACTS) or not isinstance(facts["precision"], str):
        return False
    spread = facts["expected_spread"]
    sane = spread is None or (isinstance(spread, float | int) and math.isfinite(spread) and spread > 0)
    return sane and _is_count(facts["rows"]) and all(isinstance(facts[key], bool) for key in ("words_trained", "maps"))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 20
