"""Two towers under one name: who answers what, and SOWA Plus on them."""

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.backbones.pair import PairBackbone
from sowa.detectors import build_detector
from sowa.errors import ConfigError, WeightsError
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals

SIZE = 112


def pair():
    memory = build_backbone("random_tiny", image_size=SIZE, seed=0)
    return PairBackbone(name="pair", memory=memory, language=build_backbone("random_tiny", image_size=56, seed=1))


def test_to_methods_it_is_its_memory_tower():
    both, images = pair(), normals(SIZE, 2)
    alone = both.memory.encode_image(images, (1, 3))
    found = both.encode_image(images, (1, 3))
    assert torch.equal(found.cls, alone.cls) and all(map(torch.equal, found.levels, alone.levels))
    assert torch.equal(both.encode_normed(images, (2,))[0][1], both.memory.encode_normed(images, (2,))[0][1])
    assert both.at_size(56).grid == (4, 4) and both.at_size(56).language is both.language
    with pytest.raises(ConfigError, match="without a text tower"):
        both.tokenize(["a nut"])


def test_the_language_tower_sees_the_image_at_its_own_size():
    both, images = pair(), normals(SIZE, 2)
    found = both.encode_language(images)
    assert found.grid == (4, 4) and found.levels[0].shape[1] == 16
    torch.testing.assert_close(both.encode_language(images.float() / 255).cls, found.cls)
    assert both.weights_id != both.memory.weights_id


@pytest.mark.parametrize("half", [True, False])
def test_exam_of_sowa_plus(half):
    conform(lambda: build_detector("sowa_plus", backbone=pair(), half=half))


def test_words_judge_without_shots_and_do_not_matter_with_them():
    detector = build_detector("sowa_plus", backbone=pair(), half=True)
    alone = build_detector("sowa_plus", backbone=pair().memory, half=True)
    images = normals(SIZE, 3)
    none = detector.fit(Support(CATEGORY, images[:0]))
    assert none.keys() == {"prototypes"}
    said = detector(images, none)
    assert ((said.score > 0) & (said.score < 1)).all() and said.score_map.shape == (3, SIZE, SIZE)
    shots = Support(CATEGORY, images)
    assert torch.equal(detector(images, detector.fit(shots)).score, alone(images, alone.fit(shots)).score)


def test_by_name(tmp_path):
    with pytest.raises(ConfigError, match="two files of weights"):
        build_backbone("clip_dinov2", weights=tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match="ViT-L-14-336"):
        build_backbone("clip_dinov2", cache_dir=tmp_path, offline=True)


@pytest.mark.slow
def test_dry_run_on_random_weights():
    detector = build_detector("sowa_plus", backbone=build_backbone("clip_dinov2", image_size=112, weights="random"))
    none = detector.fit(Support(CATEGORY, normals(112, 0)))
    assert detector(normals(112, 1), none).score.isfinite().all()
    assert detector(normals(112, 1), detector.fit(Support(CATEGORY, normals(112, 2)))).score.isfinite().all()
