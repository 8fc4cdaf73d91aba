"""Backbones at another precision: the same tokens up to rounding, float32 outside, clear words for what cannot be."""

import copy

import pytest
import torch

from sowa.backbones import build_backbone, precision
from sowa.backbones.base import Backbone
from sowa.backbones.clip_value import encode_values
from sowa.backbones.clip_windows import encode_windows
from sowa.backbones.precision import resolve_precision
from sowa.backbones.quick import cast_copy, quick_tower
from sowa.errors import ConfigError, UnknownNameError
from tests.backbones.test_contract import _tiny_vit

CPU = torch.device("cpu")
BUILD = {
    "random_tiny": lambda: build_backbone("random_tiny"),
    "gelu": lambda: build_backbone("random_tiny", activation="gelu"),
    "vit": _tiny_vit,
}


@pytest.fixture(scope="module", params=BUILD)
def backbone(request):
    return BUILD[request.param]()


def images_for(backbone: Backbone, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, backbone.image_size, backbone.image_size), generator=generator).byte()


def quick_fp32(backbone: Backbone) -> Backbone:
    """The quick blocks in float32, which no precision of a user's gives: there the libraries' own are kept."""
    twin = copy.copy(backbone)
    twin.quick = quick_tower(backbone.visual, torch.float32, embedded_by=backbone.visual)
    return twin


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_quick_blocks_in_float32_are_the_library_s(backbone):
    images, taps = images_for(backbone), backbone.default_taps
    quick = quick_fp32(backbone)
    assert quick.quick is not None
    found, expected = quick.encode_image(images, taps), backbone.encode_image(images, taps)
    for one, other in zip((found.cls, *found.levels), (expected.cls, *expected.levels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert gap(one, other) < 1e-5
    normed = zip(quick.encode_normed(images, taps[:2]), backbone.encode_normed(images, taps[:2]), strict=True)
    for (cls, patches), (expected_cls, expected_patches) in normed:
        assert gap(cls, expected_cls) < 1e-5 and gap(patches, expected_patches) < 1e-5


def test_bf16_is_near_and_its_tokens_are_float32(backbone):
    images, taps = images_for(backbone), backbone.default_taps
    lowered = backbone.at_precision("bf16")
    assert (lowered.precision, backbone.precision) == ("bf16", "fp32") and lowered.quick is not None
    found, expected = lowered.encode_image(images, taps), backbone.encode_image(images, taps)
    for one, other in zip((found.cls, *found.levels), (expected.cls, *expected.levels), strict=True):
        assert one.dtype == torch.float32
        assert 0 < gap(one, other) < 0.03
    normed = zip(lowered.encode_normed(images, taps), backbone.encode_normed(images, taps), strict=True)
    assert all(gap(found, expected) < 0.03 for pair in normed for found, expected in zip(*pair, strict=True))
    projected = lowered.project(expected.levels[0])
    assert projected.dtype == torch.float32 and gap(projected, backbone.project(expected.levels[0])) < 0.03


def test_the_original_is_not_touched(backbone):
    images = images_for(backbone, 1)
    before = backbone.encode_image(images, (1,))
    names = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.at_precision("bf16").encode_image(images, (1,))
    assert torch.equal(backbone.encode_image(images, (1,)).cls, before.cls)
    assert all(torch.equal(value, names[name]) for name, value in backbone.state_dict().items())


def test_other_paths_of_a_lowered_tower_are_near(backbone):
    images, lowered = images_for(backbone), backbone.at_precision("bf16")
    found, expected = encode_values(lowered, images, (1, 2)), encode_values(backbone, images, (1, 2))
    assert found.values.dtype == found.cls.dtype == found.levels[0].dtype == torch.float32
    assert gap(found.values, expected.values) < 0.05 and gap(found.levels[1], expected.levels[1]) < 0.03
    found, expected = encode_windows(lowered, images, (2,)), encode_windows(backbone, images, (2,))
    assert found.windows[0].dtype == torch.float32
    assert gap(found.windows[0], expected.windows[0]) < 0.05 and gap(found.patches, expected.patches) < 0.03


def test_another_size_of_a_lowered_tower(backbone):
    size = backbone.image_size // 2 // backbone.patch * backbone.patch
    small, lowered = backbone.at_size(size), backbone.at_precision("bf16").at_size(size)
    assert lowered.precision == "bf16" and lowered.image_size == size
    images = images_for(small)
    found, expected = lowered.encode_image(images, (2,)), small.encode_image(images, (2,))
    assert gap(found.levels[0], expected.levels[0]) < 0.03


def test_without_the_class_token_blocks_after_the_last_tap_are_not_run(backbone):
    images = images_for(backbone)
    for tower in (backbone, backbone.at_precision("bf16")):
        whole, short = tower.encode_image(images, (2, 1)), tower.encode_image(images, (2, 1), cls=False)
        assert short.cls.shape == (2, 0) and short.grid == whole.grid
        for one, other in zip(short.levels, whole.levels, strict=True):
            assert torch.equal(one, other)
    blocks = backbone.visual.blocks if backbone.name == "compact" else backbone.visual.transformer.resblocks
    ran = []
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks, start=1)]
    backbone.encode_image(images, (2, 1), cls=False)
    for handle in handles:
        handle.remove()
    assert ran == [1, 2]


def test_a_convolutional_network_in_bf16():
    backbone = build_backbone("random_tiny_cnn")
    images, lowered = images_for(backbone), backbone.at_precision("bf16")
    found, expected = lowered.encode_image(images, (1, 3)), backbone.encode_image(images, (1, 3))
    assert found.grids == expected.grids and found.levels[0].dtype == torch.float32
    assert gap(found.levels[1], expected.levels[1]) < 0.05 and gap(found.cls, expected.cls) < 0.05
    short = backbone.encode_image(images, (1, 3), cls=False)
    assert short.cls.shape == (2, 0) and torch.equal(short.levels[1], expected.levels[1])


def test_a_block_that_is_not_known_keeps_the_library_s_way():
    for odd in (torch.nn.Tanh(), torch.nn.GELU(approximate="tanh")):
        visual = copy.deepcopy(build_backbone("random_tiny").visual)
        visual.transformer.resblocks[1].mlp.gelu = odd
        assert quick_tower(visual, torch.float32, embedded_by=visual) is None


def test_without_prepared_weights_the_results_are_near(monkeypatch):
    """As on a processor or a torch whose products on prepared weights are not there."""
    backbone = build_backbone("random_tiny")
    images = images_for(backbone)
    prepared = quick_fp32(backbone).encode_image(images, (4,))
    monkeypatch.setattr("sowa.backbones.quick._packs", lambda dtype: False)
    plain = quick_fp32(backbone)
    assert not plain.quick.blocks[0].qkv.packed
    assert gap(plain.encode_image(images, (4,)).levels[0], prepared.levels[0]) < 1e-5
    assert gap(backbone.at_precision("bf16").encode_image(images, (4,)).levels[0], prepared.levels[0]) < 0.03


def test_auto_goes_by_the_processor_and_the_width(monkeypatch):
    monkeypatch.setattr(precision, "native_bf16", lambda: True)
    assert resolve_precision("auto", width=384, device=CPU) == "bf16"
    assert resolve_precision("auto", width=64, device=CPU) == "fp32"
    tiny = build_backbone("random_tiny")
    assert tiny.at_precision("auto") is tiny
    assert build_backbone("random_tiny_cnn").at_precision("auto").precision == "fp32"
    monkeypatch.setattr(precision, "native_bf16", lambda: False)
    assert resolve_precision("auto", width=1024, device=CPU) == "fp32"
    assert resolve_precision("bf16", width=1024, device=CPU) == "bf16"  # asked for, it is given


def test_errors_say_what_to_choose():
    with pytest.raises(UnknownNameError, match="bf16"):
        resolve_precision("double", width=64, device=CPU)
    with pytest.raises(ConfigError, match="GPU"):
        resolve_precision("fp16", width=64, device=CPU)
    lowered = build_backbone("random_tiny").at_precision("bf16")
    assert lowered.at_precision("bf16") is lowered
    with pytest.raises(ConfigError, match="original"):
        lowered.at_precision("fp32")


def test_a_cast_copy_shares_nothing_and_leaves_whole_numbers():
    module = torch.nn.BatchNorm1d(3)
    twin = cast_copy(module, torch.bfloat16)
    assert twin.weight.dtype == twin.running_mean.dtype == torch.bfloat16 and module.weight.dtype == torch.float32
    assert twin.num_batches_tracked.dtype == torch.int64
    with torch.no_grad():
        twin.weight.zero_()
    assert module.weight.sum() == 3
