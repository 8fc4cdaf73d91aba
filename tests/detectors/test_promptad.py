import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import sowa.configs
from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.promptad import PromptAd, PromptTokens
from sowa.detectors.promptad_words import GENERIC_TEMPLATES, PUBLISHED, category_name, published_templates
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.nn.bank import unit
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect

TINY = build_backbone("random_tiny")
SIZE = TINY.image_size
IMAGES = torch.cat((normals(SIZE, 2, seed=9), with_defect(normals(SIZE, 2, seed=9))))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """A hundred steps on tensors this small lose far more to waiting threads than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def promptad(epochs: int = 2, canvas: int = 96, **options) -> PromptAd:
    return build_detector("promptad", backbone=TINY, epochs=epochs, canvas=canvas, **options).eval()


def support(count: int = 2) -> Support:
    return Support(CATEGORY, normals(SIZE, count))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"test_bgr": True, "next_attention": True, "margin_over_tokens": True},
        {"use_text": False, "taps": [2, 4], "canvas": SIZE},
    ],
)
def test_exam(options):
    conform(partial(promptad, **options))


def test_bounds():
    detector = promptad()
    prediction = detector(IMAGES, detector.fit(support()))
    for values in (prediction.score, prediction.score_map, prediction.levels):
        assert values.min() >= 0 and values.max() <= 1
    parts = prediction.parts
    assert (prediction.score <= torch.minimum(parts["text_score"], parts["memory_score"]) + 1e-7).all()
    assert (parts["grid_map"] <= torch.minimum(parts["text_map"], parts["memory_map"]) + 1e-7).all()
    assert (parts["memory_score"] <= parts["memory_map"].flatten(1).amax(dim=1) + 1e-7).all(), "a canvas only blunts"


def test_images_that_are_shots_have_no_score():
    detector = promptad()
    shots = support(3)
    prediction = detector(shots.images, detector.fit(shots))
    for values in (prediction.score, prediction.score_map, prediction.parts["memory_map"]):
        torch.testing.assert_close(values, torch.zeros_like(values), atol=1e-5, rtol=0)


def test_shots_know_what_they_would_score_without_themselves():
    detector = promptad()
    shots = normals(SIZE, 3)
    reference = detector.fit(Support(CATEGORY, shots))
    others = detector.fit(Support(CATEGORY, shots[1:]))
    kept = {name: reference[name] for name in ("image_prototypes", "pixel_prototypes")}
    want = detector(shots[:1], others | kept).score[0]
    torch.testing.assert_close(reference["support_scores"][0], want)
    assert detector.fit(Support(CATEGORY, shots[:1]))["support_scores"].item() > 0


def test_order_and_repetition_of_shots_change_no_distance():
    detector, shots = promptad(), normals(SIZE, 3)
    maps = [
        detector(IMAGES, detector.fit(Support(CATEGORY, images))).parts["memory_map"]
        for images in (shots, shots.flip(0), shots.repeat(2, 1, 1, 1))
    ]
    torch.testing.assert_close(maps[1], maps[0])
    torch.testing.assert_close(maps[2], maps[0])


def test_training_moves_the_prompts_towards_the_shots_and_nothing_else():
    before = {name: value.clone() for name, value in TINY.state_dict().items()}
    shots = support()
    untrained, trained = (promptad(epochs=epochs).fit(shots) for epochs in (0, 20))
    cls = unit(TINY.encode_image(shots.images, (1,)).cls)
    gaps = [(cls @ (p["image_prototypes"][0] - p["image_prototypes"][1])).mean() for p in (untrained, trained)]
    assert gaps[1] > gaps[0] + 1e-3
    assert torch.equal(untrained["bank"], trained["bank"])
    assert not torch.equal(untrained["pixel_prototypes"], trained["pixel_prototypes"])
    assert all(torch.equal(value, before[name]) for name, value in TINY.state_dict().items())
    assert list(promptad().trainable_parameters()) == []


@pytest.mark.parametrize("shape", [(6,), (2, 9)])
def test_the_loss_falls_over_a_hundred_steps(shape):
    detector = promptad(epochs=100)
    features = unit(torch.randn(*shape, TINY.joint, generator=torch.Generator().manual_seed(0)))
    contexts = detector.contexts(CATEGORY, 3)
    first = detector.loss(contexts, features).item()
    detector.learn(contexts, features)
    assert detector.loss(contexts, features).item() < first - 0.01


def test_trimming_sentences_to_the_longest_changes_no_feature():
    detector = promptad()
    contexts = detector.contexts(CATEGORY, 3)
    embeddings, ids = contexts()
    assert ids.shape[1] < 20 < TINY.context_length
    padding = TINY.context_length - ids.shape[1]
    whole = TINY.encode_text(
        torch.nn.functional.pad(embeddings, (0, 0, 0, padding)), torch.nn.functional.pad(ids, (0, padding))
    )
    torch.testing.assert_close(torch.cat(detector.text_features(contexts)), whole, atol=1e-5, rtol=1e-5)


def test_the_seed_draws_the_prompts_and_nothing_else_does():
    shots = support()
    one = promptad(seed=0).fit(shots)
    torch.manual_seed(7)
    want = torch.rand(1)
    torch.manual_seed(7)
    again, other = promptad(seed=0).fit(shots), promptad(seed=1).fit(shots)
    assert torch.equal(torch.rand(1), want)
    assert torch.equal(one["image_prototypes"], again["image_prototypes"])
    assert not torch.equal(one["image_prototypes"], other["image_prototypes"])
    assert torch.equal(one["bank"], other["bank"])


def test_it_trains_on_tokens_of_inference_mode_and_inside_it():
    detector, shots = promptad(), support()
    want = detector.fit(shots)
    with torch.inference_mode():
        tokens = detector.encode(shots.images)
        inside = detector.fit_tokens(CATEGORY, tokens)
    outside = detector.fit_tokens(CATEGORY, tokens)
    for reference in (inside, outside):
        assert all(torch.equal(reference[name], want[name]) for name in want)


def test_tokens_split_and_join():
    for detector in (promptad(), promptad(test_bgr=True)):
        tokens = detector.encode(IMAGES)
        again = PromptTokens.join([tokens.rows(slice(0, 1)), tokens.rows(slice(1, 4))])
        assert torch.equal(again.values, tokens.values) and torch.equal(again.levels[1], tokens.levels[1])
        assert (again.swapped is None) == (tokens.swapped is None)
        if again.swapped is not None:
            assert torch.equal(again.swapped.cls, tokens.swapped.cls)


def test_bgr_exchanges_the_channels_of_scored_images_only():
    colours = (torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    plain, swapping = promptad(), promptad(test_bgr=True)
    shots = Support(CATEGORY, colours)
    reference = plain.fit(shots)
    assert torch.equal(reference["bank"], swapping.fit(shots)["bank"])
    want = plain(colours.flip(1), reference)
    got = swapping(colours, reference)
    torch.testing.assert_close(got.score, want.score)
    torch.testing.assert_close(got.score_map, want.score_map)
    assert got.score.max() > plain(colours, reference).score.max()


def test_words_name_no_test_defect_unless_asked():
    plain, published = promptad(), promptad(published_words=True)
    assert plain.templates("bottle") == GENERIC_TEMPLATES and len(GENERIC_TEMPLATES) == 8
    assert published.templates("bottle")[8:] == (
        "{} with large breakage",
        "{} with small breakage",
        "{} with contamination",
    )
    with pytest.raises(UnknownNameError, match="nut") as caught:
        published.fit(support())
    assert "\n" not in str(caught.value)


def test_published_lists_cover_both_data_sets():
    assert len(PUBLISHED) == 15 + 12
    templates = {category: published_templates(category) for category in PUBLISHED}
    assert all(template.count("{}") == 1 for group in templates.values() for template in group)
    assert "{} squeezed with compression" in templates["capsule"]
    assert templates["metal_nut"][0] == "{} with a bent shape "
    assert templates["fryum"].count("{} with colour spot") == 2


def test_names_of_categories():
    names = {"macaroni2": "macaroni", "pcb4": "printed circuit board", "chewinggum": "chewing gum"}
    names |= {"pipe_fryum": "pipe fryum", "metal_nut": "metal nut", "bottle": "bottle"}
    assert {category: category_name(category) for category in names} == names


def test_the_category_changes_words_only():
    detector, shots = promptad(), normals(SIZE, 2)
    one, other = (detector(IMAGES, detector.fit(Support(name, shots))) for name in ("nut", "cable"))
    assert torch.equal(one.parts["memory_map"], other.parts["memory_map"])
    assert not torch.equal(one.parts["text_map"], other.parts["text_map"])


def test_blocks_of_the_paper():
    assert promptad().taps == (1, 3)
    from sowa.detectors.promptad import default_taps

    assert default_taps(12) == (3, 8) and default_taps(24) == (6, 16) and default_taps(1) == (1,)


def test_no_shots_is_one_line():
    with pytest.raises(NeedsSupportError, match="nut") as caught:
        promptad().fit(support(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": -1}, ConfigError, "epochs=-1"),
        ({"scale": 0.0}, ConfigError, "scale=0.0"),
        ({"abnormal_templates": ["damaged"]}, ConfigError, "{}"),
        ({"abnormal_templates": "damaged {}"}, ConfigError, "list"),
        ({"pixel_contexts": 0}, ConfigError, "pixel_contexts=0"),
        ({"canvas": 0}, ConfigError, "canvas=0"),
        ({"epoch": 1}, UnknownNameError, "epochs"),
        ({"taps": [9]}, ConfigError, "choose from 1..4"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, words):
    with pytest.raises(error) as caught:
        build_detector("promptad", backbone=TINY, **options).fit(support(1))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_configuration_states_every_default():
    stated = yaml.safe_load(
        (Path(sowa.configs.__file__).parent / "model" / "promptad.yaml").read_text(encoding="utf-8")
    )
    assert (stated.pop("name"), stated.pop("seed")) == ("promptad", "${seed}")
    known = inspect.signature(PromptAd).parameters
    assert stated.keys() == known.keys() - {"backbone", "seed"}
    for name, value in stated.items():
        default = known[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name
