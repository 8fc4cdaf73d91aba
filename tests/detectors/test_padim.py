import pytest
import torch
from safetensors.torch import load, save

from sowa.backbones import build_backbone
from sowa.backbones.pyramid import level_maps
from sowa.detectors import build_detector
from sowa.detectors.padim import Padim
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.types import Support
from tests.conformance import CATEGORY, conform
from tests.detectors.pyramids import SIZE, changed, pyramid
from tests.parity.stand_ins import blank_backbone

TOWERS = {name: build_backbone(name) for name in ("random_tiny_cnn", "random_tiny")}


def padim(**options) -> Padim:
    return Padim(backbone=blank_backbone(SIZE, 4), **options)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("options", [{}, {"channels": 20, "seed": 3}, {"border": "reflect", "taps": [2]}])
def test_exam(tower, options):
    conform(lambda: build_detector("padim", backbone=TOWERS[tower], **options))


def test_one_shot_is_ten_times_the_distance_to_it():
    detector, shot, tokens = padim(), pyramid(1), pyramid(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, shot)
    gap = detector.embed(tokens, reference["channels"]) - detector.embed(shot, reference["channels"])
    torch.testing.assert_close(detector.distances(tokens, reference), 10 * gap.norm(dim=1))


def test_equals_one_dense_covariance_per_place():
    detector, shots, tokens = padim(), pyramid(4), pyramid(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, shots)
    got = detector.distances(tokens, reference)
    support, queries = (detector.embed(one, reference["channels"]).double() for one in (shots, tokens))
    for row, column in ((0, 0), (3, 5), (7, 7)):
        rows = support[:, :, row, column]
        inverse = torch.linalg.inv(torch.cov(rows.T) + 0.01 * torch.eye(rows.shape[1]))
        delta = queries[:, :, row, column] - rows.mean(0)
        want = torch.einsum("bd,de,be->b", delta, inverse, delta).sqrt()
        torch.testing.assert_close(got[:, row, column].double(), want, rtol=1e-5, atol=1e-5)


def test_the_embedding_repeats_coarse_levels_in_the_order_of_the_channels():
    tokens = pyramid(2)
    maps = level_maps(tokens)
    channels = torch.tensor([27, 0, 5, 12])  # of 4 + 8 + 16
    got = padim().embed(tokens, channels)
    assert torch.equal(got[:, 1], maps[0][:, 0])
    assert torch.equal(got[:, 2], maps[1][:, 1].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(got[:, 3], maps[2][:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2))
    assert torch.equal(got[:, 0], maps[2][:, 15].repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_the_mean_has_no_distance_and_a_changed_place_touches_no_other():
    detector, shots = padim(channels=[0, 1, 2, 3]), pyramid(3)
    shots = type(shots).join([shots.rows(slice(0, 1))] * 3)  # then a shot is the mean
    reference = detector.fit_tokens(CATEGORY, shots)
    prediction = detector.score(shots.rows(slice(0, 1)), reference)
    torch.testing.assert_close(prediction.score_map, torch.zeros(1, SIZE, SIZE), atol=1e-5, rtol=0)
    moved = detector.distances(changed(shots.rows(slice(0, 1)), 0, 5, 2), reference)[0]
    assert moved[5, 2] > 10 and (moved > 1e-4).sum() == 1


def test_the_image_score_is_the_largest_value_of_the_smoothed_map():
    detector, tokens = padim(), pyramid(2, seed=1)
    prediction = detector.score(tokens, detector.fit_tokens(CATEGORY, pyramid(3)))
    assert torch.equal(prediction.score, prediction.score_map.flatten(1).amax(dim=1))
    assert prediction.levels.shape == (2, 1, 8, 8)
    assert prediction.score.max() < prediction.levels.amax()


def test_the_channels_are_kept_with_the_reference():
    tokens = pyramid(2, seed=1)
    one, two = padim(channels=9, seed=1), padim(channels=9, seed=2)
    references = [detector.fit_tokens(CATEGORY, pyramid(2)) for detector in (one, two)]
    assert references[0]["channels"].tolist() == one.draw_channels(28).tolist()
    assert references[0]["channels"].tolist() != references[1]["channels"].tolist()
    stored = load(save(references[0]))
    assert torch.equal(two.score(tokens, stored).score, one.score(tokens, references[0]).score)


def test_the_reference_of_one_shot_survives_a_file():
    detector, tokens = padim(), pyramid(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, pyramid(1))
    assert torch.equal(detector.score(tokens, load(save(reference))).score, detector.score(tokens, reference).score)


@pytest.mark.parametrize(("total", "kept"), [(1792, 550), (448, 100), (28, 28), (4096, 550)])
def test_how_many_channels_the_paper_keeps(total, kept):
    channels = padim().draw_channels(total)
    assert len(channels.unique()) == kept and channels.max() < total and (channels.diff() > 0).all()


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (ConfigError, {"eps": 0.0}, "eps=0"),
        (ConfigError, {"channels": 29}, "1..28"),
        (ConfigError, {"channels": [1, 1]}, "0..27"),
        (ConfigError, {"channels": [28]}, "0..27"),
        (UnknownNameError, {"border": "mirror"}, "symmetric"),
    ],
)
def test_errors_are_one_line(kind, options, says):
    with pytest.raises(kind, match=says) as caught:
        padim(**options).fit_tokens(CATEGORY, pyramid(1))
    assert "\n" not in str(caught.value)


def test_without_shots_it_says_so():
    with pytest.raises(NeedsSupportError, match="'nut'"):
        padim().fit(Support("nut", torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)))
