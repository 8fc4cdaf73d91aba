"""The draw of the shots: nested, by name, normal images of train only, the same on every machine."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sowa.data.shots import draw_shots, shots_from_record, shots_record
from sowa.errors import ConfigError, DataError
from sowa.types import Sample


def pool(category: str = "bottle", normals: int = 8) -> list[Sample]:
    """Normals of train, and everything that must not be drawn."""

    def sample(name: str, split: str, label: int) -> Sample:
        return Sample(name=f"{category}/{name}", image=Path(name), category=category, split=split, label=label)

    train = [sample(f"train/good/{i:03}.png", "train", 0) for i in range(normals)]
    return [*train, sample("train/bad/0.png", "train", 1), sample("test/good/0.png", "test", 0)]


def names(shots) -> dict[str, list[str]]:
    return {category: [sample.name for sample in chosen] for category, chosen in shots.items()}


def test_the_draw_is_pinned():
    drawn = names(draw_shots(pool(), dataset="mvtec", k=4, seed=1))
    # numpy.random.default_rng(zlib.crc32(b"mvtec/bottle") + 1000).permutation(8)[:4]
    assert drawn == {"bottle": [f"bottle/train/good/{n}.png" for n in ("000", "007", "002", "005")]}


@given(st.randoms(), st.integers(0, 5), st.integers(0, 8), st.integers(0, 8))
def test_nested_normal_of_train_and_independent_of_order(random, seed, one, other):
    samples = pool() + pool("grid", 9)
    shuffled = random.sample(samples, len(samples))
    small, large = sorted((one, other))
    few = draw_shots(shuffled, dataset="mvtec", k=small, seed=seed)
    many = draw_shots(samples, dataset="mvtec", k=large, seed=seed)
    assert list(many) == ["bottle", "grid"]
    for category, chosen in many.items():
        assert chosen[:small] == few[category] and len(set(names(many)[category])) == large
        assert all(s.label == 0 and s.split == "train" and s.category == category for s in chosen)


def test_seed_data_set_and_category_each_change_the_draw():
    def drawn(dataset="mvtec", seed=0, category="bottle"):
        shots = draw_shots(pool(category, 40), dataset=dataset, k=4, seed=seed)[category]
        return [s.name.rpartition("/")[2] for s in shots]

    assert len({tuple(d) for d in (drawn(), drawn("visa"), drawn(seed=1), drawn(category="grid"))}) == 4


def test_too_few_normals_name_the_category():
    with pytest.raises(DataError, match="category bottle of mvtec: 8 normal images for training, 9 shots asked for"):
        draw_shots(pool(), dataset="mvtec", k=9, seed=0)
    assert len(draw_shots(pool(), dataset="mvtec", k=9, seed=0, allow_fewer=True)["bottle"]) == 8


@pytest.mark.parametrize("allow_fewer", [True, False])
def test_no_normals_name_the_category_unless_none_are_wanted(allow_fewer):
    with pytest.raises(DataError, match="category bottle of mvtec: no normal image"):
        draw_shots(pool(normals=0), dataset="mvtec", k=1, seed=0, allow_fewer=allow_fewer)
    assert draw_shots(pool(normals=0), dataset="mvtec", k=0, seed=0) == {"bottle": []}


@pytest.mark.parametrize("k, seed", [(-1, 0), (1, -1)])
def test_negative_k_or_seed_is_refused(k, seed):
    with pytest.raises(ConfigError):
        draw_shots(pool(), dataset="mvtec", k=k, seed=seed)


def test_record_brings_the_same_shots_back():
    samples = pool() + pool("grid", 5)
    shots = draw_shots(samples, dataset="mvtec", k=2, seed=3)
    record = shots_record(shots, dataset="mvtec", k=2, seed=3)
    assert record == {"dataset": "mvtec", "seed": 3, "k": 2, "shots": names(shots)}
    assert shots_from_record(record, reversed(samples)) == shots


def test_record_of_another_data_set_or_of_a_defect_is_refused():
    samples = pool()
    record = shots_record(draw_shots(samples, dataset="mvtec", k=8, seed=0), dataset="mvtec", k=8, seed=0)
    with pytest.raises(DataError, match="is not in the data set mvtec"):
        shots_from_record(record, samples[1:])
    with pytest.raises(DataError, match="is a defective image"):
        shots_from_record(record, [replace(samples[0], label=1), *samples[1:]])


@given(st.integers(0, 20), st.lists(st.sampled_from("abc"), min_size=4, max_size=12))
def test_shots_are_spread_over_groups(seed, groups):
    samples = [replace(sample, group=group) for sample, group in zip(pool(normals=len(groups)), groups, strict=False)]
    chosen = draw_shots(samples, dataset="elpv", k=len(groups), seed=seed)["bottle"]
    kinds = len(set(groups))
    assert len({sample.group for sample in chosen[:kinds]}) == kinds
    assert sorted(sample.name for sample in chosen) == sorted(sample.name for sample in samples)


def test_without_groups_the_permutation_stands():
    lone = [replace(sample, group="one") for sample in pool()]
    assert names(draw_shots(lone, dataset="mvtec", k=4, seed=1)) == names(
        draw_shots(pool(), dataset="mvtec", k=4, seed=1)
    )
