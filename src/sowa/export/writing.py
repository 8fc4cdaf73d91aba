"""Exported files: what they say of themselves, sealed, whole or not at all."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from onnx import ModelProto

from sowa.errors import ConfigError
from sowa.predictor.sessions import MOST_BYTES, PREFIX, openvino_core, with_tail, xml_tail

__all__ = ["KINDS", "check_suffix", "library", "moved", "write_candidate"]

KINDS = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}
"""What can be written, and the files of each: the first is the one that is loaded."""


def check_suffix(kind: str, out: Path) -> None:
    """ConfigError unless the name is one that `Predictor.load` will know."""
    wanted = KINDS[kind][0]
    if out.suffix.lower() != wanted:
        raise ConfigError(f"'{out}' does not end in {wanted}, as a file for {kind} must: give another name")


def library(name: str) -> Any:
    """An optional library; ConfigError where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"export needs {name}, which is not installed: pip install 'sowa[export]'") from None


def write_candidate(kind: str, model: ModelProto, meta: Mapping[str, str], path: Path) -> None:
    """Write the file or files, sealed; `path` has the suffix of the first."""
    if model.ByteSize() > MOST_BYTES - (1 << 20):
        raise ConfigError(
            f"this network has {model.ByteSize() >> 20} MB, a single file holds 2047: export a smaller one"
        )
    if kind == "onnx":
        told = ModelProto()
        told.CopyFrom(model)
        for key, value in meta.items():
            entry = told.metadata_props.add()
            entry.key, entry.value = f"{PREFIX}{key}", value
        path.write_bytes(with_tail(told.SerializeToString()))
        return
    runtime = library("openvino")
    graph = openvino_core(runtime).read_model(model.SerializeToString(), b"")
    for key, value in meta.items():
        graph.set_rt_info(value, [PREFIX.rstrip("."), key])
    weights = path.with_suffix(".bin")
    runtime.serialize(graph, path, weights)
    graph.set_rt_info(hashlib.sha256(weights.read_bytes()).hexdigest(), [PREFIX.rstrip("."), "weights_sha256"])
    runtime.serialize(graph, path, weights)
    body = path.read_bytes()
    path.write_bytes(body + xml_tail(body))


def moved(candidate: Path, out: Path, suffixes: Sequence[str]) -> list[Path]:
    """The checked files in their place; the one that is loaded comes last, so that it never stands alone."""
    places = []
    for suffix in reversed(suffixes):
        place = out.with_suffix(suffix) if suffix != suffixes[0] else out
        with candidate.with_suffix(suffix).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(candidate.with_suffix(suffix), place)
        places.append(place)
    return places[::-1]
