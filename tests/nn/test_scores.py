import torch
from hypothesis import given
from hypothesis import strategies as st

from sowa.nn.scores import abnormal_probability, level_distances, parallel

GENERATOR = torch.Generator().manual_seed(0)
POSITIVE = st.floats(0, 10, width=32)


@given(POSITIVE, POSITIVE)
def test_parallel_is_at_most_the_smaller(a, b):
    got = parallel(torch.tensor(a), torch.tensor(b)).item()
    assert 0 <= got <= min(a, b) * (1 + 1e-6) + 1e-38  # below it, numbers have fewer digits
    if a > 1e-3 and b > 1e-3:
        assert abs(got - 1 / (1 / a + 1 / b)) < 1e-5
    assert got == parallel(torch.tensor(b), torch.tensor(a)).item()


def test_parallel_of_nothing_is_nothing():
    assert parallel(torch.zeros(3), torch.tensor([0.0, 1.0, 1e-30])).tolist() == [0.0, 0.0, 0.0]


def test_probability_is_the_softmax_over_states():
    features, prototypes = torch.randn(4, 5, 6, generator=GENERATOR), torch.randn(2, 6, generator=GENERATOR)
    cosines = torch.nn.functional.cosine_similarity(features[..., None, :], prototypes, dim=-1)
    want = (7.0 * cosines).softmax(dim=-1)[..., 1]
    torch.testing.assert_close(abnormal_probability(features, prototypes, 7.0), want)
    torch.testing.assert_close(abnormal_probability(features * 3, prototypes * 5, 7.0), want)


def test_every_feature_may_have_its_own_prototypes():
    features, pairs = torch.randn(3, 6, generator=GENERATOR), torch.randn(3, 2, 6, generator=GENERATOR)
    each = torch.stack([abnormal_probability(f, p, 2.0) for f, p in zip(features, pairs, strict=True)])
    torch.testing.assert_close(abnormal_probability(features, pairs, 2.0), each)


def test_distances_are_halved_and_by_level():
    axis = torch.eye(3)
    tokens = torch.stack([axis[0], axis[1], -axis[0]])[None] * 5
    got = level_distances((tokens, tokens), [axis[:1], axis])
    torch.testing.assert_close(got, torch.tensor([[[0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]]))
