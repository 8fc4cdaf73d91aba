"""State dicts: hashes that ignore form but not content, strict loading, draws that do not depend on order."""

import io
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from sowa.backbones.clip import clip_from_state, clip_state
from sowa.backbones.random_tiny import _shapes
from sowa.backbones.state import draw_state, hash_tensors, load_strictly, read_weights
from sowa.backbones.zoo import BACKBONES
from sowa.errors import WeightsError

PLAIN = {"quick_gelu": True, "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(scope="module")
def state():
    return draw_state(_shapes(BACKBONES["random_tiny"]), seed=5)


@given(names=st.lists(st.sampled_from(["a.weight", "b.bias", "c", "norm.weight"]), unique=True, min_size=1))
@settings(max_examples=20)
def test_a_drawn_tensor_depends_on_its_name_and_the_seed_alone(names):
    shapes = dict.fromkeys(names, (3, 2))
    alone = draw_state({names[-1]: (3, 2)}, seed=7)
    assert torch.equal(draw_state(shapes, seed=7)[names[-1]], alone[names[-1]])
    assert not torch.equal(alone[names[-1]], draw_state({names[-1]: (3, 2)}, seed=8)[names[-1]])


def test_the_hash_ignores_order_and_layout_but_no_value_name_shape_or_type():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.0)}
    mixed = {"b": state["b"], "a": state["a"].T.contiguous().T}
    assert hash_tensors(state) == hash_tensors(mixed)
    changed = state["a"].clone()
    changed[1, 2] += 1e-3
    others = [
        state | {"a": changed},
        {"a": state["a"]},
        {"a": state["a"], "c": state["b"]},
        state | {"a": state["a"].reshape(3, 2)},
        state | {"b": state["b"].double()},
    ]
    assert len({hash_tensors(each) for each in (state, *others)}) == 6


def test_strict_loading_names_the_first_tensor_that_does_not_fit():
    whole = nn.Linear(2, 3).state_dict()
    with torch.device("meta"):
        module = nn.Linear(2, 3)
    with pytest.raises(WeightsError, match="f lacks 'bias'"):
        load_strictly(module, {"weight": whole["weight"]}, source="f")
    with pytest.raises(WeightsError, match="f holds 'extra'"):
        load_strictly(module, whole | {"extra": torch.ones(1)}, source="f")
    with pytest.raises(WeightsError, match=r"'weight' has shape \[3, 3\], expected \[3, 2\]"):
        load_strictly(module, whole | {"weight": torch.ones(3, 3)}, source="f")
    load_strictly(module, whole, source="f")
    assert torch.equal(module.weight, whole["weight"])


def test_weights_read_alike_from_all_file_forms(tmp_path):
    state = {"a.weight": torch.randn(3, 2), "b": torch.randn(4).half()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.pt", "a.ckpt"):
        read = read_weights(tmp_path / name)
        assert hash_tensors(read) == hash_tensors(state)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04 no archive", b"\xff" * 20])
def test_a_file_that_is_neither_form_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pt") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_truncated_safetensors_are_refused(tmp_path):
    whole = save({"a": torch.ones(100)})
    (tmp_path / "a.safetensors").write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="neither whole safetensors"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "state_dict.", "model.", "state_dict.model."])
def test_wrappers_prefixes_halves_and_other_entries_do_not_matter(state, prefix):
    expected = clip_from_state(state, **PLAIN).weights_id
    extra = {"logit_scale": torch.ones(()), "input_resolution": torch.tensor(112)}
    wrapped = {f"{prefix}{name}": tensor for name, tensor in (state | extra).items()}
    assert clip_from_state(wrapped, **PLAIN).weights_id == expected
    own_text_class = {name if name.startswith("visual.") else f"text.{name}": each for name, each in state.items()}
    assert clip_from_state(own_text_class, **PLAIN).weights_id == expected
    assert clip_state({"ln_final.weight": torch.ones(2).half()})["ln_final.weight"].dtype == torch.float32


def test_heads_change_the_numbers_but_not_the_weights(state):
    images = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    one, four = (clip_from_state(state, vision_heads=heads, **PLAIN) for heads in (1, 4))
    assert one.weights_id == four.weights_id
    assert not torch.allclose(one.encode_image(images, (4,)).cls, four.encode_image(images, (4,)).cls, atol=1e-4)


def test_an_odd_hidden_width_survives(state):
    """4.9231 x 1664 truncates to 8191 in the library; the towers' own width must be kept."""
    cut = {}
    for name, tensor in state.items():
        if "mlp.c_fc" in name:
            tensor = tensor[: int(len(tensor) * 0.77)]
        elif "mlp.c_proj.weight" in name:
            tensor = tensor[:, : int(tensor.shape[1] * 0.77)]
        cut[name] = tensor
    assert clip_from_state(cut, **PLAIN).visual.transformer.resblocks[0].mlp.c_fc.out_features == 197


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.proj": None}, "'visual.proj' is missing"),
        ({"visual.transformer.resblocks.2.ln_1.bias": None}, "lacks 'transformer.resblocks.2.ln_1.bias'"),
        ({"visual.positional_embedding": torch.ones(64, 64)}, "not 1 \\+ a square grid"),
        ({"visual.attn_pool.query": torch.ones(3)}, "holds 'attn_pool.query'"),
        ({"text_projection": None}, "'text_projection' is missing"),
        ({"ln_final.weight": torch.ones(3)}, "'ln_final.weight' has shape"),
    ],
)
def test_a_state_that_is_no_clip_is_refused_by_name(state, change, message):
    changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    with pytest.raises(WeightsError, match=message) as caught:
        clip_from_state(changed, source="file.pt", **PLAIN)
    assert "file.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_used_rows_of_the_token_table_are_spread_over_a_table_of_zeros(state):
    rows = torch.tensor([0, 320, 49406, 49407])
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    table = {"token_embedding.rows": rows, "token_embedding.values": values}
    given = {name: tensor for name, tensor in state.items() if name != "token_embedding.weight"} | table
    backbone = clip_from_state(given, text_heads=2, **PLAIN)
    assert torch.equal(backbone.embed_tokens(rows[None])[0], values)
    assert backbone.embed_tokens(torch.tensor([[5]])).abs().sum() == 0
    with pytest.raises(WeightsError, match="vocabulary of 1000"):
        clip_from_state(given, vocab_size=1000, **PLAIN)


def test_a_state_without_text_gives_a_backbone_without_text(state):
    backbone = clip_from_state({name: each for name, each in state.items() if name.startswith("visual.")}, **PLAIN)
    assert (backbone.text_width, backbone.context_length, backbone.text_trained) == (0, 0, False)
    with pytest.raises(Exception, match="without a text tower"):
        backbone.tokenize(["object"])


def test_importing_the_package_loads_no_library():
    code = "import sys, sowa.backbones, sowa.wheels; print({'torch', 'timm', 'open_clip', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_weights_are_unpickled(tmp_path):
    """A pickle in the old torch format (no zip) would execute on loading: it must be refused unread."""
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "old.pt")
