"""What `sowa doctor` finds out: everything that decides whether this machine can judge pictures, within seconds."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

from sowa.about.installed import extras, missing, versions
from sowa.about.machine import cpu_facts, memory_facts
from sowa.about.tables import cached_weights
from sowa.backbones import BACKBONES
from sowa.backbones.weights import hub_endpoint, hub_is_off
from sowa.wheels import CACHE_VARIABLE, cache_root, index_state, is_reachable

__all__ = ["examine", "self_test"]

LOADING, WORKING = 60.0, 10.0
"""Seconds that the self-test may take to load its libraries, and to do its work."""
LEAST_DISK, LEAST_MEMORY = 1 << 30, 2 << 30
VARIABLES = (CACHE_VARIABLE, "SOWA_DATA", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "OMP_NUM_THREADS")
Say = Callable[[str], None]


def examine(*, with_test: bool = True, say: Say | None = None) -> dict[str, Any]:
    """Facts by room, then `problems` (something does not work) and `advice` (something could be better).

    say: told what is being done, for the part that takes seconds.
    """
    with ThreadPoolExecutor(3) as pool:
        hub, index = pool.submit(_hub), pool.submit(index_state)
        facts: dict[str, Any] = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": versions(),
            "extras": extras(),
            "processor": cpu_facts(),
            "memory": memory_facts(),
            "cache": _cache(),
            "weights": _weights(),
            "variables": {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        }
        facts["network"] = {"hub": hub.result(), "index": index.result()}
    if with_test:
        if say:
            say("self-test: fitting on four drawn parts ...")
        facts["self_test"] = self_test()
    facts["problems"], facts["advice"] = _problems(facts), _advice(facts)
    facts["usable"] = not facts["problems"]
    return facts


def _hub() -> str:
    if hub_is_off():
        return "switched off"
    return "answers" if is_reachable(hub_endpoint()) else "does not answer"


def _cache() -> dict[str, Any]:
    """Where fetched files lie, how much of them, and whether more can come."""
    root = cache_root()
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free: int | None = shutil.disk_usage(place).free
    except OSError:
        free = None
    return {"path": str(root), "exists": root.is_dir(), "writable": os.access(place, os.W_OK), "free": free}


def _weights() -> dict[str, str | None]:
    """Backbone -> file of its default weights, `drawn`, or None where they would have to be fetched."""
    found: dict[str, str | None] = {}
    for name, spec in BACKBONES.items():
        path = cached_weights(name)
        found[name] = "drawn" if spec.library == "random" else str(path) if path else None
    return found


def self_test(
    *,
    command: tuple[str, ...] = (sys.executable, "-m", "sowa.about.selftest"),
    loading: float = LOADING,
    working: float = WORKING,
) -> dict[str, Any]:
    """Run `command` in a process of its own and read its two lines; it is ended when it takes too long."""
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError as trouble:
        return {"ok": False, "error": f"cannot be started: {trouble.strerror}"}
    lines: Queue[str] = Queue()
    complaints: list[str] = []
    readers = [
        Thread(target=_pour, args=(process.stdout, lines), daemon=True),
        Thread(target=lambda: complaints.extend(process.stderr.readlines()[-3:]), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        loaded = _facts(lines.get(timeout=loading))
        done = _facts(lines.get(timeout=working)) if loaded else {}
    except Empty:
        process.kill()
        return {"ok": False, "error": f"did not finish within {working:.0f} s (loading: {loading:.0f} s)"}
    finally:
        _end(process)
    if done:
        return {**{f"loaded_{key}" if key == "seconds" else key: value for key, value in loaded.items()}, **done}
    readers[1].join(timeout=2)
    words = complaints[-1].strip() if complaints else f"ended with {_ending(process.returncode)}"
    return {"ok": False, "error": words[:200], **loaded}


def _pour(stream: IO[str], lines: "Queue[str]") -> None:
    """Every line as it comes, then an empty one."""
    for line in stream:
        lines.put(line)
    lines.put("")


def _end(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _facts(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


# --------------------------------------------------------------------------------------------------------------- words


def _problems(facts: dict[str, Any]) -> list[str]:
    """Each with what to do."""
    problems = [f"a package is missing or too old: {name}; pip install --upgrade sowa" for name in missing()]
    cache, network = facts["cache"], facts["network"]
    compact = facts["weights"].get("compact")
    if not cache["writable"]:
        problems.append(f"the cache {cache['path']} cannot be written: set {CACHE_VARIABLE} to a folder of your own")
    if cache["free"] is not None and cache["free"] < LEAST_DISK:
        problems.append(f"only {cache['free'] >> 20} MB are free beside the cache: make room or set {CACHE_VARIABLE}")
    if compact is None and network["index"] == "does not answer":
        problems.append(
            "the weights of the offline default are not in the cache and the package index does not answer:"
            f" copy the cache of another machine to {cache['path']}, or use a .sowa file saved with its backbone inside"
        )
    test = facts.get("self_test")
    if test is not None and not test.get("ok"):
        problems.append(f"the self-test failed: {test.get('error') or 'the painted defect was not found'}")
    return problems


def _advice(facts: dict[str, Any]) -> list[str]:
    advice = []
    cpu, memory, network, test = facts["processor"], facts["memory"], facts["network"], facts.get("self_test") or {}
    if facts["weights"].get("compact") is None and network["index"] != "does not answer":
        advice.append("the offline default's weights (47 MB) are fetched at the first fit")
    if facts["weights"].get("clip") is None:
        how = (
            "they are fetched when asked for" if network["hub"] == "answers" else "the hub cannot be asked for them now"
        )
        advice.append(f"CLIP's weights are not in the cache: {how}; the backbone compact needs no hub")
    if cpu["features"] and not (cpu["features"].get("AVX2") or cpu["features"].get("NEON")):
        advice.append("this processor has no AVX2: expect a pass to take several times longer")
    if cpu["limit"] and cpu["limit"] < cpu["threads"]:
        advice.append(
            f"this process may use {cpu['limit']:.3g} of {cpu['threads']} processors: its container limits it"
        )
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) < cpu["usable"]:
        advice.append(
            f"OMP_NUM_THREADS={wanted} leaves {cpu['usable'] - int(wanted)} of {cpu['usable']} processors idle"
        )
    if not test.get("gpus", True) and Path("/dev/nvidia0").exists():
        advice.append(
            "there is a GPU, but this build of torch does not use it: install the build for your CUDA version"
        )
    if memory["available"] is not None and memory["available"] < LEAST_MEMORY:
        advice.append(f"only {memory['available'] >> 20} MB of memory are free: close something before a large fit")
    return advice
