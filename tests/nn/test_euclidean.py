import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.nn import euclidean
from sowa.nn.euclidean import nearest_rows


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute(tokens, bank, count):
    pairs = torch.stack([torch.stack([(t - row).double().norm() for row in bank]) for t in tokens.flatten(0, 1)])
    distance, rows = pairs.sort(dim=1, stable=True)
    shape = (*tokens.shape[:2], count)
    return distance[:, :count].view(shape), rows[:, :count].view(shape)


@pytest.mark.parametrize("block", [4, 7, 1000])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_a_loop_over_all_pairs(block, count, monkeypatch):
    monkeypatch.setattr(euclidean, "BLOCK_ROWS", block)
    tokens, bank = random(2, 5, 6), random(23, 6, seed=1)
    distance, rows = nearest_rows(tokens, bank, count=count)
    want_distance, want_rows = brute(tokens, bank, count)
    torch.testing.assert_close(distance, want_distance.float())
    assert torch.equal(rows, want_rows)


@given(st.integers(0, 50), st.integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_more_rows_are_never_farther(seed, keep):
    tokens, bank = random(2, 3, 4, seed=seed), random(21, 4, seed=seed + 1)
    whole, part = nearest_rows(tokens, bank)[0], nearest_rows(tokens, bank[:keep])[0]
    assert (whole <= part + 1e-6).all()


def test_a_token_of_the_bank_has_no_distance_however_long_it_is():
    bank = random(500, 64) + 1000  # the expanded square would leave tenths
    distance, rows = nearest_rows(bank[None, 40:50], bank)
    assert torch.equal(distance[0, :, 0], torch.zeros(10))
    assert rows[0, :, 0].tolist() == list(range(40, 50))


def test_small_distances_keep_their_digits():
    bank = random(50, 32) + 100
    near = bank[None, :5] + 0.01
    torch.testing.assert_close(nearest_rows(near, bank)[0], torch.full((1, 5, 1), 0.01 * 32**0.5), rtol=2e-3, atol=0)


def test_an_image_does_not_depend_on_its_batch():
    tokens, bank = random(4, 30, 16), random(200, 16, seed=1)
    whole = nearest_rows(tokens, bank, count=2)
    for i in range(4):
        alone = nearest_rows(tokens[i : i + 1], bank, count=2)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, whole, strict=True))


def test_edges():
    bank = random(3, 4)
    assert nearest_rows(random(1, 2, 4), bank, count=9)[0].shape == (1, 2, 3)
    distance, rows = nearest_rows(torch.empty(0, 2, 4), bank, count=2)
    assert distance.shape == rows.shape == (0, 2, 2)
    assert nearest_rows(random(1, 2, 4).half(), bank.half())[0].dtype == torch.float32
    assert nearest_rows(random(1, 2, 4).double(), bank.double())[0].dtype == torch.float64
