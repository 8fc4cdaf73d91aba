"""Products of bytes: the same numbers as plain whole-number arithmetic, near float32, refused where they cannot be."""

import pytest
import torch
import torch.nn.functional as F

from sowa.backbones import build_backbone, precision, quick, quick_int8, ranges
from sowa.backbones.quick_int8 import Ranges, byte_linear, int8_tower, int8_works, measured_ranges
from sowa.backbones.ranges import ranges_bytes, shipped_ranges
from sowa.errors import ConfigError, WeightsError
from tests.backbones.test_contract import _tiny_vit
from tests.backbones.test_precision import gap, images_for

COMPACT = next(iter(ranges.SHIPPED))
BUILD = {
    "quickgelu": lambda: build_backbone("random_tiny"),
    "gelu": lambda: build_backbone("random_tiny", activation="gelu"),
    "vit": _tiny_vit,
}
needs_bytes = pytest.mark.skipif(not int8_works(), reason="this processor or this torch has no products of bytes")


class PlainLinear:
    """What `byte_linear` promises, in float64: sums of whole numbers are exact there."""

    def __init__(self, weight, bias, dtype, *, then="none", given=(1.0, 128), made=(1.0, 0)):
        self.scale = weight.double().abs().amax(dim=1).clamp(min=1e-12) / 127
        self.whole = (weight.double() / self.scale[:, None]).round()
        self.bias, self.dtype, self.then, self.given, self.made = bias.double(), dtype, then, given, made

    def __call__(self, values):
        assert values.dtype == torch.uint8
        sums = (values.double() - self.given[1]) @ self.whole.T
        out = quick.ACTIVATIONS[self.then](sums * self.given[0] * self.scale + self.bias)
        if self.dtype == torch.uint8:
            return (out / self.made[0] + self.made[1]).round().clamp(0, 255).to(torch.uint8)
        return out.to(self.dtype)

    def add_to(self, stream, values):
        return stream.add_(self(values))


@pytest.fixture(scope="module", params=BUILD)
def backbone(request):
    return BUILD[request.param]()


def ranges_for(backbone) -> Ranges:
    return measured_ranges(backbone.visual, backbone._normalised(images_for(backbone, 4)))


@needs_bytes
@pytest.mark.parametrize("then", ["none", "gelu", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_a_product_of_bytes_is_that_of_whole_numbers(then, dtype):
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(0, 256, (70, 96), generator=generator).to(torch.uint8)
    values[0] = 255  # the largest sums
    weight, bias = torch.randn(40, 96, generator=generator), torch.randn(40, generator=generator)
    options = {"then": then, "given": (0.02, 131)} | ({"made": (0.1, 9)} if dtype == torch.uint8 else {})
    found = byte_linear(weight, bias, dtype, **options)(values)
    expected = PlainLinear(weight, bias, dtype, **options)(values)
    assert found.dtype == dtype
    apart = (found.double() - expected.double()).abs()
    if dtype == torch.uint8:
        assert apart.max() <= 1 and (apart > 0).double().mean() < 0.01
    else:
        assert (apart <= expected.double().abs() * (0.01 if dtype == torch.bfloat16 else 1e-4) + 1e-3).all()


@needs_bytes
def test_a_product_of_bytes_is_added_in_place():
    generator = torch.Generator().manual_seed(1)
    values, stream = torch.randint(0, 256, (2, 7, 64), generator=generator).to(torch.uint8), torch.randn(2, 7, 40)
    linear = byte_linear(torch.randn(40, 64, generator=generator), torch.randn(40, generator=generator), torch.float32)
    expected = stream + linear(values)
    assert linear.add_to(stream, values).data_ptr() == stream.data_ptr()
    torch.testing.assert_close(stream, expected)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=needs_bytes)])
def test_blocks_after_a_level_do_not_write_into_it(backbone, precision):
    lowered = backbone._in_bytes(ranges_for(backbone)) if precision == "int8" else backbone.at_precision(precision)
    images, last = images_for(backbone), backbone.depth
    first, alone = (lowered.encode_image(images, taps).levels[0] for taps in ((1, last), (1,)))
    assert last > 1
    torch.testing.assert_close(first, alone, rtol=0, atol=0)


@needs_bytes
def test_the_tower_is_that_of_plain_arithmetic(backbone, monkeypatch):
    own = ranges_for(backbone)
    pixels, last = backbone._normalised(images_for(backbone)), [backbone.depth - 1]
    found = backbone._in_bytes(own).quick.run(pixels, last, to_end=True)[0]
    monkeypatch.setattr(quick_int8, "byte_linear", PlainLinear)
    expected = backbone._in_bytes(own).quick.run(pixels, last, to_end=True)[0]
    assert gap(found, expected) < 0.01


def test_the_algebra_before_rounding_is_exact(backbone, monkeypatch):
    """With a thousand times finer steps, what is left is the library's own forward."""

    class Fine(PlainLinear):
        def __init__(self, weight, *words, **options):
            super().__init__(weight, *words, **options)
            self.whole = weight.double() / self.scale[:, None]

        def __call__(self, values):
            sums = (values.double() - self.given[1]) @ self.whole.T
            out = quick.ACTIVATIONS[self.then](sums * self.given[0] * self.scale + self.bias)
            return out / self.made[0] + self.made[1] if self.dtype == torch.uint8 else out.float()

    monkeypatch.setattr(quick_int8, "byte_linear", Fine)
    monkeypatch.setattr(quick_int8, "int8_works", lambda: True)
    monkeypatch.setattr(quick_int8, "working_dtype", lambda name: torch.float32)
    monkeypatch.setattr(quick_int8, "_bytes", lambda values: values - 0.5)
    tower = int8_tower(backbone.visual, ranges_for(backbone), embedded_by=backbone.visual)
    images = images_for(backbone)
    found = tower.run(backbone._normalised(images), [backbone.depth - 1], to_end=True)[1][0][:, 1:]
    assert gap(found, backbone.encode_image(images, (backbone.depth,)).levels[0]) < 1e-4


@needs_bytes
def test_int8_is_near_and_an_image_s_tokens_are_its_own(backbone):
    images, taps = images_for(backbone, 3), backbone.default_taps
    lowered = backbone._in_bytes(ranges_for(backbone))
    assert lowered.precision == "int8"
    found, expected = lowered.encode_image(images, taps), backbone.encode_image(images, taps)
    for one, other in zip((found.cls, *found.levels), (expected.cls, *expected.levels), strict=True):
        assert one.dtype == torch.float32 and 0 < gap(one, other) < 0.1
    alone = torch.cat([lowered.encode_image(images[i : i + 1], taps).levels[-1] for i in range(3)])
    torch.testing.assert_close(alone, found.levels[-1], rtol=1e-2, atol=1e-2)
    small = lowered.at_size(backbone.image_size // 2 // backbone.patch * backbone.patch)
    assert small.precision == "int8" and small.encode_image(images_for(small), (1,)).levels[0].isfinite().all()


def test_values_beyond_the_measured_range_are_cut_off_and_do_not_wrap():
    assert quick_int8._bytes(torch.tensor([-3.0, 0.4, 128.9, 255.6, 900.0])).tolist() == [0, 0, 128, 255, 255]


def test_refusals_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "native_int8", lambda: True)
    for name in ("random_tiny", "random_tiny_cnn"):
        with pytest.raises(ConfigError, match=r"measure-int8|no products of bytes") as refusal:
            build_backbone(name).at_precision("int8")
        assert "\n" not in str(refusal.value)
    monkeypatch.setattr(precision, "native_int8", lambda: False)
    with pytest.raises(ConfigError, match="VNNI"):
        build_backbone("random_tiny").at_precision("int8")
    monkeypatch.setattr(quick_int8, "int8_works", lambda: False)
    tiny = build_backbone("random_tiny")
    with pytest.raises(ConfigError, match="choose auto"):
        tiny._in_bytes(ranges_for(tiny))


def test_byte_flags_are_read_from_the_system(monkeypatch):
    for flags, there in ((["avx2", "avx_vnni"], True), (["avx2", "avx512f"], False)):
        monkeypatch.setattr(precision, "_flags", lambda flags=flags: flags)
        precision.native_int8.cache_clear()
        assert precision.native_int8() is there
    precision.native_int8.cache_clear()


def test_the_released_ranges_are_whole_and_a_damaged_file_is_named(monkeypatch, tmp_path):
    found = shipped_ranges(f"{COMPACT};text=random:seed=0")
    assert found.attention_norm.shape == (12, 2, 384) and found.hidden.shape == (12, 2, 1536)
    assert all((one[:, 0] <= one[:, 1]).all() for one in found)
    assert shipped_ranges("sha256:other") is None
    monkeypatch.setattr(ranges, "HOME", tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        shipped_ranges(COMPACT)
    (tmp_path / "compact.safetensors").write_bytes(ranges_bytes(found)[:-2])
    with pytest.raises(WeightsError, match="damaged"):
        shipped_ranges(COMPACT)


@pytest.mark.parametrize("most", [1, 3 * 37**2, 6 * 37**2, 2**21])
def test_attention_in_bfloat16_is_attention(monkeypatch, most):
    """Also where keys have much in common, which the softmax does not see and eight bits could not hold."""
    monkeypatch.setattr(quick, "MOST_LOGITS", most)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, 37, 3 * 64, generator=generator)
    qkv[..., 64:128] += 20 * torch.randn(64, generator=generator)
    rounded = qkv.to(torch.bfloat16)
    query, key, value = rounded.double().unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    expected = F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2).flatten(2)
    assert gap(quick.attended(rounded, 4).double(), expected) < 0.02


@pytest.mark.weights
@needs_bytes
def test_the_offline_backbone_in_int8():
    backbone = build_backbone("compact")
    lowered, images = backbone.at_precision("int8"), images_for(backbone)
    found, expected = lowered.encode_image(images, (6, 12)), backbone.encode_image(images, (6, 12))
    assert gap(found.levels[0], expected.levels[0]) < 0.2 and lowered.weights_id == backbone.weights_id
