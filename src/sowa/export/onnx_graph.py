"""A detector's graph as an ONNX model: dynamic batch, no operators but the standard's, nothing outside of the file."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnx import ModelProto

from sowa.errors import ConfigError
from sowa.export.graphs import DetectorGraph, OpenGraph
from sowa.predictor.sessions import IMAGES, REFERENCE

__all__ = ["OPSET", "onnx_model", "tower_nodes", "without_notes"]

OPSET = 18
"""Read by onnxruntime from 1.14 on."""
SCOPES = "pkg.torch.onnx.name_scopes"
TOWER, BESIDE = re.compile(r"'tower'"), re.compile(r"\bnetwork\b")


def onnx_model(graph: DetectorGraph | OpenGraph, image_size: int) -> ModelProto:
    """The traced graph; ConfigError where the method asks for something that no file can hold.

    Its nodes still carry the exporter's notes, which `tower_nodes` reads and `without_notes` removes.
    """
    two = torch.randint(0, 256, (2, 3, image_size, image_size), dtype=torch.uint8, generator=torch.Generator())
    named = {f"{REFERENCE}{name}": value for name, value in getattr(graph, "reference", {}).items()}
    with torch.no_grad(), _quiet():
        # Tables that the code keeps once they were needed must be made of numbers, not of the tracer's stand-ins.
        graph(two, *named.values())
        try:
            program = torch.onnx.export(
                graph,
                (two, *named.values()),
                dynamo=True,
                dynamic_shapes=_sizes(graph),
                input_names=[IMAGES, *named],
                output_names=list(graph.outputs),
                opset_version=OPSET,
                verbose=False,
                external_data=False,
            )
        except ImportError as error:
            raise ConfigError(
                f"export needs {error.name}, which is not installed: pip install 'sowa[export]'"
            ) from None
        except Exception as error:  # the tracer says "not like this" in many classes
            reason = " ".join(str(error).split())[:160]
            raise ConfigError(f"this method with these options cannot be exported ({reason})") from None
    return _checked(program.model_proto)


def _sizes(graph: DetectorGraph | OpenGraph) -> tuple[Any, ...]:
    """Which sides of the inputs may have any size; entries of the same level share theirs in PaDiM alone."""
    batch = {0: torch.export.Dim("batch", min=1)}
    if isinstance(graph, DetectorGraph):
        return (batch,)
    shared = {"axes": "directions", "variance": "directions"}
    dims = {name: torch.export.Dim(f"any_{name}") for name in {*graph.inputs, "directions"}}
    sizes = [{side: dims[shared.get(name, name)] for side in asked.least} for name, asked in graph.inputs.items()]
    return batch, tuple(sizes)


def tower_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes between pixels and tokens, by the exporter's notes; without those of a network beside a
    transformer, a small part of the work."""
    return {
        node.name
        for node in model.graph.node
        if any(
            note.key == SCOPES and TOWER.search(note.value) and not BESIDE.search(note.value)
            for note in node.metadata_props
        )
    }


def without_notes(model: ModelProto) -> ModelProto:
    """A copy without the exporter's notes, which name files of the machine it ran on."""
    plain = ModelProto()
    plain.CopyFrom(model)
    plain.producer_name, plain.producer_version = "sowa", ""
    for one in (plain, plain.graph):
        del one.metadata_props[:]
        one.doc_string = ""
    for node in plain.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in _values(plain.graph):
        del value.metadata_props[:]
        value.doc_string = ""
    return plain


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto | onnx.TensorProto]:
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)


def _checked(model: ModelProto) -> ModelProto:
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    if not isinstance(sides[0], str) or model.functions:
        raise ConfigError("this method cannot be exported for any number of pictures at a time")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracer's remarks are for those who write it."""
    loggers: Sequence[logging.Logger] = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
