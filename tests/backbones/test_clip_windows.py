import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from sowa.backbones import build_backbone
from sowa.backbones.base import Backbone
from sowa.backbones.clip_windows import TOKENS_AT_ONCE, check_windows, encode_windows, window_index
from sowa.backbones.vit import VitBackbone
from sowa.errors import ConfigError

TINY = build_backbone("random_tiny", image_size=56)


def images(count: int = 2, size: int = 56) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def tiny_vit() -> VitBackbone:
    torch.manual_seed(0)
    visual = VisionTransformer(img_size=56, patch_size=14, embed_dim=32, depth=3, num_heads=2, num_classes=0)
    torch.nn.init.normal_(visual.pos_embed)
    torch.nn.init.normal_(visual.cls_token)
    return VitBackbone(
        name="tiny_vit",
        visual=visual,
        text=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        text_trained=False,
        weights_id="random",
    )


@pytest.mark.parametrize(("side", "count"), [(2, 196), (3, 169), (1, 225), (15, 1)])
def test_number_of_windows_on_the_papers_grid(side, count):
    assert window_index((15, 15), side).shape == (side * side, count)


def test_windows_are_row_major():
    assert window_index((2, 3), 2).T.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]


@pytest.mark.parametrize("backbone", [TINY, tiny_vit()], ids=["clip", "vit"])
def test_the_full_pass_is_the_backbones_own(backbone):
    seen, own = encode_windows(backbone, images(), (2,)), backbone.encode_image(images(), (backbone.depth,))
    torch.testing.assert_close(seen.cls, own.cls)
    norm = backbone.visual.ln_post if backbone is TINY else backbone.visual.norm
    torch.testing.assert_close(seen.patches, norm(own.levels[0]))


@pytest.mark.parametrize("backbone", [TINY, tiny_vit()], ids=["clip", "vit"])
def test_a_window_of_all_patches_is_the_whole_image(backbone):
    seen = encode_windows(backbone, images(), (4,))
    assert seen.windows[0].shape == (2, 1, backbone.joint)
    torch.testing.assert_close(seen.windows[0][:, 0], seen.cls, rtol=1e-4, atol=1e-5)


def test_a_window_equals_attention_that_masks_all_other_patches():
    """Independent route: all tokens pass the tower, none attends to a patch outside the window."""
    visual = TINY.visual
    tokens = visual._embeds(TINY._normalised(images()))
    for number in (0, 4, 8):
        mask = torch.full((17, 17), -torch.inf)
        mask[:, [0, *(1 + window_index((4, 4), 2)[:, number]).tolist()]] = 0
        masked = visual.ln_post(visual.transformer(tokens, attn_mask=mask))[:, 0] @ visual.proj
        got = encode_windows(TINY, images(), (2,)).windows[0][:, number]
        torch.testing.assert_close(got, masked, rtol=1e-4, atol=1e-5)


def test_a_window_does_not_see_other_patches():
    changed = images().clone()
    changed[:, :, 28:, :] = 0
    before, after = (encode_windows(TINY, batch, (2,)).windows[0] for batch in (images(), changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-3)


def test_many_windows_pass_in_parts(monkeypatch):
    whole = encode_windows(TINY, images(3), (2, 3)).windows
    monkeypatch.setattr("sowa.backbones.clip_windows.TOKENS_AT_ONCE", 12)
    for one, other in zip(whole, encode_windows(TINY, images(3), (2, 3)).windows, strict=True):
        torch.testing.assert_close(one, other)
    assert TOKENS_AT_ONCE > 12


def test_no_images():
    seen = encode_windows(TINY, images(0), (2, 3))
    assert seen.cls.shape == (0, 32) and [scale.shape for scale in seen.windows] == [(0, 9, 32), (0, 4, 32)]


@pytest.mark.parametrize("scales", [(0,), (5,), (2, 2.0), (True,)])
def test_windows_that_do_not_fit(scales):
    with pytest.raises(ConfigError, match=r"1\.\.4") as caught:
        check_windows(TINY, scales)
    assert "\n" not in str(caught.value)


def test_a_backbone_without_single_tokens_is_refused():
    shell = Backbone(
        name="shell",
        image_size=8,
        patch=2,
        width=4,
        joint=4,
        depth=1,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        text=None,
        text_trained=False,
        weights_id="none",
    )
    with pytest.raises(ConfigError, match="shell"):
        check_windows(shell, (2,))
