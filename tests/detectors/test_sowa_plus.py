"""SOWA Plus: the exam, all sizes, one shot, many shots, and adding to what was learnt."""

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.plus_scores import level_score
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect

SIZE = 112


def build(**options):
    return build_detector("sowa_plus", backbone=build_backbone("random_tiny", image_size=SIZE), **options).eval()


def fitted(detector, count, seed=0):
    return detector.fit(Support(CATEGORY, normals(SIZE, count, seed)))


@pytest.mark.parametrize("options", [{}, {"half": True}, {"half": True, "quarter": True}], ids=str)
def test_exam(options):
    conform(lambda: build(**options))


def test_tokens_of_both_sizes_and_nothing_run_twice_over():
    detector = build(half=True)
    tokens = detector.encode(normals(SIZE, 2))
    side = detector.backbone.grid[0]
    assert tokens.grids == ((side, side),) * 2 + ((side // 2, side // 2),) * 2
    assert [level.shape[1] for level in tokens.levels] == [side**2] * 2 + [(side // 2) ** 2] * 2
    assert tokens.cls.shape == (2, 2 * detector.backbone.width)
    assert detector.sizes == 2 and build().sizes == 1  # too coarse a grid to be halved by itself


def test_the_quarter_is_a_third_look_and_the_global_term_stays_with_the_half():
    two, three = build(half=True), build(half=True, quarter=True)
    images = normals(SIZE, 2)
    tokens, before = three.encode(images), two.encode(images)
    side = three.backbone.grid[0]
    assert tokens.grids == (*before.grids, (side // 4, side // 4), (side // 4, side // 4))
    assert torch.equal(tokens.cls, before.cls)
    assert all(torch.equal(a, b) for a, b in zip(before.levels, tokens.levels, strict=False))
    assert two.level_weights == [0.5] * 4 and three.level_weights == [0.5] * 4 + [0.25] * 2


def test_the_quarters_weight_is_its_weight_in_the_score():
    """Linear: 0 gives the score of two looks, and twice the weight twice the difference."""
    images, test = normals(SIZE, 3), with_defect(normals(SIZE, 2, seed=9))
    none = build(half=True)(test, fitted(build(half=True), 3)).score
    scores = []
    for weight in (0, 0.5, 1.0):
        detector = build(half=True, quarter=True, quarter_weight=weight)
        scores.append(detector(test, detector.fit(Support(CATEGORY, images))).score)
    torch.testing.assert_close(scores[0], none)
    torch.testing.assert_close(scores[2] - none, 2 * (scores[1] - none))


@pytest.mark.parametrize("rows, sizes", [(26, 1), (28, 3), (32, 3)])
def test_smaller_looks_are_taken_where_their_grid_is_fine_enough(rows, sizes):
    backbone = build_backbone("random_tiny", image_size=rows * 14)
    assert build_detector("sowa_plus", backbone=backbone).sizes == sizes
    assert build_detector("sowa_plus", backbone=backbone, quarter=False).sizes == min(2, sizes)
    assert build_detector("sowa_plus", backbone=backbone, half=False).sizes == 1


def test_the_small_tower_shares_its_weights_and_is_listed_once():
    detector = build(half=True)
    assert sum(1 for _ in detector.parameters()) == sum(1 for _ in build(half=False).parameters())
    small, full = detector.smaller[0].visual, detector.backbone.visual
    assert small.conv1.weight is full.conv1.weight
    assert small.positional_embedding.shape != full.positional_embedding.shape


def test_normed_tokens_are_those_of_the_whole_tower():
    backbone = build_backbone("random_tiny", image_size=SIZE)
    images = normals(SIZE, 2)
    depth = backbone.depth
    (cls, patches), (_, last) = backbone.encode_normed(images, [2, depth])
    raw = backbone.encode_image(images, [2, depth])
    norm = backbone.visual.ln_post
    torch.testing.assert_close(patches, norm(raw.levels[0]))
    torch.testing.assert_close(last, norm(raw.levels[1]))
    assert cls.shape == (2, backbone.width)
    assert backbone.encode_normed(images[:0], [2])[0][1].shape[0] == 0


@pytest.mark.parametrize("count", [1, 2, 4, 8, 20])
def test_any_number_of_shots_is_sane(count):
    detector = build(half=True)
    reference = fitted(detector, count)
    scores = reference["support_scores"]
    assert len(scores) == (4 if count == 1 else count) and scores.isfinite().all()
    assert reference["support_level"] > 0
    good = detector(normals(SIZE, 6, seed=50), reference).score
    bad = detector(with_defect(normals(SIZE, 6, seed=50)), reference).score
    assert bad.min() > good.max() if count > 1 else bad.mean() > good.mean() + good.std()


def test_shots_left_out_in_turn_score_like_new_good_images():
    detector = build(half=True)
    reference = fitted(detector, 8)
    new = detector(normals(SIZE, 8, seed=77), reference).score
    assert abs(new.median() - reference["support_scores"].median()) < 1.5


def test_many_shots_are_left_out_in_groups_and_stay_small():
    detector = build()
    reference = fitted(detector, 70)
    assert len(reference["support_scores"]) == 70 and len(reference["global"]) == 64
    assert sum(value.numel() * value.element_size() for value in reference.values()) < 1_000_000


def test_five_hundred_normals_are_learnt_in_bounded_memory_and_judge():
    detector = build()
    few = detector.encode(normals(SIZE, 20))
    g = torch.Generator().manual_seed(0)
    many = type(few).join([few] * 25)
    levels = tuple(level + 0.02 * torch.randn(level.shape, generator=g) for level in many.levels)
    reference = detector.fit_tokens(CATEGORY, type(few)(many.cls, levels, many.grid, many.grids))
    assert len(reference["support_scores"]) == 500 and reference["support_scores"].isfinite().all()
    assert sum(value.numel() * value.element_size() for value in reference.values()) < 1_000_000
    good = detector(normals(SIZE, 4, seed=50), reference).score
    assert detector(with_defect(normals(SIZE, 4, seed=50)), reference).score.min() > good.max()


@pytest.mark.parametrize("memory", ["nearest", "coreset"])
def test_exam_of_the_other_memories(memory):
    conform(lambda: build(half=True, memory=memory))


def test_a_bank_grows_as_if_all_had_been_learnt_at_once():
    detector = build(memory="nearest", head="none")
    images = normals(SIZE, 5)
    grown = detector.extend_tokens(detector.fit(Support(CATEGORY, images[:3])), CATEGORY, detector.encode(images[3:]))
    whole = detector.fit(Support(CATEGORY, images))
    assert torch.equal(grown["bank_0"], whole["bank_0"])


def test_the_wide_share_sees_what_is_a_little_unusual_everywhere():
    """The same excess over many tokens counts more with it, and a level's score is the mean of both shares."""
    shares = build(half=True, wide_fraction=0.5).fractions
    distance = torch.zeros(1, 100)
    distance[0, :50] = 1.0
    assert level_score(distance, shares)[0] == 1.0
    distance[0, 1:] = 0
    assert level_score(distance, shares)[0] == pytest.approx((1 + 0.02) / 2)
    assert level_score(distance, build(wide_fraction=0).fractions)[0] == 1.0


def test_adding_normals_comes_near_to_learning_all_at_once():
    detector = build(half=True)
    images = normals(SIZE, 6)
    tokens = detector.encode(images)
    first = detector.fit_tokens(CATEGORY, tokens.rows(slice(0, 4)))
    before = {name: value.clone() for name, value in first.items()}
    grown = detector.extend_tokens(first, CATEGORY, tokens.rows(slice(4, 6)))
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert len(grown["support_scores"]) == 6
    whole = detector.fit_tokens(CATEGORY, tokens)
    test = torch.cat((normals(SIZE, 4, seed=9), with_defect(normals(SIZE, 4, seed=9))))
    a, b = detector(test, grown).score, detector(test, whole).score
    assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.97
    assert a[4:].min() > a[:4].max()


def test_an_unknown_memory_is_refused_with_those_there_are():
    with pytest.raises(UnknownNameError, match="coreset, nearest, subspace"):
        build(memory="forest")


def test_no_shots_and_nonsense_are_refused():
    with pytest.raises(NeedsSupportError, match="one shot or more"):
        fitted(build(), 0)
    for options in (
        {"explained": 1.0},
        {"fraction": 0},
        {"floor": 0},
        {"global_weight": -1},
        {"taps": []},
        {"wide_fraction": 2},
        {"quarter_weight": -1},
        {"quarter": True},
        {"half": True, "quarter": "always"},
        {"half": "sometimes"},
    ):
        with pytest.raises(ConfigError):
            build(**options)
    with pytest.raises(ConfigError, match="transformer"):
        detector = build_detector("sowa_plus", backbone=build_backbone("random_tiny_cnn", image_size=64), half=False)
        detector.encode(torch.zeros(1, 3, 64, 64))


def test_the_map_is_highest_on_the_paint():
    detector = build(half=True)
    painted = with_defect(normals(SIZE, 1, seed=3))
    score_map = detector(painted, fitted(detector, 4)).score_map[0]
    y, x = divmod(int(score_map.argmax()), SIZE)
    assert SIZE // 3 - 12 <= y <= SIZE // 3 + SIZE // 4 + 12 and SIZE // 3 - 12 <= x <= SIZE // 3 + SIZE // 4 + 12
