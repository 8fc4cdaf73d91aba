"""Named open_clip models: the QuickGELU trap, tags, and files that hold another model."""

import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

import sowa.backbones.openclip as openclip
from sowa.backbones import BACKBONES, build_backbone
from sowa.backbones.openclip import choose_tag, hub_place, needs_quick_gelu
from sowa.backbones.random_tiny import _shapes
from sowa.backbones.state import draw_state
from sowa.backbones.zoo import PUBLISHED
from sowa.errors import ConfigError, UnknownNameError, WeightsError

STATE = draw_state(_shapes(BACKBONES["random_tiny"]), seed=9)
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 64, "patch_size": 14, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 1024, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture
def tiny(monkeypatch):
    """A tiny architecture under the names of real ones, so that their tables are used without their size."""
    monkeypatch.setattr(openclip, "plain_config", lambda model: dict(TINY, quick_gelu=model.endswith("quickgelu")))


@pytest.fixture
def weights(tmp_path):
    save_file(STATE, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.mark.parametrize(
    ("model", "tag", "quick"),
    [
        ("ViT-L-14-336-quickgelu", "openai", True),
        ("ViT-L-14-336", "openai", True),  # the name says GELU, the weights say otherwise
        ("ViT-L-14-336", None, True),
        ("ViT-B-32", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-32-quickgelu", "laion400m_e32", True),
        ("ViT-B-32-quickgelu", None, True),
        ("ViT-B-16-plus-240", "laion400m_e31", False),
        ("ViT-B-16-plus-240", None, False),
    ],
)
def test_auto_goes_by_what_the_weights_were_trained_with(model, tag, quick):
    assert needs_quick_gelu("auto", model=model, tag=tag) is quick
    assert needs_quick_gelu("gelu", model=model, tag=tag) is False
    assert needs_quick_gelu("quickgelu", model=model, tag=tag) is True


def test_weights_of_unknown_origin_are_not_guessed_where_both_exist():
    with pytest.raises(ConfigError, match="do not say their activation"):
        needs_quick_gelu("auto", model="ViT-B-32", tag=None)
    assert needs_quick_gelu("auto", model="ViT-B-32", tag=None, scripted=True) is True
    with pytest.raises(ConfigError, match="choose auto, gelu or quickgelu"):
        needs_quick_gelu("relu", model="ViT-B-32", tag="openai")


def test_the_tag_is_openai_s_or_must_be_chosen():
    assert choose_tag("ViT-L-14", None) == "openai"
    assert choose_tag("ViT-B-32-256", None) == "datacomp_s34b_b86k"
    with pytest.raises(ConfigError, match="laion400m_e31"):
        choose_tag("ViT-B-16-plus-240", None)
    with pytest.raises(UnknownNameError, match="openai"):
        choose_tag("ViT-L-14-336", "laion")


@pytest.mark.parametrize("model", ["coca_ViT-B-32", "ViT-L-14-CLIPA", "RN50", "ViT-B-16-SigLIP"])
def test_other_kinds_of_model_are_refused(model):
    with pytest.raises(ConfigError, match="no plain CLIP vision transformer"):
        choose_tag(model, None)


def test_an_unknown_model_is_answered_with_the_known():
    with pytest.raises(UnknownNameError, match="ViT-L-14-336-quickgelu"):
        choose_tag("ViT-L-14-337", None)


def test_the_literal_table_agrees_with_the_library_s():
    for (model, tag), place in PUBLISHED.items():
        assert hub_place(model, tag) == place


@pytest.mark.parametrize("activation", ["auto", "gelu"])
def test_a_file_is_read_with_the_right_activation(tiny, weights, activation):
    backbone = build_backbone("clip", model="ViT-L-14-336", tag="openai", weights=weights, activation=activation)
    layer = backbone.visual.transformer.resblocks[0].mlp.gelu
    text_layer = backbone.text.tower.transformer.resblocks[0].mlp.gelu
    assert isinstance(layer, QuickGELU) is isinstance(text_layer, QuickGELU) is (activation == "auto")
    assert backbone.text_trained and backbone.weights_id.startswith("sha256:")
    assert backbone.block_attention(1).heads == 4, "heads come from the model's settings, not from width // 64"


def test_a_file_takes_another_size_and_the_default_model(tiny, weights):
    backbone = build_backbone("clip", weights=weights, image_size=154)
    assert backbone.grid == (11, 11)
    assert isinstance(backbone.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
    assert build_backbone("clip", weights=weights).grid == (8, 8)


def test_a_torch_archive_and_a_scripted_archive_give_the_same_backbone(tiny, weights, tmp_path):
    torch.save(STATE, tmp_path / "tiny.pt")
    holder = torch.nn.Module()
    for name, tensor in STATE.items():
        *path, last = name.split(".")
        place = holder
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    torch.jit.script(holder).save(tmp_path / "scripted.pt")
    expected = build_backbone("clip", weights=weights).weights_id
    for name in ("tiny.pt", "scripted.pt"):
        # No tag: the scripted form alone says that OpenAI's activation is meant.
        model = "ViT-B-32" if name == "scripted.pt" else "ViT-L-14-336"
        backbone = build_backbone("clip", model=model, weights=tmp_path / name)
        assert backbone.weights_id == expected
        assert isinstance(backbone.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)


def test_another_model_s_weights_are_told_by_their_dimensions(weights):
    with pytest.raises(WeightsError, match="width 64, patch 14 and 4 blocks, 'ViT-B-16' has 768, 16 and 12"):
        build_backbone("clip", model="ViT-B-16", tag="openai", weights=weights)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="holds no CLIP vision transformer"):
        build_backbone("clip", weights=tmp_path / "other.safetensors")


def test_a_wrong_tag_for_a_file_is_refused(tiny, weights):
    with pytest.raises(UnknownNameError, match="choose one of"):
        build_backbone("clip", model="ViT-L-14-336", tag="mine", weights=weights)
