"""Every method at another precision: scores and maps stay near, references cross over, trained tensors stay exact."""

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.detectors import DETECTORS, build_detector
from tests.conformance import CATEGORY, normals, with_defect

OPTIONS = {"inctrl": {"use_text": False}, "promptad": {"epochs": 1}, "sowa": {"text_weight": 0.5}}
CNN = ("spade", "padim", "patchcore")


@pytest.fixture(scope="module", params=DETECTORS)
def pair(request):
    backbone = build_backbone("random_tiny_cnn" if request.param in CNN else "random_tiny")
    exact = build_detector(request.param, backbone=backbone, **OPTIONS.get(request.param, {})).eval()
    return exact, exact.at_precision("bf16")


def seen(detector, reference, images):
    with torch.no_grad():
        return detector(images, reference)


def test_scores_and_maps_are_near_and_references_cross(pair):
    exact, lowered = pair
    assert lowered is not exact and lowered.backbone.precision == "bf16" and exact.backbone.precision == "fp32"
    size = exact.backbone.image_size
    shots, test = normals(size, 3), torch.cat((normals(size, 1, seed=9), with_defect(normals(size, 1, seed=9))))
    reference = exact.fit_tokens(CATEGORY, exact.encode(shots))
    expected = seen(exact, reference, test)
    for own in (reference, lowered.fit_tokens(CATEGORY, lowered.encode(shots))):
        found = seen(lowered, own, test)
        assert found.score.dtype == torch.float32 and found.score.isfinite().all()
        spread = float(expected.score.abs().max())
        assert float((found.score - expected.score).abs().max()) < 0.1 * spread
        if expected.score_map is None:
            continue
        assert found.score_map.dtype == torch.float32
        spread = float(expected.score_map.max() - expected.score_map.min())
        assert float((found.score_map - expected.score_map).abs().mean()) < 0.1 * spread


def test_trained_tensors_are_shared_and_exact(pair):
    exact, lowered = pair
    before, after = exact.trained_state(), lowered.trained_state()
    assert before.keys() == after.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, after[name]) for name, value in before.items())


def test_at_the_precision_it_has_it_is_itself(pair):
    exact, lowered = pair
    assert exact.at_precision("fp32") is exact and lowered.at_precision("bf16") is lowered


def test_sowa_takes_trained_tensors_after_it_was_lowered():
    backbone = build_backbone("random_tiny")
    lowered = build_detector("sowa", backbone=backbone).eval().at_precision("bf16")
    other = build_detector("sowa", backbone=backbone, seed=5).eval()
    size = backbone.image_size
    with torch.no_grad():
        tokens = lowered.encode(normals(size, 1))
        before = lowered.adapt(tokens)[0]
        lowered.load_trained_state(other.trained_state())
        after, expected = lowered.adapt(tokens)[0], other.adapt(other.encode(normals(size, 1)))[0]
    assert float((after - before).abs().max()) > 0.05
    assert float((after - expected).norm() / expected.norm()) < 0.03


def test_methods_without_an_image_token_do_not_ask_for_it():
    backbone = build_backbone("random_tiny")
    for name in ("patchcore", "padim"):
        detector = build_detector(name, backbone=backbone).eval()
        images = normals(backbone.image_size, 3)
        whole, short = backbone.encode_image(images, detector.taps), detector.encode(images)
        assert short.cls.shape[1] == 0
        reference = detector.fit_tokens(CATEGORY, short)
        assert torch.equal(detector.score(short, reference).score, detector.score(whole, reference).score)
