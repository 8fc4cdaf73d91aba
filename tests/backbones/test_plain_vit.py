"""The plain vision transformer is timm's to the last bit, and a text tower may be made late."""

import pickle
import subprocess
import sys

import pytest
import timm
import torch

from sowa.backbones.plain_vit import PLAIN, PlainVit, Shape
from sowa.backbones.state import draw_state
from sowa.backbones.vit import empty_vit, seeded_text_tower


@pytest.mark.parametrize("model", PLAIN)
def test_names_and_shapes_are_timm_s(model):
    with torch.device("meta"):
        theirs = timm.create_model(model, pretrained=False, num_classes=0, img_size=56, init_values=1e-5)
    ours = empty_vit(model, 56)
    shapes = [{name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert theirs.blocks[0].attn.num_heads == PLAIN[model].heads
    assert theirs.norm.eps == ours.norm.eps and theirs.blocks[0].norm1.eps == ours.blocks[0].norm1.eps


@pytest.mark.parametrize("extra", [{}, {"norm": True, "return_prefix_tokens": True}])
@pytest.mark.parametrize("stop", [False, True])
def test_bits_are_timm_s(extra, stop):
    ours = PlainVit(Shape(width=32, depth=3, heads=2), 56).eval()
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=32, depth=3, num_heads=2, num_classes=0, init_values=1e-5
    ).eval()
    state = draw_state({name: tuple(value.shape) for name, value in ours.state_dict().items()}, seed=0)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    asked = {"indices": [0, 1], "output_fmt": "NLC", "intermediates_only": stop, "stop_early": stop} | extra
    with torch.no_grad():
        found, expected = (_flat(one.forward_intermediates(pixels, **asked)) for one in (ours, theirs))
    assert len(found) == len(expected) > 1
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def _flat(found) -> list[torch.Tensor]:
    return [found] if torch.is_tensor(found) else [tensor for part in found for tensor in _flat(part)]


def test_a_late_text_tower_is_made_once_frozen_and_travels():
    late = seeded_text_tower(joint=8, seed=3)
    assert not list(late.parameters()) and (late.width, late.context_length) == (256, 77)
    twin = pickle.loads(pickle.dumps(late))
    ids = late.tokenize(["a cracked cell"])
    features = late.encode(late.embed(ids), ids)
    made = late.tower
    assert (
        late.tower is made and not any(value.requires_grad for value in late.parameters()) and list(late.parameters())
    )
    assert not made.training
    assert torch.equal(twin.encode(twin.embed(ids), ids), features)


def test_the_offline_default_s_modules_load_neither_timm_nor_open_clip():
    modules = "sowa.predictor.predictor, sowa.backbones.compact, sowa.detectors.sowa_plus"
    slow = "('timm', 'open_clip', 'torchvision', 'onnx', 'scipy.stats')"
    code = f"import sys, {modules}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
