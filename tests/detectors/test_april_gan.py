import pytest
import torch
from torch.nn.functional import interpolate, normalize

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.april_gan import AprilGan
from sowa.errors import ArtifactError, ConfigError, UnknownNameError
from sowa.metrics.legacy import paper_image_score
from sowa.types import Batch, Support
from tests.conformance import CATEGORY, conform, normals, with_defect

TINY = build_backbone("random_tiny")
SIZE = TINY.image_size


def april_gan(**options) -> AprilGan:
    return build_detector("april_gan", backbone=TINY, **{"text_weight": 0.5} | options).eval()


def support(count: int, seed: int = 0) -> Support:
    return Support(CATEGORY, normals(SIZE, count, seed))


def batch(count: int = 2) -> Batch:
    clean = normals(SIZE, count, seed=9)
    masks = torch.zeros(2 * count, SIZE, SIZE, dtype=torch.uint8)
    masks[count:, SIZE // 3 : SIZE // 3 + SIZE // 4, SIZE // 3 : SIZE // 3 + SIZE // 4] = 1
    labels = torch.tensor([0] * count + [1] * count)
    names = tuple(str(i) for i in range(2 * count))
    return Batch(torch.cat((clean, with_defect(clean))), labels, masks, (CATEGORY, "metal_nut") * count, names)


@pytest.mark.parametrize("options", [{}, {"protocol": "paper"}, {"taps": [4, 2]}, {"text_weight": "auto"}], ids=str)
def test_exam(options):
    # The words of random weights know nothing of defects: a high temperature keeps them from drowning the memory.
    conform(lambda: april_gan(temperature=10.0, **options))


def probabilities(detector: AprilGan, prototypes: torch.Tensor | None = None) -> torch.Tensor:
    tokens = detector.encode(batch().images)
    rows = detector.prototypes(CATEGORY) if prototypes is None else prototypes
    return detector.pixel_probabilities(detector.pixel_logits(tokens, rows.expand(len(tokens.cls), -1, -1)))


def test_the_states_of_a_pixel_sum_to_one_and_the_map_to_the_levels():
    detector = april_gan()
    states = probabilities(detector)
    torch.testing.assert_close(states.sum(dim=2), torch.ones_like(states[:, :, 0]))
    prediction = detector(batch().images, detector.fit(support(0)))
    assert prediction.score_map.min() >= 0 and prediction.score_map.max() <= len(detector.taps)
    torch.testing.assert_close(prediction.score_map, states[:, :, 1].sum(dim=1))


def test_swapped_words_give_the_complement():
    detector = april_gan()
    swapped = probabilities(detector, detector.prototypes(CATEGORY).flip(0))
    torch.testing.assert_close(swapped[:, :, 1], 1 - probabilities(detector)[:, :, 1], rtol=0, atol=1e-5)


def test_with_the_projection_as_layer_the_map_is_clips_own():
    detector = april_gan(taps=[TINY.depth])
    detector.load_trained_state({"linear.0.weight": TINY.visual.proj.T, "linear.0.bias": torch.zeros(TINY.joint)})
    images, text = batch().images, detector.prototypes("metal_nut")
    dense = normalize(TINY.encode_image(images, [TINY.depth]).levels[0] @ TINY.visual.proj, dim=-1) @ text.T
    logits = interpolate(
        100 * dense.transpose(1, 2).unflatten(2, TINY.grid), size=(SIZE, SIZE), mode="bilinear", align_corners=True
    )
    got = detector(images, detector.fit(Support("metal_nut", normals(SIZE, 0))))
    torch.testing.assert_close(got.score_map, logits.softmax(dim=1)[:, 1], rtol=0, atol=2e-4)
    cosine = normalize(TINY.encode_image(images, []).cls, dim=-1) @ text.T
    torch.testing.assert_close(got.score, (100 * cosine).softmax(dim=-1)[:, 1], rtol=0, atol=1e-4)


# ---- support


def test_the_memory_is_zero_on_the_shots_and_does_not_know_the_layers():
    shots = support(3)
    one, other = april_gan(seed=0), april_gan(seed=1)
    first = one(shots.images, one.fit(shots)).parts["memory_map"]
    torch.testing.assert_close(first, torch.zeros_like(first), atol=1e-5, rtol=0)
    maps = [each(batch().images, each.fit(shots)).parts for each in (one, other)]
    assert torch.equal(maps[0]["memory_map"], maps[1]["memory_map"])
    assert not torch.equal(maps[0]["text_map"], maps[1]["text_map"])


def test_shots_given_twice_change_no_distance():
    detector, shots = april_gan(), normals(SIZE, 2)
    one, two = (
        detector(batch().images, detector.fit(Support(CATEGORY, s))).parts["memory_map"]
        for s in (shots, shots.repeat(2, 1, 1, 1))
    )
    torch.testing.assert_close(one, two)


def test_the_map_is_the_sum_of_words_and_memory():
    detector = april_gan()
    empty, full = (detector(batch().images, detector.fit(support(k))) for k in (0, 2))
    assert torch.equal(empty.score_map, full.parts["text_map"])
    torch.testing.assert_close(full.score_map, full.parts["text_map"] + full.parts["memory_map"])
    assert torch.equal(empty.score, empty.parts["probability"])
    torch.testing.assert_close(full.parts["peak"], full.score_map.flatten(1).amax(dim=1))


@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_each_shot_scores_as_if_it_were_not_in_the_bank(weight):
    detector, shots = april_gan(temperature=1.0, text_weight=weight), normals(SIZE, 3)
    reference = detector.fit(Support(CATEGORY, shots))
    for i in range(3):
        others = Support(CATEGORY, torch.cat((shots[:i], shots[i + 1 :])))
        left = detector.fit(others) | {"support_peak": reference["support_peak"]}
        torch.testing.assert_close(reference["support_scores"][i], detector(shots[i : i + 1], left).score[0])


def test_the_inductive_score_is_of_its_image_and_the_support():
    detector = april_gan(temperature=1.0)
    reference = detector.fit(support(2))
    got = detector(batch().images, reference)
    peak, probability = got.parts["peak"], got.parts["probability"]
    torch.testing.assert_close(got.score, 0.5 * (probability + peak / (peak + reference["support_peak"])))
    assert (got.score > 0).all() and (got.score < 1).all()


def test_the_papers_score_is_finished_over_the_test_set():
    detector = april_gan(protocol="paper", temperature=1.0)
    parts = detector(batch().images, detector.fit(support(2))).parts
    probability, peak = parts["probability"], parts["peak"]
    score = paper_image_score(probability.tolist(), peak.tolist())
    assert score.min() >= 0 and score.max() <= 1
    assert score == pytest.approx(paper_image_score(probability.tolist(), (7 * peak + 3).tolist()), abs=1e-5)


def test_random_words_of_the_class_token_do_not_vote():
    detector = april_gan(text_weight="auto")
    empty, full = (detector(batch().images, detector.fit(support(shots))) for shots in (0, 2))
    torch.testing.assert_close(empty.score, empty.parts["peak"] / len(detector.taps))
    torch.testing.assert_close(full.score_map, 2 * full.parts["memory_map"])
    assert torch.equal(full.score.argsort(), full.parts["peak"].argsort())


def test_the_papers_protocol_always_weighs_both_the_same():
    assert april_gan(protocol="paper", text_weight="auto").text_weight == 0.5


# ---- training


def test_trainable_tensors_of_the_papers_setting():
    assert 4 * (1024 * 768 + 768) == 3_148_800
    width, joint = TINY.width, TINY.joint
    assert sum(p.numel() for _, p in april_gan().trainable_parameters()) == 4 * (width * joint + joint)


def test_a_step_of_training_moves_everything_trained_and_nothing_else():
    detector = april_gan()
    frozen = {name: value.clone() for name, value in TINY.state_dict().items()}
    before = detector.trained_state()
    optimiser = torch.optim.Adam([p for _, p in detector.trainable_parameters()], lr=1e-3, betas=(0.5, 0.999))
    losses = detector.losses(batch())
    assert set(losses) == {"focal", "dice"}
    sum(losses.values()).backward()
    optimiser.step()
    assert all(torch.equal(value, frozen[name]) for name, value in TINY.state_dict().items())
    after = detector.trained_state()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_training_lowers_the_loss_and_finds_the_paint():
    detector = april_gan()
    optimiser = torch.optim.Adam([p for _, p in detector.trainable_parameters()], lr=1e-2, betas=(0.5, 0.999))
    values = []
    for _ in range(12):
        loss = sum(detector.losses(batch()).values())
        values.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert values[-1] < 0.7 * values[0]
    score_map = detector(batch().images, detector.fit(support(0))).score_map
    painted = batch().masks.bool()
    assert score_map[painted].mean() > 2 * score_map[~painted].mean()


def test_the_image_label_is_not_used():
    detector, labelled = april_gan(), batch()
    other = Batch(labelled.images, 1 - labelled.labels, labelled.masks, labelled.categories, labelled.names)
    assert {k: v.item() for k, v in detector.losses(labelled).items()} == {
        k: v.item() for k, v in detector.losses(other).items()
    }


def test_words_learnt_while_inferring_may_be_trained_on():
    detector = april_gan()
    with torch.inference_mode():
        detector.fit(Support("metal_nut", normals(SIZE, 0)))
        detector.fit(support(0))
    sum(detector.losses(batch()).values()).backward()
    assert detector.linear[0].weight.grad is not None


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    april_gan()
    assert torch.equal(torch.rand(1), want)


# ---- errors


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"protocol": "papers"}, UnknownNameError, "paper"),
        ({"temperature": -1}, ConfigError, "temperature"),
        ({"taps": []}, ConfigError, "taps"),
        ({"text_weight": "half"}, ConfigError, "text_weight"),
        ({"tap": [1]}, UnknownNameError, "taps"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, words):
    with pytest.raises(error) as caught:
        april_gan(**options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_tap_that_is_not_there():
    detector = april_gan(taps=[9])
    with pytest.raises(ConfigError, match=r"1\.\.4"):
        detector.encode(batch().images)


def test_trained_tensors_of_other_taps_are_refused():
    with pytest.raises(ArtifactError):
        april_gan().load_trained_state(april_gan(taps=[1, 2]).trained_state())
