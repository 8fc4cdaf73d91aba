"""Published architectures with drawn weights: complete, and the same for the same seed."""

import pytest
import torch

from sowa.backbones import build_backbone, find_weights
from sowa.errors import SowaError


@pytest.fixture(scope="module")
def tower():
    return build_backbone("clip", model="ViT-B-32", weights="random", image_size=64, seed=3)


def test_a_drawn_clip_encodes_images_and_text(tower):
    tokens = tower.encode_image(torch.zeros(1, 3, 64, 64), tower.default_taps)
    assert len(tokens.levels) == 4 and all(level.isfinite().all() for level in tokens.levels)
    ids = tower.tokenize(["a nut"])
    assert tower.encode_text(tower.embed_tokens(ids), ids).shape == (1, 512)
    assert tower.weights_id == "random:seed=3" and not tower.text_trained


def test_a_drawn_network_says_what_it_is_and_depends_on_its_seed():
    one, same, other = (build_backbone("compact_cnn", weights="random", image_size=64, seed=seed) for seed in (0, 0, 1))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = [net.encode_image(images, net.default_taps).levels[0] for net in (one, same, other)]
    assert torch.equal(levels[0], levels[1]) and not torch.equal(levels[0], levels[2])
    assert levels[0].isfinite().all() and other.weights_id == "random:seed=1"


def test_nothing_is_looked_for_and_nonsense_is_named():
    assert find_weights("clip", weights="random") is None
    with pytest.raises(SowaError, match="open_clip model"):
        build_backbone("clip", model="ViT-Z", weights="random")
