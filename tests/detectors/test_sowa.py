import math

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.sowa import Sowa
from sowa.errors import ArtifactError, ConfigError, UnknownNameError
from sowa.types import Batch, Support
from tests.conformance import CATEGORY, conform, normals, with_defect

TINY = build_backbone("random_tiny")
SIZE = TINY.image_size


def sowa(**options) -> Sowa:
    return build_detector("sowa", backbone=TINY, **options).eval()


def batch(count: int = 2) -> Batch:
    clean = normals(SIZE, count)
    masks = torch.zeros(2 * count, SIZE, SIZE, dtype=torch.uint8)
    masks[count:, SIZE // 3 : SIZE // 2, SIZE // 3 : SIZE // 2] = 1
    labels = torch.tensor([0] * count + [1] * count)
    names = tuple(str(i) for i in range(2 * count))
    return Batch(torch.cat((clean, with_defect(clean))), labels, masks, (CATEGORY,) * (2 * count), names)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"protocol": "paper"},
        {"adapter": "linear", "text_linear": False},
        {"depth": 2, "value_only": False},
        {"adapter": "linear", "share_adapter": True, "hidden": [16]},
        {"taps": [2, 4], "normal_templates": ["{}", "flawless {}"], "abnormal_templates": ["broken {}"]},
    ],
)
def test_exam(options):
    # The words of random weights know nothing of defects: a high temperature keeps them from drowning the memory.
    conform(lambda: sowa(temperature=10.0, **options))


def test_bounds_of_the_papers_maps():
    detector = sowa(protocol="paper")
    prediction = detector(batch().images, detector.fit(Support(CATEGORY, normals(SIZE, 0))))
    low, high = (1 / (1 + math.exp(x)) for x in (2, -2))
    levels = len(detector.taps)
    assert low <= prediction.levels.min() and prediction.levels.max() <= high
    assert low * levels - 1e-5 <= prediction.score_map.min() and prediction.score_map.max() <= high * levels + 1e-5
    assert torch.equal(prediction.score, prediction.parts["probability"])


def test_the_standard_zero_shot_score_hears_class_token_and_pixels():
    detector = sowa()
    prediction = detector(batch().images, detector.fit(Support(CATEGORY, normals(SIZE, 0))))
    pixels = prediction.levels.mean(dim=1).flatten(1).amax(dim=1)  # one percent of this grid is one token
    torch.testing.assert_close(prediction.score, 0.5 * (prediction.parts["probability"] + pixels))


def test_text_map_is_the_smoothed_sum_of_probabilities():
    detector = sowa(protocol="paper", sigma=0.0)
    images = batch().images
    reference = detector.fit(Support(CATEGORY, normals(SIZE, 0)))
    prototypes = reference["prototypes"].expand(len(images), -1, -1)
    whole = detector.pixel_probabilities(detector.pixel_logits(detector.encode(images), prototypes))
    torch.testing.assert_close(detector(images, reference).score_map, whole[:, :, 1].sum(dim=1))


def test_scoring_against_several_references_is_scoring_against_each():
    detector, images = sowa(text_weight=0.5), batch().images
    references = [detector.fit(Support(CATEGORY, normals(SIZE, k))) for k in (0, 1, 3)]
    tokens = detector.encode(images)
    for together, reference in zip(detector.score_each(tokens, references), references, strict=True):
        assert torch.equal(together.score, detector.score(tokens, reference).score)
        assert torch.equal(together.score_map, detector.score(tokens, reference).score_map)


def test_memory_is_zero_on_the_shots_and_does_not_know_the_adapters():
    one, other = sowa(seed=0), sowa(seed=1)
    support = Support(CATEGORY, normals(SIZE, 3))
    first = one(support.images, one.fit(support)).parts["memory_map"]
    torch.testing.assert_close(first, torch.zeros_like(first), atol=1e-5, rtol=0)
    images = batch().images
    assert torch.equal(
        one(images, one.fit(support)).parts["memory_map"], other(images, other.fit(support)).parts["memory_map"]
    )


def test_zero_shot_map_does_not_know_the_memory():
    detector = sowa(text_weight=0.5)
    images = batch().images
    empty = detector(images, detector.fit(Support(CATEGORY, normals(SIZE, 0))))
    full = detector(images, detector.fit(Support(CATEGORY, normals(SIZE, 2))))
    assert torch.equal(empty.score_map, full.parts["text_map"])
    torch.testing.assert_close(full.score_map, full.parts["text_map"] + full.parts["memory_map"])


def test_a_random_text_tower_has_no_vote_once_there_are_shots():
    assert not TINY.text_trained
    images, support = batch().images, Support(CATEGORY, normals(SIZE, 2))
    one, other = (sowa(seed=seed) for seed in (0, 1))  # other prompts and adapters, the same memory
    assert torch.equal(one(images, one.fit(support)).score, other(images, other.fit(support)).score)
    heard = sowa(text_weight=0.5)
    assert not torch.equal(one(images, one.fit(support)).score, heard(images, heard.fit(support)).score)
    assert sowa(protocol="paper", text_weight=0.0).text_weight == 0.5


def test_without_parts_words_that_have_no_share_are_not_asked(monkeypatch):
    images, detector = batch().images, sowa()
    shots, none = (detector.fit(Support(CATEGORY, normals(SIZE, count))) for count in (2, 0))
    bare, whole = detector.without_parts(), detector(images, shots)
    assert torch.equal(bare(images, none).score_map, detector(images, none).score_map)
    monkeypatch.setattr(Sowa, "_text", None)
    found = bare(images, shots)
    assert torch.equal(found.score, whole.score) and torch.equal(found.score_map, whole.score_map)
    assert found.levels is None and not found.parts
    for heard in (sowa(text_weight=0.5), sowa(protocol="paper")):
        assert heard.without_parts() is heard


def test_shots_score_near_one_half_when_left_out():
    scores = sowa().fit(Support(CATEGORY, normals(SIZE, 4)))["support_scores"]
    assert scores.shape == (4,) and (scores - 0.5).abs().max() < 0.1


def test_a_further_shot_never_makes_the_map_larger():
    detector, shots = sowa(), normals(SIZE, 4)
    images = batch().images
    maps = [detector(images, detector.fit(Support(CATEGORY, shots[:k]))).parts["memory_map"] for k in (1, 2, 4)]
    assert (maps[0] >= maps[1] - 1e-6).all() and (maps[1] >= maps[2] - 1e-6).all()


def test_the_order_of_the_shots_does_not_matter():
    detector, shots = sowa(), normals(SIZE, 3)
    images = batch().images
    one, other = (detector(images, detector.fit(Support(CATEGORY, s))).score for s in (shots, shots.flip(0)))
    torch.testing.assert_close(one, other)


def test_shots_given_twice_change_no_distance():
    detector, shots = sowa(), normals(SIZE, 2)
    images = batch().images
    one, two = (
        detector(images, detector.fit(Support(CATEGORY, s))).parts["memory_map"]
        for s in (shots, shots.repeat(2, 1, 1, 1))
    )
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_a_step_of_training_moves_everything_trained_and_nothing_else(protocol):
    detector = sowa(protocol=protocol)
    frozen = {name: value.clone() for name, value in TINY.state_dict().items()}
    before = detector.trained_state()
    detector.train()
    optimiser = torch.optim.AdamW([p for _, p in detector.trainable_parameters()], lr=1e-3)
    losses = detector.losses(batch())
    assert set(losses) == {"cross_entropy", "focal", "dice"}
    sum(losses.values()).backward()
    optimiser.step()
    assert all(torch.equal(value, frozen[name]) for name, value in TINY.state_dict().items())
    after = detector.trained_state()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_training_lowers_the_loss():
    detector = sowa(attention_dropout=0.0)
    optimiser = torch.optim.AdamW([p for _, p in detector.trainable_parameters()], lr=1e-2)
    values = []
    for _ in range(8):
        loss = sum(detector.losses(batch()).values())
        values.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert values[-1] < 0.9 * values[0]


def test_paper_loss_has_its_floor():
    losses = sowa(protocol="paper").losses(batch())
    assert 0.3133 <= losses["cross_entropy"] <= 1.3133


class PaperSized(torch.nn.Module):
    """Only the sizes of ViT-L/14@336; it has no weights."""

    width, joint, grid, text_width, text_trained, default_taps = 1024, 768, (24, 24), 768, True, (6, 12, 18, 24)

    def tokenize(self, texts):
        return torch.zeros(len(texts), 77, dtype=torch.int64)

    def embed_tokens(self, token_ids):
        return torch.zeros(*token_ids.shape, self.text_width)


def test_trainable_parameters_of_the_papers_setting():
    detector = Sowa(backbone=PaperSized())
    assert sum(value.numel() for _, value in detector.trainable_parameters()) == 4_822_560
    assert detector.adapters[0].blocks[0].window == 12 and detector.taps == (6, 12, 18, 24)


def test_a_category_finds_its_own_prompt_else_object():
    detector = sowa(categories=["object", "nut"])
    assert [detector.category_index(c) for c in ("nut", "object", "screw")] == [1, 0, 0]
    assert sowa(categories=["nut"], protocol="paper").category_index("screw") == 0
    with pytest.raises(UnknownNameError, match="screw"):
        sowa(categories=["nut"]).category_index("screw")


def test_category_changes_the_text_branch_only():
    detector = sowa(categories=["nut", "bolt"])
    images = batch().images
    nut, bolt = (detector(images, detector.fit(Support(c, normals(SIZE, 2)))) for c in ("nut", "bolt"))
    assert not torch.equal(nut.parts["text_map"], bolt.parts["text_map"])
    assert torch.equal(nut.parts["memory_map"], bolt.parts["memory_map"])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"adapter": "windw"}, UnknownNameError, "window"),
        ({"protocol": "papers"}, UnknownNameError, "paper"),
        ({"windows": 3}, UnknownNameError, "window"),
        ({"heads": 7}, ConfigError, "heads=7"),
        ({"abnormal_templates": ["damaged"]}, ConfigError, "{}"),
        ({"categories": []}, ConfigError, "categories"),
        ({"temperature": 0}, ConfigError, "temperature"),
        ({"text_weight": 2}, ConfigError, "text_weight"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, words):
    with pytest.raises(error) as caught:
        sowa(**options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_trained_tensors_of_another_detector_are_refused_whole():
    detector = sowa()
    before = detector.trained_state()
    for state in (sowa(adapter="linear").trained_state(), sowa(prompt_length=3).trained_state()):
        with pytest.raises(ArtifactError):
            detector.load_trained_state(state)
    assert all(torch.equal(value, before[name]) for name, value in detector.trained_state().items())


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    sowa()
    assert torch.equal(torch.rand(1), want)


def test_a_coreset_is_a_part_of_the_bank():
    tower = build_backbone("random_tiny")
    images = torch.rand(3, 3, tower.image_size, tower.image_size, generator=torch.Generator().manual_seed(0))
    whole, thin = Sowa(backbone=tower), Sowa(backbone=tower, coreset=0.25)
    tokens = whole.encode(images)
    full, part = whole.fit_tokens("object", tokens), thin.fit_tokens("object", tokens)
    assert part["bank"].shape[1] == round(0.25 * full["bank"].shape[1])
    for level, kept in zip(full["bank"], part["bank"], strict=True):
        assert (kept[:, None] == level).all(dim=-1).any(dim=1).all()
    assert torch.equal(part["support_scores"], full["support_scores"])
    far, near = thin.memory_grid(tokens, part["bank"]), whole.memory_grid(tokens, full["bank"])
    assert (far >= near - 1e-5).all() and (far > near + 1e-3).any()
    with pytest.raises(ConfigError, match="fit again with all normal images"):
        thin.extend_tokens(part, "object", tokens)
    with pytest.raises(ConfigError, match="no share of the bank"):
        Sowa(backbone=tower, coreset=0.0)
