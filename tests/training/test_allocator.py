"""Large blocks are kept by the commands' processes, and by no other."""

import subprocess
import sys

import pytest

from sowa.training.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from sowa.training.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def work():
    for _ in range(5):
        several = [torch.ones(5_000_000) for _ in range(6)]
        del several
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is set up")
def test_a_block_that_comes_again_is_not_faulted_in_again():
    found = {}
    for how in ("kept", "plain"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=False)
        if how == "kept" and "AssertionError" in done.stderr:
            pytest.skip("another C library, or set up by the environment")
        found[how] = int(done.stdout)
    assert found["kept"] * 10 < found["plain"]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_up_stays(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
