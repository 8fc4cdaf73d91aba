import inspect
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import sowa.configs
from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.inctrl import InCtrl, default_taps
from sowa.errors import ArtifactError, ConfigError, NeedsSupportError, UnknownNameError
from sowa.types import Batch, Support
from tests.conformance import CATEGORY, conform, normals, with_defect

TINY = build_backbone("random_tiny")
SIZE = TINY.image_size
IMAGES = torch.cat((normals(SIZE, 2, seed=9), with_defect(normals(SIZE, 2, seed=9))))
UNTRAINED_WORDS = 1.0
"""The words of random weights know nothing of defects: at the paper's scale they would drown the rest."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small lose more to waiting threads than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inctrl(**options) -> InCtrl:
    return build_detector("inctrl", backbone=TINY, **{"scale": UNTRAINED_WORDS, "shots": 2} | options).eval()


def batch(count: int = 4, seed: int = 0, category: str = CATEGORY) -> Batch:
    clean = normals(SIZE, count, seed)
    labels = torch.tensor([0] * count + [1] * count)
    masks = torch.zeros(2 * count, SIZE, SIZE, dtype=torch.uint8)
    names = tuple(str(i) for i in range(2 * count))
    return Batch(torch.cat((clean, with_defect(clean))), labels, masks, (category,) * (2 * count), names)


def train(detector: InCtrl, steps: int) -> list[float]:
    detector.train()
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW([value for _, value in detector.trainable_parameters()], lr=3e-3)
    losses = []
    for step in range(steps):
        loss = sum(detector.losses(batch(seed=step)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    detector.eval()
    return losses


@cache
def trained_state(use_text: bool) -> dict[str, Tensor]:
    detector = inctrl(use_text=use_text)
    train(detector, 25)
    return detector.trained_state()


def trained(use_text: bool = True, **options) -> InCtrl:
    detector = inctrl(use_text=use_text, **options)
    detector.load_trained_state(trained_state(use_text))
    return detector


def support(count: int = 2) -> Support:
    return Support(CATEGORY, normals(SIZE, count))


@pytest.mark.parametrize("options", [{}, {"use_text": False}, {"alpha": 0.5, "sigma": 0.0}])
def test_exam(options):
    conform(lambda: trained(**options))


def test_training_tells_defects_from_normal_images():
    detector = inctrl()
    losses = train(detector, 25)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    fresh = batch(4, seed=99)
    score = detector(fresh.images, detector.fit(support(4))).score
    assert score[4:].min() > score[:4].max()


def test_bounds():
    detector = trained()
    prediction = detector(IMAGES, detector.fit(support()))
    for values in (prediction.score, prediction.score_map, prediction.levels, *prediction.parts.values()):
        assert values.min() >= 0 and values.max() <= 1
    torch.testing.assert_close(
        prediction.score, (prediction.parts["holistic_score"] + prediction.parts["memory_score"]) / 2
    )


def test_alpha_weighs_the_largest_residual():
    reference = trained().fit(support())
    one, half = (trained(alpha=alpha)(IMAGES, reference) for alpha in (1.0, 0.5))
    parts = one.parts
    torch.testing.assert_close(half.score, (parts["holistic_score"] + 0.5 * parts["memory_score"]) / 1.5)
    assert torch.equal(half.parts["holistic_score"], parts["holistic_score"])


def test_shots_have_no_residual():
    detector = trained()
    shots = support(3)
    seen = detector(shots.images, detector.fit(shots))
    torch.testing.assert_close(seen.levels, torch.zeros_like(seen.levels), atol=1e-6, rtol=0)


def test_order_and_repetition_of_shots_change_nothing():
    detector, shots = trained(), normals(SIZE, 3)
    scores = [
        detector(IMAGES, detector.fit(Support(CATEGORY, images))).score
        for images in (shots, shots.flip(0), shots.repeat(2, 1, 1, 1))
    ]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])


def test_an_adapter_of_zeros_leaves_no_image_residual():
    detector = inctrl()
    with torch.no_grad():
        for value in detector.adapter.parameters():
            value.zero_()
    tokens = detector.encode(IMAGES)
    reference = detector.fit(support())
    seen = detector.residual(tokens, torch.zeros(4, 2, 64), reference["adapted"], None)
    assert not seen.image_BE.any() and seen.image_score_B.std() == 0


def test_the_mode_of_the_detector_does_not_change_a_score():
    detector = trained()
    reference = detector.fit(support())
    want = detector(IMAGES, reference)
    detector.train()
    state = detector.trained_state()
    assert torch.equal(detector(IMAGES, reference).score, want.score)
    again = detector.fit(support())
    assert all(torch.equal(again[name], reference[name]) for name in reference)
    assert all(torch.equal(value, state[name]) for name, value in detector.trained_state().items())


def test_shots_know_what_they_would_score_without_themselves():
    detector, shots = trained(), normals(SIZE, 3)
    want = detector(shots[:1], detector.fit(Support(CATEGORY, shots[1:]))).score[0]
    torch.testing.assert_close(detector.fit(Support(CATEGORY, shots))["support_scores"][0], want)
    assert detector.fit(Support(CATEGORY, shots[:1]))["support_scores"].isfinite().all()


def test_images_of_a_batch_keep_their_own_shots():
    detector = inctrl()
    tokens, shots = detector.encode(IMAGES), detector.encode(normals(SIZE, 8, seed=3))
    pairs = detector.prototypes(CATEGORY).expand(4, -1, -1)
    whole = detector.own_residual(tokens, shots, pairs)
    for i in range(4):
        rows, own = slice(i, i + 1), slice(2 * i, 2 * i + 2)
        alone = detector.own_residual(tokens.rows(rows), shots.rows(own), pairs[rows])
        torch.testing.assert_close(alone.score_B, whole.score_B[rows])
        torch.testing.assert_close(alone.levels_BVL, whole.levels_BVL[rows])


def test_gradients_reach_adapter_and_heads_only():
    detector = inctrl().train()
    before = {name: value.clone() for name, value in TINY.state_dict().items()}
    losses = detector.losses(batch())
    assert set(losses) == {"score", "image"}
    sum(losses.values()).backward()
    names = {name for name, _ in detector.trainable_parameters()}
    assert {name.split(".")[0] for name in names} == {"adapter", "image_head", "holistic_head"}
    assert all(value.grad is not None and value.grad.any() for _, value in detector.trainable_parameters())
    assert all(torch.equal(value, before[name]) for name, value in TINY.state_dict().items())


def test_the_published_loss_is_another():
    torch.manual_seed(0)
    plain = inctrl().losses(batch())
    torch.manual_seed(0)
    twice = inctrl(sigmoid_twice=True).losses(batch())
    assert abs(plain["score"] - twice["score"]) > 1e-3


def test_draws_follow_the_global_generator():
    given = batch()
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(inctrl().losses(given)["score"].item())
    assert values[0] == values[1] != values[2]


def test_normals_may_be_given_once_for_all():
    detector = inctrl(shots=3)
    lonely = Batch(IMAGES[2:], torch.tensor([1, 1]), torch.zeros(2, SIZE, SIZE), (CATEGORY, "bolt"), ("a", "b"))
    assert sum(detector.losses(lonely).values()).item() == 0
    sum(detector.losses(lonely).values()).backward()
    detector.take_normals({CATEGORY: normals(SIZE, 2)})
    alone = detector.losses(lonely)
    assert alone["score"] > 0, "the second image, without normal images, is left out"
    detector.take_normals({CATEGORY: normals(SIZE, 2), "bolt": normals(SIZE, 1)})
    assert detector.losses(lonely)["score"] != alone["score"]


def test_one_image_can_train():
    detector = inctrl().train()
    detector.take_normals({CATEGORY: normals(SIZE, 4)})
    one = Batch(IMAGES[:1], torch.tensor([0]), torch.zeros(1, SIZE, SIZE), (CATEGORY,), ("a",))
    sum(detector.losses(one).values()).backward()
    assert all(value.grad.isfinite().all() for _, value in detector.trainable_parameters())


def test_running_statistics_belong_to_the_trained_state():
    state = trained_state(True)
    names = {name for name in state if "running" in name}
    assert len(names) == 8
    fresh = inctrl().trained_state()
    assert not any(torch.equal(state[name], fresh[name]) for name in names)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("image_head.norms.0.running_mean"),
        lambda state: state.pop("adapter.0.weight"),
        lambda state: state.update({"holistic_head.norms.1.running_var": torch.ones(3)}),
        lambda state: state.update(foreign=torch.ones(3)),
    ],
)
def test_a_foreign_state_is_refused_whole(change):
    detector = inctrl()
    before = detector.trained_state()
    state = dict(trained_state(True))
    change(state)
    with pytest.raises(ArtifactError) as caught:
        detector.load_trained_state(state)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in detector.trained_state().items())


def test_weights_belong_to_one_image_size():
    other = build_detector("inctrl", backbone=build_backbone("random_tiny", image_size=140))
    with pytest.raises(ArtifactError, match="holistic_head"):
        other.load_trained_state(trained_state(True))


def test_things_and_products_are_worded_differently(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "sowa.detectors.inctrl.encode_sentences",
        lambda backbone, sentences: seen.append(list(sentences)) or torch.ones(len(sentences), TINY.joint),
    )
    detector = inctrl()
    detector.prototypes("metal_nut")
    assert [len(group) for group in seen] == [154, 88] and "metal nut" in seen[0][0]
    detector.prototypes("metal_nut")
    detector.prototypes("dog")
    assert seen[2:] == [["a photo of dog for anomaly detection."], ["a photo without dog for anomaly detection."]]


def test_words_may_be_left_out():
    detector = trained(use_text=False)
    reference = detector.fit(support())
    assert "prototypes" not in reference
    other = detector.fit(Support("bolt", support().images))
    assert torch.equal(detector(IMAGES, reference).score, detector(IMAGES, other).score)


def test_building_leaves_the_global_generator_alone_and_follows_its_seed():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    one, other = inctrl(seed=0), inctrl(seed=1)
    assert torch.equal(torch.rand(1), want)
    assert not torch.equal(one.adapter[0].weight, other.adapter[0].weight)


def test_sizes_of_the_paper():
    assert default_taps(12) == (7, 9, 11) and default_taps(24) == (14, 18, 22) and default_taps(4) == (3, 4)
    assert inctrl().adapter[0].weight.shape == (TINY.joint // 4, TINY.joint)


def test_no_shots_is_one_line():
    with pytest.raises(NeedsSupportError, match="nut") as caught:
        inctrl().fit(support(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shots": 0}, ConfigError, "shots=0"),
        ({"head_widths": []}, ConfigError, "head width"),
        ({"adapter_width": 0}, ConfigError, "adapter_width=0"),
        ({"scale": 0.0}, ConfigError, "scale=0.0"),
        ({"alpha": -1.0}, ConfigError, "alpha=-1.0"),
        ({"shot": 1}, UnknownNameError, "shots"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, words):
    with pytest.raises(error) as caught:
        build_detector("inctrl", backbone=TINY, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_configuration_states_every_default():
    stated = yaml.safe_load((Path(sowa.configs.__file__).parent / "model" / "inctrl.yaml").read_text(encoding="utf-8"))[
        "model"
    ]
    assert (stated.pop("name"), stated.pop("seed")) == ("inctrl", "${seed}")
    known = inspect.signature(InCtrl).parameters
    assert stated.keys() == known.keys() - {"backbone", "seed"}
    for name, value in stated.items():
        default = known[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name
