"""What every backbone promises, asked of each kind with drawn weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.backbones import build_backbone
from sowa.backbones.base import spread_taps
from sowa.backbones.state import draw_state
from sowa.backbones.vit import empty_vit, vit_from_state
from sowa.errors import ConfigError, DataError, SowaError, UnknownNameError

torch.set_num_threads(1)


def _tiny_vit():
    model = "vit_small_patch14_dinov2"
    network = empty_vit(model, 56)
    state = draw_state({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, seed=1)
    means = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.25, 0.3)}
    return vit_from_state(
        state, model=model, image_size=56, seed=0, name="compact", default_taps=(3, 6, 9, 12), **means
    )


@pytest.fixture(scope="module", params=["random_tiny", "vit"])
def backbone(request):
    return build_backbone("random_tiny") if request.param == "random_tiny" else _tiny_vit()


@pytest.fixture(scope="module")
def images(backbone):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, backbone.image_size, backbone.image_size), generator=generator).byte()


def test_shapes_are_those_announced(backbone, images):
    tokens = backbone.encode_image(images, backbone.default_taps)
    count = backbone.grid[0] * backbone.grid[1]
    assert tokens.grid == backbone.grid == (backbone.image_size // backbone.patch,) * 2
    assert tokens.cls.shape == (3, backbone.joint)
    assert [level.shape for level in tokens.levels] == [(3, count, backbone.width)] * 4
    assert backbone.project(tokens.levels[0]).shape == (3, count, backbone.joint)


def test_levels_follow_the_order_of_the_taps(backbone, images):
    taps = backbone.default_taps
    forward = backbone.encode_image(images, taps).levels
    shuffled = backbone.encode_image(images, (taps[2], taps[0], taps[2])).levels
    for found, expected in zip(shuffled, (forward[2], forward[0], forward[2]), strict=True):
        assert torch.equal(found, expected)


def test_a_tap_reads_what_the_next_block_is_fed(backbone, images):
    blocks = backbone.visual.blocks if backbone.name == "compact" else backbone.visual.transformer.resblocks
    first, second = backbone.default_taps[0], backbone.default_taps[0] + 1
    levels = backbone.encode_image(images, (first, second)).levels
    hidden, cls = [], torch.zeros(0)
    handle = blocks[second - 1].register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].clone()))
    backbone.encode_image(images, ())
    handle.remove()
    cls = hidden[0][:, :1]
    torch.testing.assert_close(levels[0], hidden[0][:, 1:])
    torch.testing.assert_close(levels[1], blocks[second - 1](torch.cat([cls, levels[0]], 1))[:, 1:])


def test_bytes_and_floats_are_the_same_pixels(backbone, images):
    from_bytes, from_floats = (backbone.encode_image(each, (1,)) for each in (images, images.float() / 255))
    assert torch.equal(from_bytes.cls, from_floats.cls)
    assert torch.equal(from_bytes.levels[0], from_floats.levels[0])


def test_the_backbone_owns_mean_and_standard_deviation(backbone, images):
    pixels = backbone._normalised(images)
    expected = (images[0, 1, 2, 3] / 255 - backbone.mean[1, 0, 0]) / backbone.std[1, 0, 0]
    torch.testing.assert_close(pixels[0, 1, 2, 3], expected)
    assert not any(name.split(".")[-1] in ("mean", "std") for name in backbone.state_dict())


def test_an_image_does_not_see_its_batch(backbone, images):
    whole, alone = (backbone.encode_image(each, backbone.default_taps) for each in (images, images[1:2]))
    torch.testing.assert_close(whole.cls[1:2], alone.cls, atol=2e-5, rtol=1e-5)
    for level, expected in zip(whole.levels, alone.levels, strict=True):
        torch.testing.assert_close(level[1:2], expected, atol=2e-5, rtol=1e-5)


def test_inputs_are_left_alone(backbone, images):
    pixels = images.float() / 255
    before = pixels.clone()
    backbone.encode_image(pixels, (1,))
    assert torch.equal(pixels, before)


def test_an_empty_batch_gives_empty_tokens(backbone, images):
    tokens = backbone.encode_image(images[:0], (1, 2))
    count = backbone.grid[0] * backbone.grid[1]
    assert tokens.cls.shape == (0, backbone.joint)
    assert [level.shape for level in tokens.levels] == [(0, count, backbone.width)] * 2


def test_nothing_can_be_trained_and_modes_do_not_change(backbone, images):
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    holder = torch.nn.Sequential(torch.nn.Dropout(), backbone).train()
    assert holder[0].training
    assert not any(module.training for module in backbone.modules())
    assert not backbone.encode_image(images, (1,)).levels[0].requires_grad


def test_no_hook_and_no_activation_stays_behind(backbone, images):
    before = {name: set(vars(module)) for name, module in backbone.named_modules()}
    backbone.encode_image(images, backbone.default_taps)
    assert before == {name: set(vars(module)) for name, module in backbone.named_modules()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())


def test_no_tensor_is_left_on_the_meta_device(backbone):
    assert not [name for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()] if tensor.is_meta]


def test_gradients_reach_prompt_embeddings_and_nothing_else(backbone):
    ids = backbone.tokenize(["object.", "damaged object."])
    embeddings = backbone.embed_tokens(ids).requires_grad_()
    features = backbone.encode_text(embeddings, ids)
    assert features.shape == (2, backbone.joint)
    features.square().sum().backward()
    ends = ids.argmax(-1)
    assert embeddings.grad[0, 1].abs().sum() > 0
    assert embeddings.grad[0, ends[0] + 1 :].abs().sum() == 0, "text after the end must not matter: the mask is causal"
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_token_ids_are_clip_s(backbone):
    ids = backbone.tokenize(["a photo of a cat"])
    assert ids.dtype == torch.int64
    assert ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert ids.shape == (1, backbone.context_length)


def test_different_prompts_have_different_features(backbone):
    ids = backbone.tokenize(["object.", "damaged object."])
    features = backbone.encode_text(backbone.embed_tokens(ids), ids)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_a_prompt_too_long_is_refused_not_cut(backbone):
    with pytest.raises(ConfigError, match=r"102 tokens, at most 77 fit") as caught:
        backbone.tokenize(["cat " * 100])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tap", [0, -1, 13, 1.0, True, "3"])
def test_a_tap_that_is_not_there_is_refused(backbone, images, tap):
    with pytest.raises(ConfigError, match=f"choose from 1..{backbone.depth}"):
        backbone.encode_image(images, (1, tap))
    with pytest.raises(ConfigError):
        backbone.block_attention(tap)


def test_images_of_another_size_or_type_are_refused(backbone, images):
    side = backbone.image_size
    for wrong in (images[:, :, :-1], images[0], images[:, :1], torch.zeros(1, 3, side + 14, side + 14)):
        with pytest.raises(DataError, match=f"it takes .B, 3, {side}, {side}."):
            backbone.encode_image(wrong, (1,))
    with pytest.raises(DataError, match=r"uint8 in 0\.\.255 or float in 0\.\.1"):
        backbone.encode_image(images.long(), (1,))


def test_block_attention_shares_the_backbone_s_memory(backbone):
    attention = backbone.block_attention(backbone.depth)
    shared = {parameter.data_ptr() for parameter in backbone.parameters()}
    assert {attention.in_weight.data_ptr(), attention.out_weight.data_ptr(), attention.out_bias.data_ptr()} <= shared
    assert attention.in_weight.shape == (3 * backbone.width, backbone.width)
    assert backbone.width % attention.heads == 0


def test_half_precision_runs(backbone, images):
    import copy

    half = copy.deepcopy(backbone).to(torch.bfloat16)
    level = half.encode_image(images, (1,)).levels[0]
    exact = backbone.encode_image(images, (1,)).levels[0]
    assert level.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(level.float(), exact, dim=-1).mean() > 0.99


@given(depth=st.integers(1, 60))
@settings(max_examples=60)
def test_default_taps_end_with_the_last_block(depth):
    taps = spread_taps(depth)
    assert taps[-1] == depth and taps[0] >= 1
    assert len(taps) == min(depth, 4) and list(taps) == sorted(set(taps))


def test_default_taps_of_the_paper():
    assert spread_taps(24) == (6, 12, 18, 24)
    assert spread_taps(12) == (3, 6, 9, 12)


def test_random_tiny_is_small_fixed_by_its_seed_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (build_backbone("random_tiny", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert sum(parameter.numel() for parameter in first.parameters()) < 500_000
    assert (first.weights_id, other.weights_id) == ("random:seed=3", "random:seed=4")
    assert not first.text_trained
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert not torch.equal(tensor, other.state_dict()[name])


def test_random_tiny_does_not_change_between_releases():
    level = build_backbone("random_tiny").encode_image(torch.zeros(1, 3, 112, 112), (4,)).levels[0]
    recorded = torch.tensor(RECORDED_TOKEN)
    torch.testing.assert_close(level[0, 0, :4], recorded, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [56, 140])
def test_random_tiny_takes_any_multiple_of_its_patch(size):
    backbone = build_backbone("random_tiny", image_size=size)
    assert backbone.encode_image(torch.zeros(1, 3, size, size), (1,)).levels[0].shape[1] == (size // 14) ** 2


@pytest.mark.parametrize("size", [100, 13, 0, -14, 112.0, True])
def test_a_size_that_cannot_be_cut_into_patches_is_refused(size):
    with pytest.raises(ConfigError, match="image_size"):
        build_backbone("random_tiny", image_size=size)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"clip, .*compact, .*random_tiny"):
        build_backbone("resnet")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random_tiny", {"weights": "a.safetensors"}),
        ("random_tiny", {"model": "ViT-B-32"}),
        ("random_tiny", {"activation": "relu"}),
        ("compact", {"model": "vit_base"}),
        ("compact", {"activation": "quickgelu"}),
        ("compact", {"tag": "nowhere"}),
    ],
)
def test_options_that_mean_nothing_are_refused(name, options):
    with pytest.raises(SowaError) as caught:
        build_backbone(name, **options)
    assert "\n" not in str(caught.value)


RECORDED_TOKEN = [-1.40399, -0.63429, -0.54413, -1.61065]


def test_what_stands_behind_the_end_of_a_text_does_not_matter(backbone):
    """Nobody looks ahead in a causal tower, so those places need not be computed."""
    ids = backbone.tokenize(["a part", "a photo of a damaged part"])
    embeddings = backbone.embed_tokens(ids)
    ends = ids.argmax(dim=-1)
    behind = torch.arange(ids.shape[1])[None, :, None] > ends[:, None, None]
    other = torch.where(behind.to(embeddings.device), embeddings + 3.0, embeddings)
    want = backbone.encode_text(embeddings, ids)
    torch.testing.assert_close(backbone.encode_text(other, ids), want)
    alone = torch.cat([backbone.encode_text(embeddings[i : i + 1], ids[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(alone, want)
