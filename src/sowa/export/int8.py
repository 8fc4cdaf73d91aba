"""Eight-bit weights and activations by NNCF, for the tower's own layers alone.

The head measures small differences of large numbers (a residual is the difference of two squared lengths), which eight
bits cannot hold, and has little to gain: its products are few. The first layer, which reads the pixels, stays exact
too, and so do convolutions of one channel each: they are cheap, and more than half of what eight bits changed on real
pictures came from them (docs/EXPORT.md). So does a network beside a transformer (`tower_nodes` does not name it).
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sowa.errors import ConfigError
from sowa.export.onnx_graph import tower_nodes, without_notes
from sowa.export.writing import library
from sowa.predictor.sessions import IMAGES

__all__ = ["quantized"]

SILENT = "NNCF_CI"
"""Its library reports its use to its makers unless this is set when it is first loaded; nothing here calls home."""
SMOOTH = 0.5
"""How much of the unevenness of activations is moved into the weights of a transformer, in equal shares; NNCF's own
0.95 moves nearly all of it, which cost three times as much of the scores' order (docs/EXPORT.md)."""
TALKERS = ("nncf", "torch.utils.cpp_extension")


def quantized(
    model: ModelProto,
    views_N3SS: Sequence[NDArray[np.uint8]],
    *,
    transformer: bool,
    reference: Mapping[str, NDArray[Any]] | None = None,
) -> ModelProto:
    """A model whose tower calculates in int8 on scales seen over the views; `model` with the exporter's notes.
    reference: what else it takes beside pictures."""
    plain, tower = _folded(without_notes(model)), tower_nodes(model)
    if not tower:
        raise ConfigError("nothing was written: the network of this export was not recognised; leave out --int8")
    first = next(node.name for node in plain.graph.node if node.name in tower and node.op_type == "Conv")
    exact = [
        node.name for node in plain.graph.node if node.name not in tower or node.name == first or _is_depthwise(node)
    ]
    with _quiet():
        nncf = library("nncf")
        try:
            found = nncf.quantize(
                plain,
                nncf.Dataset([view[None] for view in views_N3SS], lambda view: {IMAGES: view, **(reference or {})}),
                subset_size=len(views_N3SS),
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                ignored_scope=nncf.IgnoredScope(names=exact, validate=False),
                advanced_parameters=_smoothed(nncf) if transformer else None,
            )
        except Exception as error:  # of any of the classes of three libraries
            reason = " ".join(str(error).split())[:160]
            raise ConfigError(f"nothing was written: int8 is not possible here ({reason})") from None
    return without_notes(found)


def _is_depthwise(node: NodeProto) -> bool:
    return node.op_type == "Conv" and any(one.name == "group" and one.i > 1 for one in node.attribute)


def _smoothed(nncf: Any) -> Any:
    alphas = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH)
    return nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)


def _folded(model: ModelProto) -> ModelProto:
    """In place: what follows from constants alone is stored as a constant; NNCF looks for weights as they stand."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if not node.input or not all(name in known or not name for name in node.input):
            continue
        own = [known[name] for name in node.input if name]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        alone = helper.make_model(helper.make_graph([node], "constant", [], outputs, own))
        del alone.opset_import[:]
        alone.opset_import.extend(model.opset_import)
        for name, value in zip(node.output, ReferenceEvaluator(alone).run(None, {}), strict=True):
            known[name] = numpy_helper.from_array(np.asarray(value), name)
            model.graph.initializer.append(known[name])
        model.graph.node.remove(node)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No reports to anybody, no remarks, no bars; the environment is left as it was."""
    before, loggers = os.environ.get(SILENT), [logging.getLogger(name) for name in TALKERS]
    os.environ[SILENT] = before or "1"
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with redirect_stdout(io.StringIO()):  # bars of progress
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if before is None:
            del os.environ[SILENT]
