from functools import lru_cache
from types import SimpleNamespace

import pytest
import timm
import torch

from sowa.backbones import build_backbone
from sowa.backbones.cnn import CnnBackbone, cnn_from_state
from sowa.backbones.pyramid import PyramidTokens
from sowa.backbones.state import draw_state
from sowa.errors import ConfigError, DataError, WeightsError

TINY = build_backbone("random_tiny_cnn")
SIZE = TINY.image_size


def images(count: int = 3, size: int = SIZE) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@lru_cache(maxsize=1)
def _weights() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in timm.create_model("resnet18").state_dict().items()}
    state = draw_state({name: shape for name, shape in shapes.items() if shape}, seed=0)
    state |= {name: torch.tensor(7) for name, shape in shapes.items() if not shape}
    return state | {name: 0.5 + state[name].square() for name in shapes if name.endswith("running_var")}


def drawn() -> dict[str, torch.Tensor]:
    """Random weights of a whole ResNet-18, classifier included."""
    return dict(_weights())


def resnet(state: dict[str, torch.Tensor], **options):
    return cnn_from_state(
        state, model="resnet18", image_size=64, mean=(0.4,) * 3, std=(0.2,) * 3, name="cnn", **options
    )


def test_each_tap_is_its_layer():
    """Against the layers called one by one, which also shows that no later one overwrites a map."""
    tokens, visual = TINY.encode_image(images(), [1, 2, 3, 4]), TINY.visual
    pixels = (images().float() / 255 - TINY.mean) / TINY.std
    value = visual.maxpool(visual.act1(visual.bn1(visual.conv1(pixels))))
    for number, layer in enumerate((visual.layer1, visual.layer2, visual.layer3, visual.layer4)):
        value = layer(value)
        side = SIZE // 4 // 2**number
        assert tokens.grids[number] == (side, side)
        torch.testing.assert_close(tokens.levels[number], value.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.cls, value.mean(dim=(2, 3)))
    assert tokens.cls.shape[1] == TINY.joint and tokens.levels[3].shape[-1] == TINY.width


def test_taps_keep_their_order_and_may_repeat():
    tokens = TINY.encode_image(images(), [3, 1, 3])
    assert tokens.grids == ((4, 4), (16, 16), (4, 4)) and tokens.grid == (16, 16)
    assert torch.equal(tokens.levels[0], tokens.levels[2])
    none = TINY.encode_image(images(0), [2])
    assert isinstance(none, PyramidTokens) and none.levels[0].shape == (0, 64, 32)


def test_bytes_and_floats_are_the_same_image():
    whole, floats = (TINY.encode_image(given, [2]) for given in (images(), images() / 255))
    assert torch.equal(whole.levels[0], floats.levels[0]) and torch.equal(whole.cls, floats.cls)


def test_it_is_frozen():
    TINY.train()
    assert not TINY.training and not TINY.visual.bn1.training
    assert not any(parameter.requires_grad for parameter in TINY.parameters())
    assert not any(module._forward_hooks for module in TINY.modules())


def test_the_seed_makes_the_weights():
    other, again = build_backbone("random_tiny_cnn", seed=1), build_backbone("random_tiny_cnn")
    want = TINY.encode_image(images(), [2]).levels[0]
    assert torch.equal(again.encode_image(images(), [2]).levels[0], want)
    assert not torch.equal(other.encode_image(images(), [2]).levels[0], want)
    assert (TINY.weights_id, other.weights_id) == ("random:seed=0", "random:seed=1")
    assert sum(value.numel() for value in TINY.parameters()) < 400_000


def test_a_classifier_is_left_out_and_the_weights_have_one_hash():
    whole = drawn()
    bare = {name: value for name, value in whole.items() if not name.startswith("fc.")}
    ids = {resnet(state).weights_id for state in (whole, bare)}
    assert len(ids) == 1 and ids.pop().startswith("sha256:")


def test_older_files_without_counters_load():
    state = {name: value for name, value in drawn().items() if not name.endswith("num_batches_tracked")}
    want = resnet(drawn()).encode_image(images(1), [3])
    assert torch.equal(resnet(state).encode_image(images(1), [3]).levels[0], want.levels[0])


def test_the_papers_network_has_the_papers_maps():
    """Shapes alone, on the device that computes nothing."""
    with torch.device("meta"):
        state = timm.create_model("wide_resnet50_2").state_dict()
    wide = cnn_from_state(
        state,
        model="wide_resnet50_2",
        image_size=224,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        name="cnn",
        weights_id="none",
    ).to("meta")
    tokens = wide.encode_image(torch.empty(1, 3, 224, 224, device="meta"), [1, 2, 3])
    assert [tuple(level.shape[1:]) for level in tokens.levels] == [(3136, 256), (784, 512), (196, 1024)]
    assert tokens.cls.shape == (1, 2048)


@pytest.mark.parametrize("change", ["missing", "foreign", "misshapen"])
def test_weights_that_do_not_fit(change):
    state = drawn()
    if change == "missing":
        del state["layer2.0.conv1.weight"]
    elif change == "foreign":
        state["layer9.weight"] = torch.zeros(1)
    else:
        state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(WeightsError, match=r"a\.pth") as caught:
        resnet(state, source="a.pth")
    assert "\n" not in str(caught.value)


def test_wrong_use_is_said():
    with pytest.raises(ConfigError, match="64 or 96"):
        build_backbone("random_tiny_cnn", image_size=70)
    with pytest.raises(ConfigError, match="strides"):
        visual = SimpleNamespace(feature_info=[{"reduction": 4}, {"reduction": 8}])
        CnnBackbone(name="cnn", visual=visual, image_size=64, mean=(0,), std=(1,), weights_id="none")
    with pytest.raises(ConfigError, match=r"1\.\.4"):
        TINY.encode_image(images(), [5])
    with pytest.raises(DataError, match="64, 64"):
        TINY.encode_image(images(1, 32), [1])
    for call in (lambda: TINY.project(torch.zeros(1)), lambda: TINY.block_attention(1)):
        with pytest.raises(ConfigError, match=r"convolutional.*choose"):
            call()
    with pytest.raises(ConfigError, match="text tower"):
        TINY.tokenize(["a"])
