"""A cell is whole or not there; a lock is held by one."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import sowa.benchmark.store as store_module
from sowa.benchmark.store import Store, key_of, read_cell
from sowa.errors import SowaError

CELL = {
    "key": "k1",
    "method": "m",
    "league": "training_free",
    "backbone": {},
    "dataset": "d",
    "category": "c",
    "k": 1,
    "seed": 0,
    "protocol": "standard",
    "metrics": {"image_auroc": float("nan")},
    "scores": [],
}


def where(store, **more):
    return store.path(**({"method": "m", "dataset": "d", "category": "c", "k": 1, "seed": 0, "key": "k1"} | more))


def test_a_cell_comes_back_and_nan_is_null(tmp_path):
    store = Store(tmp_path)
    store.write(where(store), CELL)
    assert store.has(where(store), "k1") and not store.has(where(store), "k2")
    (cell,), damaged = store.cells()
    assert cell["metrics"] == {"image_auroc": None} and not damaged


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "sowa.cell"}', json.dumps(CELL)])
def test_a_damaged_cell_is_set_aside_and_named(tmp_path, text):
    store = Store(tmp_path)
    path = where(store)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert store.cells() == ([], [path])
    assert not store.has(path, "k1")
    assert not path.exists() and path.with_name(path.name + ".damaged").exists()


def test_a_newer_cell_is_refused(tmp_path):
    store = Store(tmp_path)
    store.write(where(store), CELL | {"version": 2})
    with pytest.raises(SowaError, match="version 2"):
        read_cell(where(store))


@pytest.mark.parametrize("name", ["../../etc", "a/b", "con:1", "ü", "x" * 300, ".hidden"])
def test_names_stay_in_the_folder_and_apart(tmp_path, name):
    store = Store(tmp_path)
    path = where(store, category=name, method=name)
    assert path.resolve().is_relative_to((tmp_path / "cells").resolve()) and len(path.name) < 255
    assert path != where(store, category=name + "_", method=name)


def test_keys_depend_on_every_value():
    keys = {key_of(parts) for parts in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]})}
    assert len(keys) == 5
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_one_holds_a_lock_and_it_is_free_afterwards(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    with one.claim("unit") as mine:
        assert mine
        with other.claim("unit") as theirs:
            assert theirs is None
        with other.claim("another") as theirs:
            assert theirs
    with other.claim("unit") as theirs:
        assert theirs
    assert not list((tmp_path / "locks").iterdir())


def test_an_abandoned_lock_is_taken_over_and_not_released_by_its_old_owner(tmp_path):
    store = Store(tmp_path, stale=60)
    with store.claim("unit"):
        (path,) = (tmp_path / "locks").iterdir()
        os.utime(path, (1, 1))
        with Store(tmp_path, stale=60).claim("unit") as taken:
            assert taken
            content = path.read_text()
            assert content != store.me
    assert not path.exists() or path.read_text() != content


def test_a_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()  # its number is free now
    path = tmp_path / "locks" / "unit.lock"
    for pid, taken in ((process.pid, True), (os.getpid(), False)):
        Store(tmp_path)
        path.write_text(f"{socket.gethostname()}-{pid}-abcd1234")
        with Store(tmp_path, stale=60).claim("unit") as lock:
            assert (lock is not None) == taken
    path.write_text(f"another-machine-{process.pid}-abcd1234")
    with Store(tmp_path, stale=60).claim("unit") as lock:
        assert lock is None


def test_of_many_that_find_a_lock_abandoned_one_gets_it(tmp_path, monkeypatch):
    """Every one of them looks before the first takes, were it not for the guard."""
    looked = store_module.Lock._abandoned
    monkeypatch.setattr(store_module.Lock, "_abandoned", lambda lock: [looked(lock), time.sleep(0.02)][0])
    Store(tmp_path)
    for turn in range(5):
        path = tmp_path / "locks" / f"unit{turn}.lock"
        path.write_text("gone")
        os.utime(path, (1, 1))
        start = Barrier(8)

        def grab(name=f"unit{turn}", start=start):
            start.wait(20)
            with Store(tmp_path, stale=60).claim(name) as lock:
                start.wait(20)
                return lock is not None

        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(grab) for _ in range(8)]
            assert sum(one.result(30) for one in asked) == 1


def test_a_lock_given_back_late_leaves_that_of_the_next_owner(tmp_path):
    """The old owner looks, the lock is taken over, the old owner deletes: in this order or not at all."""
    store = Store(tmp_path, stale=60)
    with store.claim("unit") as lock:
        os.utime(lock.path, (1, 1))
        assert store_module.Lock(lock.path, "other-1-aaaa", 60).take()
    assert lock.path.read_text() == "other-1-aaaa"


@pytest.mark.parametrize("error", [OSError(37, "no locks"), NotImplementedError()])
def test_folders_without_a_guard_have_locks_all_the_same(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(store_module.FileLock, "acquire", refuse)
    with Store(tmp_path).claim("unit") as lock, Store(tmp_path).claim("unit") as second:
        assert lock and second is None
    assert not list((tmp_path / "locks").iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SowaError, match="cannot be made"):
        Store(tmp_path / "file")
