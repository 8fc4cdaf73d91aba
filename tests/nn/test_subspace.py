"""Subspaces: against scikit-learn, added up and taken apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from sowa.nn.subspace import merged, moments, residual, subspace, widened, without


def tokens(seed=0, images=3, places=40, width=12, rank=4):
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(rank, width, generator=g)
    return (
        torch.randn(images, places, rank, generator=g) @ base
        + 0.05 * torch.randn(images, places, width, generator=g)
        + 3
    )


def test_it_is_the_principal_components_of_scikit_learn():
    x = tokens()
    space = subspace(moments(x), 0.95)
    rows = x.flatten(0, 1).numpy().astype(np.float64)
    pca = PCA(n_components=space.basis_DR.shape[1]).fit(rows)
    assert pca.explained_variance_ratio_.sum() >= 0.95 > pca.explained_variance_ratio_[:-1].sum()
    expected = ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).sum(axis=1)
    np.testing.assert_allclose(residual(x, space).flatten().numpy(), expected, atol=2e-4)


@given(st.integers(0, 1000))
def test_leaving_out_equals_never_having_seen(seed):
    x = tokens(seed)
    parts = [moments(one) for one in x]
    left, never = without(merged(parts), parts[1]), moments(x[[0, 2]])
    assert left.count == never.count
    torch.testing.assert_close(left.outer_DD, never.outer_DD, rtol=1e-9, atol=1e-7)
    one, two = subspace(left, 0.9), subspace(never, 0.9)
    torch.testing.assert_close(residual(x, one), residual(x, two), rtol=1e-3, atol=1e-3)


def test_what_lies_in_the_subspace_has_no_residual_and_what_lies_outside_has():
    x = tokens()
    space = subspace(moments(x), 0.99)
    inside = space.mean_D + 5 * space.basis_DR[:, 0]
    across = torch.linalg.svd(space.basis_DR, full_matrices=True)[0][:, -1]
    values = residual(torch.stack((inside, space.mean_D + 2 * across))[None], space)
    torch.testing.assert_close(values, torch.tensor([[0.0, 4.0]]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_tokens_that_are_all_alike(value):
    x = torch.full((2, 5, 4), value)
    space = subspace(moments(x), 0.95)
    assert residual(x, space).abs().max() < 1e-4 and residual(x + 1, space).isfinite().all()


@given(st.integers(0, 50), st.integers(1, 5))
def test_widened_spans_both_and_a_direction_in_the_subspace_adds_nothing(seed, count):
    g = torch.Generator().manual_seed(seed)
    space = subspace(moments(torch.randn(200, 12, generator=g) * torch.linspace(3, 0.1, 12)), 0.8)
    axes = torch.randn(12, count, generator=g)
    axes[:, 0] = space.basis_DR @ torch.randn(space.basis_DR.shape[1], generator=g)
    wide = widened(space, axes)
    rank = space.basis_DR.shape[1]
    assert torch.equal(wide.basis_DR[:, :rank], space.basis_DR) and torch.equal(wide.variance_R, space.variance_R)
    assert not wide.basis_DR[:, rank].any()
    tokens = torch.randn(2, 5, 12, generator=g) * 3
    moved = tokens + axes @ torch.randn(count, generator=g)
    torch.testing.assert_close(residual(moved, wide), residual(tokens, wide), atol=1e-3, rtol=1e-3)
    assert (residual(tokens, wide) <= residual(tokens, space) + 1e-4).all()
