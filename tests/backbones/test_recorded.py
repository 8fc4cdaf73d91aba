"""The CLIP towers against numbers recorded from the papers' own implementations on small random weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sowa.backbones.clip import clip_from_state

RECORDED = Path(__file__).parent / "recorded"
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # the recorded images are already normalised


def _part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def taps():
    return load_file(RECORDED / "clip_taps.safetensors")


@pytest.fixture(scope="module")
def towers():
    return load_file(RECORDED / "clip_towers.safetensors")


@pytest.fixture(scope="module")
def backbone(towers):
    return clip_from_state(_part(towers, "clip."), quick_gelu=True, text_heads=2, **PLAIN)


def _close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("prefix", "quick_gelu"), [("out.gelu", False), ("out.quickgelu", True)])
def test_blocks_are_counted_from_one_and_the_activation_is_the_one_asked_for(taps, prefix, quick_gelu):
    backbone = clip_from_state(_part(taps, "weights."), quick_gelu=quick_gelu, vision_heads=2, **PLAIN)
    tokens = backbone.encode_image(taps["in.images"], (12, 3, 9, 6))
    for tap, level in zip((12, 3, 9, 6), tokens.levels, strict=True):
        _close(level, taps[f"{prefix}.tap.{tap}"][:, 1:])
    _close(tokens.cls, taps[f"{prefix}.global"])


def test_the_two_activations_are_told_apart(taps):
    difference = (taps["out.gelu.tap.12"] - taps["out.quickgelu.tap.12"]).abs().max()
    assert difference > 1e-3, "the recording could not notice a wrong activation"


def test_a_larger_image_resamples_the_positions(taps):
    backbone = clip_from_state(_part(taps, "weights."), quick_gelu=False, vision_heads=2, image_size=98, **PLAIN)
    assert backbone.grid == (7, 7)
    _close(backbone.visual.positional_embedding, taps["out.large.positional_embedding"])
    tokens = backbone.encode_image(taps["in.images_large"], (3, 6, 9, 12))
    for tap, level in zip((3, 6, 9, 12), tokens.levels, strict=True):
        _close(level, taps[f"out.large.gelu.tap.{tap}"][:, 1:])
    _close(tokens.cls, taps["out.large.gelu.global"])


def test_class_token_is_normed_and_projected_but_patches_are_only_projected(backbone, towers):
    tokens = backbone.encode_image(towers["in.images"], backbone.default_taps)
    _close(tokens.cls, towers["out.image_features"])
    for level, tokens_BLD in enumerate(tokens.levels):
        _close(backbone.project(tokens_BLD), towers[f"out.patches.{level}"])


def test_learnt_contexts_pass_through_the_text_tower(backbone, towers):
    for row, state in enumerate(("pos", "neg")):
        ids = towers[f"in.tokenized_{state}"][0]
        embeddings = backbone.embed_tokens(ids)
        context = towers[f"param.prompt_learner.ctx_{state}"][0]
        embeddings[:, 1 : 1 + context.shape[1]] = context
        _close(backbone.encode_text(embeddings, ids)[0], towers["out.text_features"][row])


def test_block_attention_is_the_weights_of_the_tapped_block(backbone, towers):
    attention = backbone.block_attention(3)
    prefix = "clip.visual.transformer.resblocks.2.attn."
    assert torch.equal(attention.in_weight, towers[f"{prefix}in_proj_weight"])
    assert torch.equal(attention.out_weight, towers[f"{prefix}out_proj.weight"])
    assert torch.equal(attention.out_bias, towers[f"{prefix}out_proj.bias"])
    assert attention.heads == 1
