"""Every process must find the same tests: names that hold a memory address stop a run on several workers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_names_hold_no_address():
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 1000
    assert [line for line in done.stdout.splitlines() if "at 0x" in line] == []
