"""The `.sowa` file: one safetensors file with a sealed description. docs/ARTIFACT.md is its specification.

A file is untrusted input: sizes, names, types and numbers are checked before anything is built from them, nothing in it
is executed, and every failure is an `ArtifactError` of one line.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sowa.artifact import seal, write_whole
from sowa.errors import ArtifactError, ConfigError
from sowa.predictor.content import Content, described, understood

__all__ = ["FORMAT", "VERSION", "Stored", "identity_of", "read_file", "write_file"]

FORMAT, VERSION = "sowa.detector", 1
MOST_BYTES, MOST_HEADER, MOST_TENSORS, MOST_NAME = 8 << 30, 64 << 20, 20_000, 200
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""Types a tensor may have, and bytes of one value."""
NAME = re.compile(r"[A-Za-z0-9_]+(?:[.\-][A-Za-z0-9_]+)*")
PARTS = ("trained", "reference", "backbone")
SCORES, PEAKS, MASK, THUMBNAILS = "calibration.scores", "calibration.peaks", "view.mask", "normals.thumbnails"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds."""

    content: Content
    trained: dict[str, Tensor]
    backbone: dict[str, Tensor] | None
    """The backbone's weights, where they are inside."""


def write_file(
    path: Path, content: Content, trained: Mapping[str, Tensor], backbone: Mapping[str, Tensor] | None
) -> None:
    """Whole or not at all."""
    tensors = _tensors(content, trained)
    if backbone is not None:
        tensors |= {f"backbone.{name}": value.detach().cpu().contiguous() for name, value in backbone.items()}
    text = _text(described(content, inside=backbone is not None))
    header = {"format": FORMAT, "version": str(VERSION), "about": text, "sha256": seal(tensors, text)}
    try:
        write_whole(path, save(tensors, metadata=header))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}; choose another place") from None


def identity_of(content: Content, trained: Mapping[str, Tensor]) -> str:
    """ "sha256:" and 16 digits over the whole content, its time too; the same with and without the backbone inside."""
    return f"sha256:{seal(_tensors(content, trained), _text(described(content, inside=False)))[:16]}"


def read_file(path: Path) -> Stored:
    """Read and validate a file; its tensors are copies that do not depend on the file any more."""
    header = _checked_header(path)
    meta = header.pop("__metadata__", None) or {}
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ArtifactError(f"'{path}' is not a fitted detector: give a file written by `sowa fit`")
    version = meta.get("version")
    if not isinstance(version, str) or not version.isdecimal() or not 1 <= int(version[:9]) <= VERSION:
        raise ArtifactError(
            f"'{path}' has format version {str(version)[:20]!r}, this program reads up to {VERSION}: upgrade sowa"
        )
    _check_tensors(path, header)
    tensors = _loaded(path)
    text = meta.get("about")
    if not isinstance(text, str) or seal(tensors, text) != meta.get("sha256"):
        raise ArtifactError(f"'{path}' is damaged: it does not match the hash stored with it; copy it again")
    try:
        return _stored(tensors, _json(text))
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' cannot be used: {error}") from None


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, allow_nan=False)


def _tensors(content: Content, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    scale, mask = content.calibration, content.view.mask
    tensors = {
        SCORES: torch.tensor(scale.scores, dtype=torch.float64),
        PEAKS: torch.tensor(scale.peaks, dtype=torch.float64),
    }
    for part, values in (("trained", trained), ("reference", content.reference)):
        # Cloned: parts of one memory cannot be stored as two tensors.
        tensors |= {f"{part}.{name}": value.detach().cpu().clone().contiguous() for name, value in values.items()}
    if mask is not None:
        tensors[MASK] = torch.from_numpy(mask.astype(np.uint8))
    if content.thumbnails_N64 is not None:
        tensors[THUMBNAILS] = content.thumbnails_N64
    return tensors


# ------------------------------------------------------------------------------------------------------------- reading


def _checked_header(path: Path) -> dict[str, Any]:
    """The header, read with limits before any library sees the file."""
    if not path.is_file():
        raise ArtifactError(f"no detector at '{path}': give a file written by `sowa fit`")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 8 < size <= MOST_BYTES or not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ArtifactError("its header does not fit its size")
            header = _json(file.read(length).decode("utf-8"))
    except (OSError, ValueError, ArtifactError) as error:
        raise ArtifactError(f"'{path}' is damaged or not a fitted detector: {_line(error)}") from None
    if not isinstance(header, dict):
        raise ArtifactError(f"'{path}' is damaged or not a fitted detector")
    return header


def _check_tensors(path: Path, header: Mapping[str, Any]) -> None:
    """Names, types and shapes, and that each tensor has the bytes its shape needs."""
    if len(header) > MOST_TENSORS:
        raise ArtifactError(f"'{path}' declares {len(header)} tensors, at most {MOST_TENSORS} are read")
    for name, entry in header.items():
        if len(name) > MOST_NAME or not NAME.fullmatch(name):
            raise ArtifactError(f"'{path}' has a tensor with the odd name {name[:60]!r}")
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ArtifactError(f"'{path}' is damaged: tensor '{name}' is not described")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in TYPES:
            raise ArtifactError(f"'{path}' has tensor '{name}' of type {str(entry['dtype'])[:20]!r}, not read here")
        if not _is_counts(shape, 8) or not _is_counts(offsets, 2) or len(offsets) != 2:
            raise ArtifactError(f"'{path}' has tensor '{name}' of a shape that cannot be")
        needed = TYPES[entry["dtype"]]
        for side in shape:
            needed *= side
        if needed != offsets[1] - offsets[0]:
            raise ArtifactError(f"'{path}' is damaged: tensor '{name}' has not the bytes its shape needs")


def _is_counts(values: Any, most: int) -> bool:
    if not isinstance(values, list) or len(values) > most:
        return False
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_BYTES for value in values)


def _loaded(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned: else they are windows into a file that somebody may change.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"'{path}' is damaged or not a fitted detector ({_line(error)})") from None


def _stored(tensors: dict[str, Tensor], about: Any) -> Stored:
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ArtifactError(f"tensor '{name}' holds numbers that are not finite")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    rest = {}
    for name, value in tensors.items():
        part, _, own = name.partition(".")
        if part in parts and own:
            parts[part][own] = value
        else:
            rest[name] = value
    if foreign := sorted(rest.keys() - {SCORES, PEAKS, MASK, THUMBNAILS}):
        raise ArtifactError(f"it has the unknown tensor '{foreign[0]}'")
    content, inside = understood(
        about,
        reference=parts["reference"],
        scores=_numbers(rest, SCORES),
        peaks=_numbers(rest, PEAKS),
        mask=_mask(rest.get(MASK)),
        thumbnails=_thumbnails(rest.get(THUMBNAILS)),
    )
    if not parts["reference"] or bool(parts["backbone"]) > inside:
        raise ArtifactError("it lacks its reference, or holds a backbone it does not speak of")
    return Stored(content, parts["trained"], parts["backbone"] if inside else None)


def _numbers(tensors: Mapping[str, Tensor], name: str) -> NDArray[np.float64]:
    value = tensors.get(name)
    if value is None or value.dtype != torch.float64 or value.ndim != 1:
        raise ArtifactError(f"tensor '{name}' is missing or not a list of numbers")
    return value.numpy()


def _mask(value: Tensor | None) -> NDArray[np.bool_] | None:
    if value is None:
        return None
    if value.dtype != torch.uint8 or value.ndim != 2 or max(value.shape) > 4096 or not value.any() or value.max() > 1:
        raise ArtifactError(f"tensor '{MASK}' is no mask")
    return value.numpy().astype(bool)


def _thumbnails(value: Tensor | None) -> Tensor | None:
    if value is not None and (value.dtype != torch.uint8 or value.ndim != 4 or tuple(value.shape[1:]) != (64, 64, 3)):
        raise ArtifactError(f"tensor '{THUMBNAILS}' holds no thumbnails")
    return value


def _json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ArtifactError(f"its description holds the number {word}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its description is not JSON ({_line(error)})") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
