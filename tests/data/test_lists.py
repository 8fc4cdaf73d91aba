"""Lists of images in the package: what they keep apart, and data they are not about."""

import csv
from pathlib import Path

import pytest

from sowa.data.lists import known_lists, listed
from sowa.errors import DataError, UnknownNameError
from sowa.types import Sample

HOME = Path(listed.__code__.co_filename).parent / "lists"


def rows(name):
    with (HOME / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cell(row):
    return int(row["name"][-8:-4])


def test_the_lists_of_the_quality_figures():
    assert known_lists() == [
        "drawn_development",
        "drawn_locked",
        "elpv_development",
        "elpv_first_development",
        "elpv_first_locked",
        "elpv_locked",
    ]
    for name in known_lists():
        found = rows(name)
        assert len({row["name"] for row in found}) == len(found) > 200
        for category in {row["category"] for row in found}:
            mine = [row for row in found if row["category"] == category]
            assert {(row["split"], row["label"]) for row in mine} == {("train", "0"), ("test", "0"), ("test", "1")}
            assert sum(row["split"] == "train" for row in mine) >= 16


def test_drawn_lists_share_no_generator():
    kinds = [
        {row["category"].removesuffix("_lot") for row in rows(f"drawn_{part}")} for part in ("development", "locked")
    ]
    assert not kinds[0] & kinds[1]


def test_cells_of_a_module_are_on_one_side():
    """No cell of one list lies within the runs of the other, and no test cell in a module of shots."""
    parts = {part: rows(f"elpv_{part}") for part in ("development", "locked")}
    names = [{row["name"] for row in found} for found in parts.values()]
    assert not names[0] & names[1]
    modules = [
        tuple(int(end) for end in row["group"].split("-")) for found in parts.values() for row in found if row["group"]
    ]
    for found in parts.values():
        assert all(bool(row["group"]) == (row["split"] == "train") for row in found)
        assert not any(a <= cell(row) <= b for row in found if row["split"] == "test" for a, b in set(modules))
    first, second = (sorted(cell(row) for row in found) for found in parts.values())
    gaps = sum(
        1
        for a, b in zip(sorted(first + second), sorted(first + second)[1:], strict=False)
        if (a in first) != (b in first)
    )
    assert gaps <= 12, "the two lists take turns too often to be blocks of modules"


def sample(name, label=0, category="nut"):
    return Sample(name=name, image=Path(name), category=category, split="test", label=label)


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("category,split,label,group,name\nnut,train,0,lot 1,b.png\nnut,test,1,,a.png\n")
    found = listed([sample("a.png", 1), sample("b.png"), sample("c.png")], str(path))
    assert [(one.name, one.split, one.group) for one in found] == [("a.png", "test", ""), ("b.png", "train", "lot 1")]
    with pytest.raises(DataError, match=r"no image a\.png"):
        listed([sample("b.png")], str(path))
    with pytest.raises(DataError, match="another one"):
        listed([sample("a.png", 0), sample("b.png")], str(path))
    with pytest.raises(DataError, match="another one"):
        listed([sample("a.png", 1, "bolt"), sample("b.png")], str(path))
    path.write_text("name\na.png\n")
    with pytest.raises(DataError, match="columns"):
        listed([sample("a.png")], str(path))
    with pytest.raises(UnknownNameError):
        listed([], "elpv_secret")
