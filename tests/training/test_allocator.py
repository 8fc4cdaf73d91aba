"""Large blocks are kept by the commands' processes, and by no other."""

import ctypes
import json
import subprocess
import sys

import pytest

from sowa.training.allocator import keep_freed_memory

ASKED = """
import ctypes, json, torch
from sowa.training.allocator import keep_freed_memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
def state():
    info = library.mallinfo2()
    return {"apart": info.hblkhd, "heap": info.arena}

done = keep_freed_memory()
found = [state()]
block = torch.ones(7_500_000)
found.append(state())
del block
found.append(state())
print(json.dumps([done, *found]))
"""
BLOCK = 30_000_000


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 counts")
def test_a_large_block_comes_from_the_heap_and_goes_back_to_it():
    environment = {"PATH": "", "OMP_NUM_THREADS": "1"}  # nothing of MALLOC_
    command = [sys.executable, "-c", ASKED]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    done, before, during, after = json.loads(answer.stdout.splitlines()[-1])
    assert done and during["apart"] - before["apart"] < BLOCK  # of the system's, as it would be by default
    assert after["heap"] == during["heap"] >= BLOCK


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_up_stays(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
