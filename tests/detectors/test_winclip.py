import pytest
import torch
from safetensors.torch import load, save

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.winclip import WinClip, crop_starts, harmonic_map
from sowa.errors import ConfigError, DataError, UnknownNameError
from sowa.types import Support
from tests.backbones.test_clip_windows import tiny_vit
from tests.conformance import CATEGORY, conform, normals, with_defect

TINY = build_backbone("random_tiny", image_size=70)
SIZE = TINY.image_size


def winclip(backbone=TINY, **options) -> WinClip:
    # The words of random weights know nothing of defects: a high temperature keeps them from drowning the windows.
    return build_detector("winclip", backbone=backbone, **{"temperature": 10.0, "text_weight": 0.5} | options).eval()


def support(count: int, seed: int = 0) -> Support:
    return Support(CATEGORY, normals(SIZE, count, seed))


def queries() -> torch.Tensor:
    return torch.cat((normals(SIZE, 2, seed=9), with_defect(normals(SIZE, 2, seed=9))))


@pytest.mark.parametrize(
    "options", [{}, {"anomalib": True}, {"scales": [1, 5], "multi_crop": True}, {"text_weight": "auto"}], ids=str
)
def test_exam(options):
    conform(lambda: winclip(**options))


def test_a_tower_without_words():
    backbone = tiny_vit()
    with pytest.raises(ConfigError, match="text tower"):
        winclip(backbone).fit(support(0))
    reference = winclip(backbone, text_weight=0).fit(Support(CATEGORY, normals(56, 2)))
    clean = normals(56, 2, seed=9)
    prediction = winclip(backbone, text_weight=0)(torch.cat((clean, with_defect(clean))), reference)
    assert (prediction.score[2:] > prediction.score[:2]).all()


def test_harmonic_mean_of_the_windows_over_a_patch():
    got = harmonic_map(torch.tensor([[1.0, 0.75, 0.5, 0.25]]), (3, 3), 2)
    want = [[1, 6 / 7, 3 / 4], [2 / 3, 12 / 25, 3 / 8], [1 / 2, 1 / 3, 1 / 4]]
    torch.testing.assert_close(got[0], torch.tensor(want))


def test_a_window_of_zero_makes_all_its_patches_zero():
    got = harmonic_map(torch.tensor([[0.0, 1.0, 1.0, 1.0]]), (3, 3), 2)
    assert got[0].gt(0).tolist() == [[False, False, True], [False, False, True], [True, True, True]]


def test_images_that_are_the_shots_have_no_distance():
    detector, shots = winclip(), support(3)
    prediction = detector(shots.images, detector.fit(shots))
    torch.testing.assert_close(
        prediction.parts["memory_map"], torch.zeros_like(prediction.score_map), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(prediction.score, prediction.parts["text_score"] / 2, atol=1e-6, rtol=0)


def test_the_order_of_the_shots_does_not_matter():
    detector, shots = winclip(), normals(SIZE, 3)
    one, other = (detector(queries(), detector.fit(Support(CATEGORY, s))).score for s in (shots, shots.flip(0)))
    torch.testing.assert_close(one, other)


def test_a_further_shot_never_makes_the_map_larger():
    detector, shots = winclip(), normals(SIZE, 4)
    maps = [
        detector(queries(), detector.fit(Support(CATEGORY, shots[:k]))).parts["memory_map"].double() for k in (1, 2, 4)
    ]
    assert (maps[0] >= maps[1] - 1e-6).all() and (maps[1] >= maps[2] - 1e-6).all() and (maps[0] > maps[2]).any()


def test_zero_shot_is_the_words_alone():
    detector = winclip(temperature=0.07)
    empty, full = (detector(queries(), detector.fit(support(k))) for k in (0, 2))
    assert torch.equal(empty.score_map, full.parts["text_map"]) and torch.equal(empty.score, full.parts["text_score"])
    assert (empty.score > 0).all() and (empty.score < 1).all()
    torch.testing.assert_close(full.score_map, (full.parts["text_map"] + full.parts["memory_map"]) / 2)
    torch.testing.assert_close(full.score, (full.parts["text_score"] + full.parts["memory_score"]) / 2)


def test_the_map_stays_inside_the_grids_range_and_the_score_is_the_grids_peak():
    detector = winclip(temperature=0.07)
    tokens, reference = detector.encode(queries()), detector.fit(support(2))
    text, visual = detector.text_maps(tokens, reference["prototypes"]), detector.visual_maps(tokens, reference)
    shown = detector.score(tokens, reference).parts
    for grid, pixels in ((text.grid, shown["text_map"]), (visual.grid, shown["memory_map"])):
        low, high = grid.flatten(1).amin(dim=1), grid.flatten(1).amax(dim=1)
        assert (pixels.flatten(1).amin(dim=1) >= low - 1e-6).all() and (
            pixels.flatten(1).amax(dim=1) <= high + 1e-6
        ).all()
    assert torch.equal(shown["memory_score"], visual.grid.flatten(1).amax(dim=1))


def test_each_shot_scores_as_if_it_were_not_in_the_bank():
    detector, shots = winclip(), normals(SIZE, 3)
    own = detector.fit(Support(CATEGORY, shots))["support_scores"]
    for i in range(3):
        others = Support(CATEGORY, torch.cat((shots[:i], shots[i + 1 :])))
        torch.testing.assert_close(own[i], detector(shots[i : i + 1], detector.fit(others)).score[0])


def test_random_words_do_not_vote_once_there_are_shots():
    detector = winclip(text_weight="auto")
    assert set(detector(queries(), detector.fit(support(0))).parts) == {"text_score", "text_map"}
    reference = detector.fit(support(1))
    assert "prototypes" not in reference
    prediction = detector(queries(), reference)
    assert set(prediction.parts) == {"memory_score", "memory_map"}
    assert torch.equal(prediction.score, prediction.parts["memory_score"])


def test_the_weight_moves_the_score_from_support_to_words():
    scores = {}
    for weight in (0, 0.25, 1):
        detector = winclip(text_weight=weight, temperature=0.07)
        scores[weight] = detector(queries(), detector.fit(support(2))).score
    torch.testing.assert_close(scores[0.25], 0.25 * scores[1] + 0.75 * scores[0])


def test_the_librarys_words_are_others():
    names = [winclip(anomalib=anomalib).prototypes("metal_nut") for anomalib in (False, True)]
    assert not torch.allclose(*names, atol=1e-4)
    paper = winclip().prototypes("metal_nut")
    torch.testing.assert_close(paper, winclip().prototypes("metal nut"))
    assert not torch.allclose(paper, winclip(norm_each=False).prototypes("metal_nut"), atol=1e-6)


def test_the_category_changes_the_words_only():
    detector = winclip()
    nut, bolt = (detector(queries(), detector.fit(Support(name, normals(SIZE, 2)))) for name in ("nut", "bolt"))
    assert not torch.equal(nut.parts["text_map"], bolt.parts["text_map"])
    assert torch.equal(nut.parts["memory_map"], bolt.parts["memory_map"])


def test_a_changed_reference_does_not_reach_the_detector():
    detector = winclip()
    detector.fit(support(0))["prototypes"].zero_()
    assert detector.fit(support(0))["prototypes"].norm(dim=1).tolist() == pytest.approx([1, 1])


# ---- crops of images that are not square


@pytest.mark.parametrize(
    ("length", "starts"),
    [(100, [0]), (101, [0, 1]), (150, [0, 50]), (180, [0, 80]), (181, [0, 80, 81]), (260, [0, 80, 160])],
)
def test_crops_cover_the_image_once_each(length, starts):
    assert crop_starts(length, 100) == starts


def test_square_images_have_one_crop():
    one, many = winclip(), winclip(multi_crop=True)
    assert torch.equal(one(queries(), one.fit(support(1))).score, many(queries(), many.fit(support(1))).score)


@pytest.mark.parametrize("upright", [False, True], ids=["landscape", "portrait"])
def test_the_score_is_the_mean_over_the_crops(upright):
    detector = winclip(multi_crop=True, temperature=0.07)
    wide = torch.cat((normals(SIZE, 2), with_defect(normals(SIZE, 2))[..., SIZE // 4 :]), dim=-1)
    wide = wide.transpose(-1, -2) if upright else wide
    reference = detector.fit(support(0))
    prediction = detector(wide, reference)
    starts = crop_starts(SIZE + SIZE - SIZE // 4, SIZE)
    crops = [wide.narrow(-2 if upright else -1, start, SIZE) for start in starts]
    alone = torch.stack([detector(crop, reference).score for crop in crops])
    assert len(starts) == 2
    torch.testing.assert_close(prediction.score, alone.mean(dim=0))
    assert prediction.score_map.shape == (2, SIZE, SIZE)


def test_large_images_are_resampled():
    detector = winclip(multi_crop=True)
    big = normals(SIZE, 1).repeat_interleave(2, dim=-1).repeat_interleave(3, dim=-2)
    assert detector.encode(big).crops.shape == (1, 2, TINY.joint)
    with pytest.raises(DataError):
        winclip().encode(big)


def test_tokens_come_apart_and_together_again():
    detector = winclip(multi_crop=True)
    square, wide = queries()[:2], torch.cat((queries()[2:], queries()[2:, ..., : SIZE // 2]), dim=-1)
    parts = [detector.encode(square), detector.encode(wide)]
    whole = type(parts[0]).join(parts)
    assert whole.crops.shape == (4, 2, TINY.joint)
    reference = detector.fit(support(2))
    got = detector.score(whole, reference)
    want = torch.cat([detector.score(part, reference).score for part in parts])
    torch.testing.assert_close(got.score, want)
    torch.testing.assert_close(detector.score(whole.rows(slice(3, 4)), reference).score, want[3:])
    torch.testing.assert_close(detector.score(whole.rows(slice(1, 2)), reference).score_map, got.score_map[1:2])


# ---- errors


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scales": [2, 6]}, ConfigError, "1..5"),
        ({"scales": []}, ConfigError, "scales"),
        ({"scales": "23"}, ConfigError, "scales"),
        ({"temperature": 0}, ConfigError, "temperature"),
        ({"text_weight": 1.5}, ConfigError, "text_weight"),
        ({"scale": [2]}, UnknownNameError, "scales"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, words):
    with pytest.raises(error) as caught:
        winclip(**options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_trained():
    assert dict(winclip().trainable_parameters()) == {} and winclip().trained_state() == {}
    assert load(save(winclip().trained_state())) == {}
