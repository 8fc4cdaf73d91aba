"""The order of the batches: a pure function of (seed, step)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.data.dataset import ImageDataset
from sowa.errors import ConfigError
from sowa.training.datamodule import AuxiliaryData, BalancedSampler, RepeatingSampler, StepSampler


def sampler(count, batch_size, seed=0, step=0, rank=0, world=1):
    return StepSampler(count=count, batch_size=batch_size, seed=seed, step=lambda: step, rank=rank, world=world)


sizes = {"count": st.integers(1, 40), "batch_size": st.integers(1, 9), "seed": st.integers(0, 5)}


@given(**sizes, epoch=st.integers(0, 3))
def test_an_epoch_sees_every_index_once(count, batch_size, seed, epoch):
    batches = list(sampler(count, batch_size, seed, step=epoch * -(-count // batch_size)))
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert len(batches) == len(sampler(count, batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(**sizes, step=st.integers(0, 60))
def test_starting_anywhere_yields_the_rest_of_that_epoch(count, batch_size, seed, step):
    length = len(sampler(count, batch_size))
    whole = list(sampler(count, batch_size, seed, step=step // length * length))
    assert list(sampler(count, batch_size, seed, step=step)) == whole[step % length :]


def test_epochs_and_seeds_differ():
    orders = [list(sampler(30, 30, seed, step)) for seed in (0, 1) for step in (0, 1)]
    assert all(orders.count(order) == 1 for order in orders)


@settings(max_examples=50)
@given(count=st.integers(1, 40), each=st.integers(1, 4), world=st.integers(1, 4), step=st.integers(0, 30))
def test_devices_share_the_batches_of_one(count, each, world, step):
    size = each * world
    alone = list(sampler(count, size, step=step))
    shares = [list(sampler(count, size, step=step, rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}, "every device takes part in every step"
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(index for part in parts for index in part) == sorted(batch), "none lost, none doubled"
        assert all(part == batch[rank::world] for rank, part in enumerate(parts))


@pytest.mark.parametrize(("batch_size", "world"), [(0, 1), (-2, 1), (3, 2)])
def test_batches_that_cannot_be_split(batch_size, world):
    with pytest.raises(ConfigError, match=f"batch_size={batch_size}"):
        sampler(10, batch_size, world=world)


def test_nothing_to_train_on():
    with pytest.raises(ConfigError, match="empty"):
        AuxiliaryData(dataset=ImageDataset(samples=[], image_size=56))


def balanced(labels, batch_size=4, steps=None, step=0, seed=0):
    return BalancedSampler(labels=labels, steps=steps, batch_size=batch_size, seed=seed, step=lambda: step)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=30), st.integers(1, 9), st.integers(0, 20))
def test_half_of_every_balanced_batch_is_anomalous(labels, steps, step):
    labels = [0, 1, *labels]
    batches = list(balanced(labels, steps=steps, step=step // steps * steps))
    assert len(batches) == steps
    assert all(sum(labels[i] for i in batch) == 2 and len(batch) == 4 for batch in batches)


def test_a_balanced_epoch_uses_every_image_before_any_again():
    labels = [0] * 6 + [1] * 3
    first = [i for batch in balanced(labels, steps=3) for i in batch if not labels[i]]
    assert sorted(first) == list(range(6))
    rare = [i for batch in balanced(labels, steps=3) for i in batch if labels[i]]
    assert sorted(rare) == [6, 6, 7, 7, 8, 8]


def test_a_balanced_run_resumes_in_the_middle_and_epochs_differ():
    labels = [0, 1] * 8
    whole = list(balanced(labels, steps=5))
    assert list(balanced(labels, steps=5, step=3)) == whole[3:]
    assert list(balanced(labels, steps=5, step=5)) != whole


@pytest.mark.parametrize(("labels", "batch_size"), [([0, 0], 4), ([1, 1], 4), ([0, 1], 3)])
def test_what_cannot_be_balanced(labels, batch_size):
    with pytest.raises(ConfigError, match="balanced"):
        balanced(labels, batch_size=batch_size)


@given(images=st.integers(1, 12), steps=st.integers(1, 9))
def test_a_fixed_number_of_steps_goes_round_the_images(images, steps):
    drawn = [
        i for batch in RepeatingSampler(images=images, steps=steps, batch_size=3, seed=0, step=lambda: 0) for i in batch
    ]
    assert len(drawn) == 3 * steps
    counts = [drawn.count(i) for i in range(images)]
    assert max(counts) - min(counts) <= 1
