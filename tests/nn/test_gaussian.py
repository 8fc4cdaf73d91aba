import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.nn.gaussian import fit_gaussian, mahalanobis

EPS = 0.01


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(tokens, shots):
    """Mean, covariance, inverse, as written in the paper."""
    delta, centred = tokens - shots.mean(0), shots - shots.mean(0)
    covariance = torch.einsum("kld,kle->lde", centred, centred) / max(len(shots) - 1, 1)
    inverse = torch.linalg.inv(covariance + EPS * torch.eye(shots.shape[-1], dtype=shots.dtype))
    return torch.einsum("bld,lde,ble->bl", delta, inverse, delta).sqrt()


@pytest.mark.parametrize(("shots", "width"), [(1, 50), (2, 50), (4, 50), (8, 50), (9, 6), (40, 12)])
def test_equals_the_dense_inverse(shots, width):
    support, tokens = random(shots, 5, width), random(3, 5, width, seed=1)
    torch.testing.assert_close(
        mahalanobis(tokens, fit_gaussian(support), EPS), dense(tokens, support), rtol=1e-9, atol=0
    )


def test_one_shot_is_ten_times_the_euclidean_distance():
    support, tokens = random(1, 5, 7), random(3, 5, 7, seed=1)
    distance = mahalanobis(tokens, fit_gaussian(support), EPS)
    torch.testing.assert_close(distance, 10 * (tokens - support).norm(dim=-1))


def test_places_of_every_kind_of_degeneracy():
    support, tokens = random(4, 5, 20), random(2, 5, 20, seed=1)
    support[:, 0] = support[0, 0]  # the shots agree
    support[2, 1] = support[1, 1]  # two of them agree
    support[:, 2] *= torch.logspace(3, -6, 20, dtype=torch.float64)  # channels of very different size
    support[3, 3] = support[0, 3] + 1e-7 * support[3, 3]  # two nearly agree
    support[:, 4] = 0
    gaussian = fit_gaussian(support)
    torch.testing.assert_close(mahalanobis(tokens, gaussian, EPS), dense(tokens, support), rtol=1e-7, atol=1e-9)
    product = gaussian.axes_LRD @ gaussian.axes_LRD.mT
    torch.testing.assert_close(product, torch.diag_embed(product.diagonal(dim1=1, dim2=2).round()), atol=1e-9, rtol=0)


def test_float32_keeps_its_digits_for_a_token_among_the_shots():
    """Where the textbook identity subtracts two large numbers."""
    support = 30 * random(4, 6, 200)
    got = mahalanobis(support.float(), fit_gaussian(support.float()), EPS)
    torch.testing.assert_close(got.double(), dense(support, support), rtol=1e-4, atol=0)


def test_no_distance_at_the_mean_and_one_place_does_not_touch_another():
    support = random(4, 6, 9)
    gaussian, mean = fit_gaussian(support), support.mean(dim=0, keepdim=True)
    torch.testing.assert_close(
        mahalanobis(mean, gaussian, EPS), torch.zeros(1, 6, dtype=torch.float64), atol=1e-12, rtol=0
    )
    moved = mean.clone()
    moved[0, 2] += 1
    distance = mahalanobis(moved, gaussian, EPS)[0]
    assert distance[2] > 1 and (distance[[0, 1, 3, 4, 5]] < 1e-12).all()


@given(st.integers(0, 40), st.floats(1.01, 50))
@settings(deadline=None, max_examples=20)
def test_farther_along_a_ray_is_farther_in_proportion(seed, times):
    support, delta = random(3, 2, 5, seed=seed), random(1, 2, 5, seed=seed + 1)
    gaussian, mean = fit_gaussian(support), support.mean(dim=0)
    near, far = (mahalanobis(mean + scale * delta, gaussian, EPS) for scale in (1, times))
    torch.testing.assert_close(far, times * near)
