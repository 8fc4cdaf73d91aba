import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.errors import ConfigError, UnknownNameError
from sowa.nn.ensemble import ENSEMBLES, Ensemble, ensemble, pool_prompts, prototypes, spaced, text_share


def features(sentences: list[str]) -> torch.Tensor:
    """[P, 8] features that depend on the sentence alone."""
    return torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(sum(s.encode()))) for s in sentences])


@pytest.mark.parametrize(
    ("name", "normal", "abnormal"),
    [("winclip", 154, 88), ("anomalib", 147, 84), ("april_gan", 245, 175), ("inctrl_semantic", 1, 1)],
)
def test_numbers_of_prompts(name, normal, abnormal):
    assert [len(sentences) for sentences in ensemble(name).sentences("nut")] == [normal, abnormal]


def test_order_is_state_major():
    normal, abnormal = Ensemble(("{}", "new {}"), ("old {}",), ("a {}.", "the {}.")).sentences("nut")
    assert normal == ["a nut.", "the nut.", "a new nut.", "the new nut."]
    assert abnormal == ["a old nut.", "the old nut."]


def test_every_phrase_has_one_place_for_the_category():
    for prompts in ENSEMBLES.values():
        assert all(text.count("{}") == 1 for text in (*prompts.normal, *prompts.abnormal, *prompts.templates))


def test_the_library_lacks_one_template_and_has_one_twice():
    paper, library = ensemble("winclip").templates, ensemble("anomalib").templates
    assert len(set(paper)) == 22 and len(set(library)) == 20
    assert set(paper) - set(library) == {"a cropped photo of a {}.", "a jpeg corrupted photo of a {}."}


def test_braces_in_a_category_are_left_alone():
    assert ensemble("inctrl_semantic").sentences("{0} {x}")[0] == ["a photo of {0} {x} for anomaly detection."]


def test_spaced():
    assert [spaced(name) for name in ("metal_nut", "pcb1", "a_b_c")] == ["metal nut", "pcb1", "a b c"]


def test_an_unknown_ensemble_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="april_gan"):
        ensemble("aprilgan")


def test_pooling_each_normalised_ignores_the_norms():
    raw = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    scaled = raw * torch.tensor([1.0, 9.0, 2.0, 0.1, 5.0])[:, None]
    torch.testing.assert_close(pool_prompts(raw, norm_each=True), pool_prompts(scaled, norm_each=True))
    assert pool_prompts(raw, norm_each=True).norm().item() == pytest.approx(1)
    torch.testing.assert_close(pool_prompts(scaled, norm_each=False), scaled.mean(dim=0))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(22)), norm_each=st.booleans())
def test_prototypes_do_not_depend_on_the_order_of_the_prompts(order, norm_each):
    paper = ensemble("winclip")
    other = Ensemble(paper.normal[::-1], paper.abnormal, tuple(paper.templates[i] for i in order))
    torch.testing.assert_close(
        prototypes(paper, "nut", features, norm_each=norm_each), prototypes(other, "nut", features, norm_each=norm_each)
    )


def test_row_zero_is_normal():
    only = Ensemble(("{}",), ("damaged {}",), ("a {}.",))
    torch.testing.assert_close(
        prototypes(only, "nut", features, norm_each=False), features(["a nut.", "a damaged nut."])
    )


def test_untrained_words_weigh_nothing_unless_told():
    assert [text_share("auto", trained=trained) for trained in (True, False)] == [0.5, 0.0]
    assert [text_share(weight, trained=False) for weight in (0, 0.3, 1)] == [0.0, 0.3, 1.0]


@pytest.mark.parametrize("weight", [-0.1, 1.01, float("nan"), "much", None, True])
def test_a_weight_that_is_no_share(weight):
    with pytest.raises(ConfigError, match="text_weight"):
        text_share(weight, trained=True)
