"""Counting, and the published numbers carried in the package."""

import pytest

from sowa.data.layouts import read_samples
from sowa.data.layouts_counts import count, differences, published_counts
from sowa.errors import UnknownNameError
from tests import trees


@pytest.mark.parametrize(
    "dataset, categories, totals",
    [
        ("mvtec", 15, (3629, 0, 467, 1258)),
        ("visa", 12, (8659, 0, 962, 1200)),
        ("btad", 3, (1799, 0, 451, 290)),
        ("dagm", 10, (7004, 1046, 6996, 1054)),
        ("dtd", 12, (1200, 0, 357, 947)),
        ("mpdd", 6, (888, 0, 176, 282)),
        ("loco", 5, (1778, 0, 575, 993)),
        ("ksdd2", 1, (2085, 246, 894, 110)),
        ("elpv", 2, (302, 0, 1206, 715)),
    ],
)
def test_published_numbers_add_up_to_the_published_totals(dataset, categories, totals):
    counts = published_counts(dataset)
    assert len(counts) == categories
    assert tuple(sum(row[kind] for row in counts.values()) for kind in next(iter(counts.values()))) == totals


def test_count_and_differences(tmp_path):
    counts = count(read_samples(trees.mvtec(tmp_path, categories=("bottle", "unknown"), bad=1).root))
    assert counts["bottle"] == {"train_good": 5, "train_bad": 0, "test_good": 2, "test_bad": 2, "masks": 2}
    (problem,) = differences(counts, "mvtec")
    assert problem.kind == "count"
    assert problem.message == ("bottle: train_good 5 of 209, test_good 2 of 20, test_bad 2 of 63 published for mvtec")
    assert differences({"bottle": published_counts("mvtec")["bottle"]}, "mvtec") == []


def test_validation_is_not_counted(tmp_path):
    samples = read_samples(trees.loco(tmp_path).root, validation=True)
    assert count(samples)["pushpins"]["train_good"] == 3


def test_unknown_data_set_lists_the_known():
    with pytest.raises(UnknownNameError, match="btad"):
        published_counts("cifar")
