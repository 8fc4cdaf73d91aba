"""The work list and its blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sowa.errors import ArtifactError, ConfigError
from sowa.scale.blocks import Work, open_work, read_work
from sowa.scale.files import Place
from sowa.scale.turns import ATTEMPTS, Failed, Lost, Turns
from sowa.shards import shard_of

texts = st.text(st.characters(codec=None, exclude_characters="\0"), max_size=8)


@given(paths=st.sets(texts, min_size=1, max_size=30), size=st.integers(1, 9), count=st.integers(1, 5))
def test_blocks_and_shards_hold_every_path_once(paths, size, count):
    work = Work("d", size, tuple(sorted(paths)))
    blocks = list(work.blocks())
    assert [path for block in blocks for path in block.paths] == sorted(paths)
    assert len(blocks) == len(work) and all(len(block.paths) == size for block in blocks[:-1])
    assert len({block.name for block in blocks}) == len(blocks)
    shards = [shard_of(f"{one}/{count}") for one in range(1, count + 1)]
    taken = [block for first, of in shards for block in blocks if block.number % of == first]
    assert sorted(block.number for block in taken) == list(range(len(blocks)))


def test_a_name_tells_detector_number_and_pictures():
    ids = {
        block.id
        for work in (Work("d", 2, ("a", "b", "c")), Work("e", 2, ("a", "b", "c")), Work("d", 2, ("a", "bc", "d")))
        for block in work.blocks()
    }
    assert len(ids) == 6
    assert next(Work("d", 2, ("a", "b", "c")).blocks()) == next(Work("d", 2, ("a", "b", "z")).blocks())


@given(paths=st.sets(texts, min_size=1, max_size=9))
def test_a_list_comes_back_whatever_its_names(paths, tmp_path_factory):
    place = Place(str(tmp_path_factory.mktemp("out")))
    work = Work("d", 3, tuple(sorted(paths)))
    open_work(place, work)
    open_work(place, work)
    assert read_work(place) == work


def test_a_folder_belongs_to_one_list(tmp_path):
    place = Place(str(tmp_path))
    open_work(place, Work("d", 3, ("a", "b")))
    for other, answer in ((Work("e", 3, ("a", "b")), "another detector"), (Work("d", 3, ("a",)), "other pictures")):
        with pytest.raises(ConfigError, match=answer):
            open_work(place, other)
    with pytest.raises(ConfigError, match=r"no work\.jsonl"):
        read_work(Place(str(tmp_path / "elsewhere")))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-4],
        lambda text: text + '"c"\n',
        lambda text: text.replace('"a"', "7"),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"block": 3', '"block": 0'),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_list_is_named(tmp_path, damage):
    place = Place(str(tmp_path))
    open_work(place, Work("d", 3, ("a", "b")))
    path = tmp_path / "work.jsonl"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ArtifactError, match=r"work\.jsonl") as caught:
        read_work(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shards_that_cannot_be(text):
    with pytest.raises(ConfigError, match="--shard"):
        shard_of(text)


def test_what_was_lost_goes_first_and_not_for_ever():
    one, two = Work("d", 1, ("a", "b")).blocks()
    turns = Turns([one, two])
    for _ in range(ATTEMPTS - 1):
        assert turns.next() == one
        assert turns.again(one, "lost") == Lost(0)
    assert turns.next() == one
    assert turns.again(one, "lost") == Failed(0, "lost")
    assert turns.next() == two and not turns
