"""References that grow: the same entries as learnt at once, also where words have a share."""

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.errors import ConfigError
from sowa.types import Support
from tests.conformance import CATEGORY, normals

ALIKE = {
    "sowa": [{}, {"text_weight": 0.3}, {"text_weight": 1.0}, {"protocol": "paper"}],
    "april_gan": [{}],
    "patchcore": [{}],
    "spade": [{}],
}


@pytest.mark.parametrize(("name", "options"), [(name, each) for name, some in ALIKE.items() for each in some], ids=str)
@pytest.mark.parametrize("first", [1, 2])
def test_in_two_steps_as_at_once(name, options, first):
    detector = build_detector(name, backbone=build_backbone("random_tiny"), **options).eval()
    images = normals(detector.backbone.image_size, 4, seed=5)
    whole = detector.fit(Support(CATEGORY, images))
    begun = detector.fit(Support(CATEGORY, images[:first]))
    longer = detector.extend_tokens(begun, CATEGORY, detector.encode(images[first:]))
    assert longer.keys() == whole.keys()
    for entry, value in whole.items():
        if entry == "support_level" and detector.text_weight > 0:
            continue  # the words' maps of the first step are not known any more
        torch.testing.assert_close(
            longer[entry], value, rtol=1e-4, atol=1e-5, msg=lambda text, entry=entry: f"{entry}: {text}"
        )


def test_the_level_of_words_stays_near():
    detector = build_detector("sowa", backbone=build_backbone("random_tiny"), text_weight=0.5).eval()
    images = normals(detector.backbone.image_size, 4, seed=5)
    begun = detector.fit(Support(CATEGORY, images[:2]))
    longer = detector.extend_tokens(begun, CATEGORY, detector.encode(images[2:]))
    whole = detector.fit(Support(CATEGORY, images))
    torch.testing.assert_close(longer["support_level"], whole["support_level"], rtol=0.05, atol=0)


@pytest.mark.parametrize("name", ["sowa", "april_gan"])
def test_from_nothing(name):
    detector = build_detector(name, backbone=build_backbone("random_tiny")).eval()
    images = normals(detector.backbone.image_size, 2)
    nothing = detector.fit(Support(CATEGORY, images[:0]))
    grown = detector.extend_tokens(nothing, CATEGORY, detector.encode(images))
    whole = detector.fit(Support(CATEGORY, images))
    assert all(torch.equal(grown[entry], value) for entry, value in whole.items())


@pytest.mark.parametrize(
    ("name", "options"),
    [("padim", {}), ("patchcore", {"coreset": 0.5}), ("april_gan", {"text_weight": 0.5}), ("winclip", {})],
)
def test_methods_that_cannot_grow_say_so(name, options):
    detector = build_detector(name, backbone=build_backbone("random_tiny"), **options).eval()
    images = normals(detector.backbone.image_size, 2)
    reference = detector.fit(Support(CATEGORY, images[:1]))
    with pytest.raises(ConfigError, match="fit again"):
        detector.extend_tokens(reference, CATEGORY, detector.encode(images[1:]))
