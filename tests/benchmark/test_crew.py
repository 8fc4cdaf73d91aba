"""Several machines and processes leave the cells of one."""

import pytest

from sowa.benchmark.crew import helpers
from sowa.benchmark.render import write_tables
from sowa.benchmark.runner import run_benchmark
from sowa.benchmark.store import Store


def tables(folder) -> dict[str, str]:
    """All that a reader compares: the text of the tables and every cell but its duration."""
    cells, damaged = Store(folder).cells()
    assert not damaged and not list((folder / "locks").iterdir())
    for cell in cells:
        del cell["seconds"], cell["spent"]
    paths = write_tables(cells, folder / "tables")
    texts = {path.name: path.read_text() for path in paths if path.suffix in (".md", ".csv", ".tex")}
    assert texts
    return {"cells": str(cells), **texts}


@pytest.fixture(scope="module")
def alone(drawn_cache, tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("alone"), "tables": None}


def expected(alone, plan) -> dict[str, str]:
    if alone["tables"] is None:
        run_benchmark(plan, Store(alone["folder"]))
        alone["tables"] = tables(alone["folder"])
    return alone["tables"]


def test_shards_share_the_categories_and_make_the_same_tables(make_plan, tmp_path, alone):
    plan = make_plan(seeds=[0, 1])
    whole = expected(alone, plan)
    counts = [run_benchmark(plan, Store(tmp_path), shard=(part, 2), wait=False).computed for part in (1, 0)]
    assert min(counts) > 0 and counts[0] == counts[1]
    assert tables(tmp_path) == whole
    assert run_benchmark(plan, Store(tmp_path), shard=(5, 7)).found == 0


@pytest.mark.slow
def test_two_processes_make_the_same_tables(make_plan, tmp_path, alone):
    plan = make_plan(seeds=[0, 1])
    whole = expected(alone, plan)
    with helpers(plan, Store(tmp_path), 2, shard=(0, 1)):
        outcome = run_benchmark(plan, Store(tmp_path))
    assert not outcome.failed
    assert tables(tmp_path) == whole


def test_a_process_that_need_not_wait_leaves_what_others_hold(make_plan, tmp_path):
    store = Store(tmp_path, stale=60)
    with store.claim("drawn-cap") as lock:
        assert lock is not None
        outcome = run_benchmark(make_plan(shots=[1]), Store(tmp_path, stale=60), wait=False)
    assert outcome.computed == 2 and not outcome.failed
