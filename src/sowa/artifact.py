"""Trained tensors on disk: safetensors with a description of what they belong to. The frozen backbone is never stored.

The file's metadata holds `format`, `version`, `meta` (a JSON object with at least `detector`, `backbone`, `weights_id`)
and `sha256`, of `meta` and of names, types, shapes and bytes of all tensors. Nothing in the file is executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sowa import __version__
from sowa.errors import ArtifactError

if TYPE_CHECKING:
    from sowa.detectors.base import Detector

__all__ = [
    "digest",
    "find_trained",
    "import_published",
    "load_trained",
    "read_meta",
    "read_state",
    "read_trained",
    "save_trained",
    "seal",
    "write_whole",
]

FORMAT, VERSION = "sowa.trained", 1
REQUIRED = ("detector", "backbone", "weights_id")
UNVERIFIED = "unverified"
"""Weights id of a published checkpoint that does not hold the backbone it was trained on."""
PUBLISHED_BACKBONE = {"name": "clip", "model": "ViT-L-14-336-quickgelu", "tag": "openai"}


def save_trained(path: Path, detector: "Detector", *, meta: Mapping[str, Any]) -> None:
    """Write the detector's trained tensors; `meta` is JSON-able and names `detector`, `backbone` and `weights_id`.

    The file appears complete or not at all.
    """
    if missing := [key for key in REQUIRED if key not in meta]:
        raise ValueError(f"meta lacks {', '.join(missing)}")
    _write(path, detector.trained_state(), meta)


def _write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    state = {name: value.cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(dict(meta))
    header = {"format": FORMAT, "version": str(VERSION), "meta": text, "sha256": seal(state, text)}
    write_whole(path, save(state, metadata=header))


def import_published(path: Path, out: Path) -> dict[str, Any]:
    """Turn a checkpoint of the paper's code into a file of trained tensors; returns its meta.

    Nothing in the checkpoint is executed. What its tensors imply (adapter, depth, heads, window, prompt length, text
    linear) becomes the model's options; taps, templates and categories are in no tensor and stay the paper's. The copy
    of CLIP that such checkpoints hold gives the weights id.
    """
    from sowa.archive import read_torch_archive, state_of
    from sowa.detectors.published import options_from_shapes, translate_names

    tensors = state_of(read_torch_archive(path))
    trained = {name: value.float() for name, value in translate_names(tensors).items()}
    meta = {
        "sowa": __version__,
        "detector": "sowa",
        "imported": path.name,
        "weights_id": _published_backbone_id(tensors),
        "backbone": PUBLISHED_BACKBONE,
        "protocol": "paper",
        "seed": 0,
        "model": {"name": "sowa", **options_from_shapes(trained, tensors), "protocol": "paper", "seed": 0},
        "choices": {"model": "sowa_hfwa", "backbone": "clip"},
    }
    _write(out, trained, meta)
    return meta


def _published_backbone_id(tensors: Mapping[str, Tensor]) -> str:
    from sowa.backbones.clip import clip_state
    from sowa.backbones.state import hash_tensors

    for prefix in ("net.clip_model.", "clip_model."):
        found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if found:
            return hash_tensors(clip_state(found))
    return UNVERIFIED


def find_trained(path: Path) -> Path:
    """The file of trained tensors that is meant: the path itself, or what a run folder holds."""
    if path.is_dir():
        places = [path / "trained.safetensors", path / "checkpoints" / "last.ckpt"]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ArtifactError(f"'{path}' holds no trained.safetensors: give the folder of a training run")
        return found
    if not path.is_file():
        raise ArtifactError(f"no file at '{path}': give a run folder, its trained.safetensors or its last.ckpt")
    return path


def read_meta(path: Path) -> dict[str, Any]:
    """What a file of trained tensors (or a checkpoint of a training under way) says of itself."""
    if path.suffix == ".ckpt":
        return _checked_meta(path, read_state(path)["sowa"].get("about"))
    with _open(path) as file:
        return _meta(path, file.metadata() or {})


def read_trained(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, meta) of such a file; safetensors are verified against their own hash."""
    if path.suffix == ".ckpt":
        state = read_state(path)
        return state["state_dict"], _checked_meta(path, state["sowa"].get("about"))
    with _open(path) as file:
        header = file.metadata() or {}
        meta = _meta(path, header)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if seal(tensors, header["meta"]) != header.get("sha256"):
        raise ArtifactError(f"'{path}' is damaged: it does not match the hash stored with it; copy it again")
    return tensors, meta


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint written during training, on the processor; tensors and plain values only, nothing is executed."""
    if not path.is_file():
        raise ArtifactError(f"no checkpoint at '{path}': give the last.ckpt of a run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged archive fails in as many ways as it has layers
        raise ArtifactError(f"'{path}' is damaged or not a checkpoint of a training here") from None
    parts = (state.get("sowa"), state.get("state_dict")) if isinstance(state, dict) else ()
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise ArtifactError(f"'{path}' is not a checkpoint of a training here; `sowa import` converts published ones")
    return state


def load_trained(path: Path, detector: "Detector") -> dict[str, Any]:
    """Put a file's tensors into the detector and return the file's meta; on any error the detector is unchanged."""
    state, meta = read_trained(path)
    weights_id = detector.backbone.weights_id
    if meta["weights_id"] not in (weights_id, UNVERIFIED):
        raise ArtifactError(
            f"'{path}' was trained on backbone weights {meta['weights_id']}, not on {weights_id}"
            f" ({detector.backbone.name}): choose the backbone it was trained on"
        )
    try:
        detector.load_trained_state(state)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}': {error}") from None
    return meta


def write_whole(path: Path, content: bytes) -> None:
    """The file appears complete or not at all, and is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def seal(state: Mapping[str, Tensor], meta: str) -> str:
    """SHA-256 over the tensors and their description: tells damage, not forgery."""
    return hashlib.sha256(f"{digest(state)}|{meta}".encode()).hexdigest()


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ArtifactError(f"no file of trained tensors at '{path}': give the trained.safetensors of a run")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is damaged or not a safetensors file ({_line(error)})") from None


def _meta(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if header.get("format") != FORMAT:
        raise ArtifactError(
            f"'{path}' holds tensors, but not those of a training here; `sowa import` converts published checkpoints"
        )
    if not header.get("version", "").isdecimal() or int(header["version"]) > VERSION:
        raise ArtifactError(
            f"'{path}' has format version {header.get('version')}, this program reads up to {VERSION}: upgrade sowa"
        )
    try:
        meta = json.loads(header.get("meta", ""))
    except ValueError:
        meta = None
    return _checked_meta(path, meta)


def _checked_meta(path: Path, meta: object) -> dict[str, Any]:
    if not isinstance(meta, dict) or any(key not in meta for key in REQUIRED):
        raise ArtifactError(f"'{path}' is damaged: its description lacks {', '.join(REQUIRED)}")
    return meta


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
