import math

import pytest
import torch

from sowa.nn.heads import Head, binary_focal

VALUES = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def head() -> Head:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Head(width=6, hidden=(4, 3))


def test_a_probability_per_row():
    got = head()(VALUES * 100)
    assert got.shape == (5,) and (got >= 0).all() and (got <= 1).all()
    assert head()(VALUES).std() > 0


@pytest.mark.parametrize("mode", [True, False])
def test_rows_do_not_meet_unless_it_learns(mode):
    one = head().train(mode)
    torch.testing.assert_close(one(VALUES), torch.cat([one(row[None]) for row in VALUES]))
    assert not torch.allclose(one(VALUES, learn=True), head()(VALUES))


def test_only_learning_moves_the_running_statistics():
    one = head()
    before = {name: value.clone() for name, value in one.named_buffers()}
    one(VALUES)
    one(VALUES[:1], learn=True)  # a single row has no statistics of its own
    assert all(torch.equal(value, before[name]) for name, value in one.named_buffers())
    one(VALUES, learn=True)
    moved = [name for name, value in one.named_buffers() if not torch.equal(value, before[name])]
    assert len(moved) == 4


def test_focal_loss_of_known_probabilities():
    got = binary_focal(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]), gamma=2.0, sigmoid_twice=False)
    want = (-(0.1**2) * math.log(0.9) - 0.8**2 * math.log(0.2)) / 2
    assert got.item() == pytest.approx(want, rel=1e-5)
    plain = binary_focal(torch.tensor([0.3]), torch.tensor([0]), gamma=0.0, sigmoid_twice=False)
    assert plain.item() == pytest.approx(-math.log(0.7), rel=1e-5)


def test_the_published_loss_cannot_reach_zero():
    perfect = torch.tensor([1.0, 0.0]), torch.tensor([1, 0])
    assert binary_focal(*perfect, gamma=2.0, sigmoid_twice=False) == 0
    assert binary_focal(*perfect, gamma=2.0, sigmoid_twice=True) > 0.09
