import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sowa.nn import bank
from sowa.nn.bank import leave_one_out_distance, nearest_distance


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_of_the_bank_has_no_distance():
    rows = random(9, 5)
    torch.testing.assert_close(nearest_distance(rows[None, 2:4] * 3, rows), torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_opposite_is_two():
    row = random(1, 5)
    torch.testing.assert_close(nearest_distance(-row[None], row), torch.full((1, 1), 2.0))


@given(st.integers(0, 50), st.integers(1, 20))
def test_more_rows_are_never_farther_and_order_does_not_matter(seed, keep):
    queries, rows = random(2, 3, 4, seed=seed), random(21, 4, seed=seed + 1)
    whole = nearest_distance(queries, rows)
    assert (whole <= nearest_distance(queries, rows[:keep]) + 1e-7).all()
    torch.testing.assert_close(whole, nearest_distance(queries, rows.flip(0)))


def test_blocks_do_not_change_the_result(monkeypatch):
    queries, rows = random(2, 3, 4), random(21, 4, seed=1)
    whole = nearest_distance(queries, rows)
    monkeypatch.setattr(bank, "BLOCK_ROWS", 4)
    torch.testing.assert_close(nearest_distance(queries, rows), whole)


def test_half_precision_is_searched_in_single():
    queries, rows = random(1, 3, 4).half(), random(7, 4, seed=1).half()
    assert nearest_distance(queries, rows).dtype == torch.float32


@given(st.integers(0, 50), st.sampled_from([torch.bfloat16, torch.float16]))
def test_halves_choose_a_row_and_its_distance_is_that_of_single(seed, half):
    queries, rows = random(2, 30, 16, seed=seed), random(50, 16, seed=seed + 1)
    exact, found = nearest_distance(queries, rows), nearest_distance(queries, rows, compared_in=half)
    every = 1 - torch.nn.functional.cosine_similarity(queries[:, :, None], rows, dim=-1)
    assert ((every - found[..., None]).abs().amin(dim=-1) < 1e-6).all()
    assert (found - exact).min() > -1e-6 and (found - exact).max() < 0.02


def test_what_all_rows_share_does_not_hide_their_differences_from_halves():
    """Side by side with a common part a hundred times as long, cosines differ by less than bfloat16 can tell."""
    common = 100 * random(1, 16)
    rows = common + random(40, 16, seed=1)
    found = nearest_distance(rows[None], rows, compared_in=torch.bfloat16)
    torch.testing.assert_close(found, torch.zeros(1, 40), rtol=0, atol=1e-6)


def test_halves_do_not_see_blocks_either(monkeypatch):
    queries, rows = random(2, 30, 16), random(50, 16, seed=1)
    monkeypatch.setattr(bank, "BLOCK_ROWS", 7)
    found = nearest_distance(queries, rows, compared_in=torch.bfloat16)
    assert (found - nearest_distance(queries, rows)).abs().max() < 0.02
    assert nearest_distance(queries, rows[:1], compared_in=torch.bfloat16).shape == (2, 30)


def test_leaving_one_out_is_the_distance_to_the_others():
    tokens = random(3, 4, 5)
    want = nearest_distance(tokens[1:2], tokens[[0, 2]].flatten(0, 1))
    torch.testing.assert_close(leave_one_out_distance(tokens, (2, 2))[1:2], want)


def test_left_out_a_shot_knows_the_others_and_its_own_far_places():
    tokens = random(3, 64, 5)
    left_out = leave_one_out_distance(tokens, (8, 8), own_places=True)
    others = nearest_distance(tokens[1:2], tokens[[0, 2]].flatten(0, 1))[0]
    far = tokens[1].reshape(8, 8, 5)[4:].flatten(0, 1)  # all of it at least a quarter of the grid below the first row
    assert (left_out[1] <= others + 1e-6).all()
    assert (left_out[1, :8] <= nearest_distance(tokens[1:2, :8], far)[0] + 1e-6).all()
    assert (left_out > 1e-4).all()  # never its own place


def test_left_out_twins_know_each_other():
    twins = random(1, 16, 5).repeat(2, 1, 1)
    torch.testing.assert_close(leave_one_out_distance(twins, (4, 4)), torch.zeros(2, 16), atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [1, 2, 8])
def test_one_image_alone_has_a_finite_distance(side):
    distance = leave_one_out_distance(random(1, side * side, 5), (side, side))
    assert distance.isfinite().all() and (side == 1 or (distance > 0).all())
