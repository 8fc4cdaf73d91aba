import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from sowa.backbones import build_backbone
from sowa.backbones.pyramid import level_maps
from sowa.detectors import build_detector
from sowa.detectors.patchcore import Patchcore, pool_neighbourhoods
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.types import Support
from tests.conformance import CATEGORY, conform
from tests.detectors.pyramids import SIZE, pyramid
from tests.parity.stand_ins import blank_backbone

TOWERS = {name: build_backbone(name) for name in ("random_tiny_cnn", "random_tiny")}
AUTHORS = {"squared": True, "coreset": 0.1}
ANOMALIB = {
    "embedding": "concatenated",
    "image_score": "reweighted",
    "upsampling": "nearest",
    "border": "reflect",
    "coreset": 0.1,
    "coreset_begin": "row",
}


def patchcore(**options) -> Patchcore:
    return Patchcore(backbone=blank_backbone(SIZE, 4), **options)


def two_levels(images: int, seed: int = 0):
    return pyramid(images, seed=seed, widths=(8, 16))


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        AUTHORS,
        ANOMALIB,
        {"neighbours": 3, "width": 48, "coreset": 0.5, "coreset_begin": "norms", "coreset_width": None},
    ],
    ids=["default", "authors", "anomalib", "other"],
)
def test_exam(tower, options):
    conform(lambda: build_detector("patchcore", backbone=TOWERS[tower], **options))


def literal(tokens, side: int, width: int) -> torch.Tensor:
    """The authors' steps one by one: unfold, enlarge every neighbourhood entry, average to a width twice."""
    maps = level_maps(tokens)
    size = maps[0].shape[-2:]
    levels = []
    for one in maps:
        entries = F.unfold(one, side, padding=side // 2).unflatten(2, one.shape[-2:])
        if one.shape[-2:] != size:
            entries = F.interpolate(entries, size=size, mode="bilinear", align_corners=False)
        levels.append(F.adaptive_avg_pool1d(entries.flatten(2).transpose(1, 2).flatten(0, 1)[:, None], width))
    whole = torch.cat(levels, dim=2)
    return F.adaptive_avg_pool1d(whole, width)[:, 0]


@pytest.mark.parametrize("widths", [(8, 16), (16, 16), (4, 8, 16), (10, 14), (12, 16), (16, 8)])
@pytest.mark.parametrize(("side", "width"), [(3, 16), (3, None), (5, 16), (1, 16), (3, 7)])
def test_embedding_equals_the_literal_steps(widths, side, width):
    tokens = pyramid(2, widths=widths)
    got = patchcore(neighbourhood=side, width=width).embed(tokens).flatten(2).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(got, literal(tokens, side, width or max(widths)), rtol=1e-5, atol=1e-6)


def test_the_papers_proportions_have_the_closed_form():
    tokens = two_levels(2)
    fine, coarse = level_maps(tokens)
    got = patchcore().embed(tokens)
    average = F.avg_pool2d(fine, 3, stride=1, padding=1)
    torch.testing.assert_close(got[:, :8], (9 * average + fine) / 10)
    enlarged = F.interpolate(F.avg_pool2d(coarse, 3, stride=1, padding=1), size=(8, 8), mode="bilinear")
    torch.testing.assert_close(got[:, 8:], enlarged.unflatten(1, (8, 2)).mean(dim=2))


def test_both_ways_to_pool_agree_where_both_apply(monkeypatch):
    values = level_maps(two_levels(2))[0]
    fast = pool_neighbourhoods(values, 3, 24)
    entries = F.unfold(values, 3, padding=1).transpose(1, 2)
    torch.testing.assert_close(fast, F.adaptive_avg_pool1d(entries, 24).transpose(1, 2).unflatten(2, (8, 8)))


def test_an_image_of_the_support_has_no_distance():
    shots = two_levels(3)
    for options in ({}, {"image_score": "reweighted"}, {"squared": True}, {"embedding": "concatenated"}):
        detector = patchcore(**options)
        prediction = detector.score(shots.rows(slice(1, 2)), detector.fit_tokens(CATEGORY, shots))
        assert prediction.score.item() == 0 and not prediction.score_map.any()


def test_a_larger_bank_is_never_farther():
    detector, shots, tokens = patchcore(), two_levels(3), two_levels(2, seed=1)
    few, many = (detector.score(tokens, detector.fit_tokens(CATEGORY, shots.rows(slice(k)))) for k in (1, 3))
    assert (many.levels <= few.levels).all() and (many.score < few.score).all()


def test_a_coreset_of_everything_is_the_bank_in_another_order():
    shots, tokens = two_levels(1), two_levels(2, seed=1)
    whole = patchcore()
    for begin in ("mean_distance", "norms", "row"):
        detector = patchcore(coreset=1.0, coreset_begin=begin)
        reference = detector.fit_tokens(CATEGORY, shots)
        want = whole.fit_tokens(CATEGORY, shots)["bank"]
        assert not torch.equal(reference["bank"], want)
        assert sorted(reference["bank"].tolist()) == sorted(want.tolist())
        torch.testing.assert_close(
            detector.score(tokens, reference).score_map, whole.score(tokens, {"bank": want}).score_map
        )


def test_a_coreset_keeps_its_share_and_its_seed():
    shots = two_levels(2)
    banks = [patchcore(coreset=0.1, seed=seed).fit_tokens(CATEGORY, shots)["bank"] for seed in (0, 0, 1)]
    assert banks[0].shape == (12, 16)  # of 2 * 64
    assert torch.equal(banks[0], banks[1]) and not torch.equal(banks[0], banks[2])
    assert patchcore(coreset=1e-6).fit_tokens(CATEGORY, shots)["bank"].shape == (1, 16)


def test_the_weight_lies_between_nothing_and_one():
    shots, tokens = two_levels(2), two_levels(4, seed=1)
    plain, weighted, one = (
        patchcore(**options).score(tokens, patchcore(**options).fit_tokens(CATEGORY, shots)).score
        for options in ({}, {"image_score": "reweighted"}, {"image_score": "reweighted", "reweight_neighbours": 1})
    )
    assert ((weighted > 0) & (weighted < plain)).all()
    assert torch.equal(one, plain)


def test_the_weight_equals_its_formula():
    shots, tokens = two_levels(2), two_levels(1, seed=1)
    detector = patchcore(image_score="reweighted", reweight_neighbours=4)
    bank = detector.fit_tokens(CATEGORY, shots)["bank"]
    queries = detector.embed(tokens).flatten(2)[0].T
    pairs = torch.cdist(queries.double(), bank.double())
    distance, nearest = pairs.min(dim=1)
    worst = distance.argmax()
    around = torch.cdist(bank[nearest[worst]][None].double(), bank.double())[0].argsort()[:4]
    weight = 1 - pairs[worst, around].softmax(dim=0)[0]
    got = detector.score(tokens, {"bank": bank}).score
    assert got.item() == pytest.approx((weight * distance[worst]).item(), rel=1e-5)


def test_a_bank_smaller_than_the_neighbours_is_used_whole():
    tokens = two_levels(2, seed=1)
    detector = patchcore(image_score="reweighted", coreset=0.05, neighbours=7)
    reference = detector.fit_tokens(CATEGORY, two_levels(1))
    assert len(reference["bank"]) == 3
    assert detector.score(tokens, reference).score.isfinite().all()
    alone = patchcore(image_score="reweighted", coreset=1e-6)
    reference = alone.fit_tokens(CATEGORY, two_levels(1))
    assert torch.equal(alone.score(tokens, reference).score, patchcore().score(tokens, reference).score)


def test_squared_distances_are_squares():
    shots, tokens = two_levels(2), two_levels(2, seed=1)
    plain, squared = patchcore(), patchcore(squared=True)
    reference = plain.fit_tokens(CATEGORY, shots)
    torch.testing.assert_close(squared.score(tokens, reference).levels, plain.score(tokens, reference).levels.square())


def test_the_reference_survives_a_file():
    detector, tokens = patchcore(coreset=0.5), two_levels(2, seed=1)
    reference = detector.fit_tokens(CATEGORY, two_levels(1))
    assert torch.equal(detector.score(tokens, load(save(reference))).score, detector.score(tokens, reference).score)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (UnknownNameError, {"embedding": "amazon"}, "concatenated, pooled"),
        (UnknownNameError, {"coreset_begin": "first"}, "norms"),
        (ConfigError, {"coreset": 0.0}, "coreset=0"),
        (ConfigError, {"coreset": 1.5}, "coreset=1.5"),
        (ConfigError, {"neighbourhood": 2}, "odd"),
        (ConfigError, {"neighbours": 0}, "neighbours=0"),
        (ConfigError, {"width": 0}, "width=0"),
        (ConfigError, {"squared": True, "image_score": "reweighted"}, "image_score=max"),
    ],
)
def test_errors_are_one_line(kind, options, says):
    with pytest.raises(kind, match=says) as caught:
        patchcore(**options)
    assert "\n" not in str(caught.value)


def test_without_shots_it_says_so():
    with pytest.raises(NeedsSupportError, match="'nut'"):
        patchcore().fit(Support("nut", torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)))
