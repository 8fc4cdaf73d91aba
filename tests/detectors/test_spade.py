import pytest
import torch
from safetensors.torch import load, save

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.spade import Spade, pooled_distance
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals
from tests.detectors.pyramids import SIZE, changed, pyramid
from tests.parity.stand_ins import blank_backbone

TOWERS = {name: build_backbone(name) for name in ("random_tiny_cnn", "random_tiny")}


def spade(**options) -> Spade:
    return Spade(backbone=blank_backbone(SIZE, 4), **options)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("options", [{}, {"image_score": "max_map"}, {"retrieved": 2}, {"taps": [2, 4]}])
def test_exam(tower, options):
    conform(lambda: build_detector("spade", backbone=TOWERS[tower], **options))


def test_an_image_of_the_support_has_no_distance():
    detector, shot = spade(), pyramid(1)
    prediction = detector.score(shot, detector.fit_tokens(CATEGORY, shot))
    assert prediction.score.item() == 0 and not prediction.score_map.any() and not prediction.levels.any()
    assert prediction.parts["map_maximum"].item() == 0


def test_more_shots_are_never_farther():
    detector, shots, tokens = spade(), pyramid(4), pyramid(2, seed=1)
    few, many = (detector.fit_tokens(CATEGORY, shots.rows(slice(k))) for k in (2, 4))
    all_of = [torch.arange(k).expand(2, -1) for k in (2, 4)]
    pairs = zip(detector.distances(tokens, few, all_of[0]), detector.distances(tokens, many, all_of[1]), strict=True)
    for before, after in pairs:
        assert (after <= before).all() and (after < before).any()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_changed_token_lights_its_place(level):
    detector, shot = spade(sigma=0.0), pyramid(1)
    side = 8 >> level
    reference = detector.fit_tokens(CATEGORY, shot)
    prediction = detector.score(changed(shot, level, side - 1, 0), reference)
    row, column = divmod(prediction.score_map[0].argmax().item(), SIZE)
    cell = SIZE // side
    assert row >= SIZE - cell and column < cell
    assert prediction.levels[0, level].max() > 0 and prediction.levels[0].sum(dim=(1, 2)).count_nonzero() == 1


def test_distances_equal_a_loop():
    detector, shots, tokens = spade(retrieved=2), pyramid(5), pyramid(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, shots)
    pooled = pooled_distance(tokens.cls, reference["pooled"])
    _, nearest = detector.retrieve(pooled)
    found = detector.distances(tokens, reference, nearest)
    for i in range(2):
        order = sorted(range(5), key=lambda k, i=i: float((tokens.cls[i] - shots.cls[k]).norm()))[:2]
        assert nearest[i].tolist() == order
        mean = sum(float((tokens.cls[i] - shots.cls[k]).norm()) for k in order) / 2
        assert detector.score(tokens, reference).score[i].item() == pytest.approx(mean, rel=1e-5)
        for level, got in enumerate(found):
            gallery = shots.levels[level][order].flatten(0, 1)
            want = [min(float((token - row).norm()) for row in gallery) for token in tokens.levels[level][i]]
            torch.testing.assert_close(got[i].flatten(), torch.tensor(want))


def test_images_that_retrieve_other_shots_do_not_disturb_each_other():
    detector, shots, tokens = spade(retrieved=1), pyramid(6), pyramid(4, seed=1)
    reference = detector.fit_tokens(CATEGORY, shots)
    whole = detector.score(tokens, reference)
    _, nearest = detector.retrieve(pooled_distance(tokens.cls, reference["pooled"]))
    assert len(nearest.unique()) > 1
    for i in range(4):
        alone = detector.score(tokens.rows(slice(i, i + 1)), reference)
        assert torch.equal(alone.score_map[0], whole.score_map[i])


def test_one_shot_has_the_whole_gallery_of_the_paper():
    tower = build_backbone("random_tiny_cnn", image_size=224)
    reference = build_detector("spade", backbone=tower).fit(Support(CATEGORY, normals(224, 1)))
    assert [reference[f"tokens_{number}"].shape[1] for number in (1, 2, 3)] == [3136, 784, 196]


def test_the_published_gallery_goes_by_columns_and_drops_the_last_rows():
    detector = spade(taps=[1], published_gallery=True)
    shots, tokens = pyramid(2, widths=(4,)), pyramid(1, seed=1, widths=(4,))
    reference = detector.fit_tokens(CATEGORY, shots)
    _, nearest = detector.retrieve(pooled_distance(tokens.cls, reference["pooled"]))
    # 2 * 64 rows lose 28: of the farther shot the last three columns and the lower half of the fifth
    near, far = (shots.levels[0][shot].unflatten(0, (8, 8)) for shot in nearest[0].tolist())
    gallery = torch.cat((near.flatten(0, 1), far[:, :4].flatten(0, 1), far[:4, 4]))
    want = torch.cdist(tokens.levels[0][0].double(), gallery.double()).amin(dim=1)
    got = detector.distances(tokens, reference, nearest)[0].flatten()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    whole = spade(taps=[1]).distances(tokens, reference, nearest)[0].flatten()
    assert (whole < got - 1e-3).any()


def test_a_published_gallery_of_nothing_is_said():
    detector = spade(published_gallery=True)
    with pytest.raises(ConfigError, match="published_gallery=false"):
        detector.score(pyramid(1, seed=1), detector.fit_tokens(CATEGORY, pyramid(2)))


def test_the_reference_survives_a_file():
    detector, tokens = spade(), pyramid(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, pyramid(1))
    assert torch.equal(detector.score(tokens, load(save(reference))).score, detector.score(tokens, reference).score)


def test_errors_are_one_line():
    with pytest.raises(NeedsSupportError, match="'nut'") as caught:
        spade().fit(Support("nut", torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)))
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="max_map"):
        spade(image_score="map_max")
    with pytest.raises(ConfigError, match="retrieved=0"):
        spade(retrieved=0)
