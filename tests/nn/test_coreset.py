import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.nn.coreset import from_mean_distance, from_norms, from_row, greedy_coreset, project


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 30), st.integers(2, 30), st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_each_pick_is_the_farthest_and_the_radius_never_grows(seed, rows, count):
    points, count = random(rows, 3, seed=seed).double(), min(count, rows)
    picked, radius = greedy_coreset(points, count, from_row(points, rows // 2))
    assert picked[0] == rows // 2 and len(set(picked.tolist())) == count
    pairs = torch.cdist(points, points)
    for step in range(1, count):
        to_picked = pairs[:, picked[:step]].amin(dim=1)
        assert to_picked[picked[step]] == to_picked.max()
        torch.testing.assert_close(radius[step - 1], to_picked.max())
    assert (radius.diff() <= 0).all()


def test_all_rows_are_the_bank_in_another_order_even_where_rows_repeat():
    points = random(8, 3)[[0, 1, 2, 3, 0, 1, 2, 3]]
    for begin in (from_row(points, 3), from_norms(points), from_mean_distance(points, torch.tensor([1, 2]))):
        picked, radius = greedy_coreset(points, 8, begin)
        assert sorted(picked.tolist()) == list(range(8))
        assert radius[-1] == 0


def test_beginnings():
    points = torch.tensor([[0.0], [1.0], [10.0]])
    torch.testing.assert_close(from_norms(points), torch.tensor([101.0, 82.0, 181.0]).sqrt())
    torch.testing.assert_close(from_mean_distance(points, torch.tensor([0, 1])), torch.tensor([0.5, 0.5, 9.5]))
    # The mean distance to the start rows also bounds what counts as far later on.
    assert greedy_coreset(points, 2, from_mean_distance(points, torch.tensor([0, 1])))[0].tolist() == [2, 0]


def test_the_projection_is_drawn_from_its_generator_alone():
    points = random(5, 40)
    one, two = (project(points, 7, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (5, 7)
    assert not torch.equal(one, project(points, 7, torch.Generator().manual_seed(4)))
    weight = project(torch.eye(40), 500, torch.Generator().manual_seed(0))
    assert weight.abs().max() <= 40**-0.5 and abs(weight.mean()) < 0.005
