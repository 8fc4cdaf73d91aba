"""The processor, its memory, and how much of both this process may use. Reads files of the system; loads nothing."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["FEATURES", "cpu_facts", "memory_facts"]

FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "AVX-512 BF16": ("avx512_bf16",),
    "AMX": ("amx_tile", "amx_bf16"),
    "NEON": ("asimd", "neon"),
    "BF16 (Arm)": ("bf16",),
}
"""What decides speed -> flags of the processor, all of which it needs (any, for NEON)."""
NO_LIMIT = 1 << 60
"""Memory limits above are none."""


def cpu_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Name, features, cores and threads; `usable` is what this process may keep busy at once, limits included."""
    info = _text(root / "proc/cpuinfo")
    flags = _flags(info)
    threads = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    limit = _cpu_limit(root)
    return {
        "name": _field(info, "model name") or _of_the_system("machdep.cpu.brand_string") or platform.processor(),
        "architecture": platform.machine(),
        "features": {name: _has(name, wanted, flags) for name, wanted in FEATURES.items()} if flags else {},
        "cores": _cores(info),
        "threads": threads,
        "limit": limit,
        "usable": max(1, min(allowed, threads, int(limit + 0.5) if limit else threads)),
    }


def memory_facts(root: Path = Path("/")) -> dict[str, int | None]:
    """Bytes: `total`, `available` now, and `limit` where a container sets one below the total."""
    found = {
        line.partition(":")[0]: line.split()[1] for line in _text(root / "proc/meminfo").splitlines() if ":" in line
    }
    total, available = (_kilobytes(found.get(name)) for name in ("MemTotal", "MemAvailable"))
    if total is None and (text := _of_the_system("hw.memsize")).isdecimal():
        total = int(text)
    limits = [
        int(text)
        for path in _group_files(root, "memory", ("memory.max", "memory.limit_in_bytes"))
        if (text := _text(path).strip()).isdecimal()
    ]
    limit = min((value for value in limits if value < (total or NO_LIMIT)), default=None)
    return {"total": total, "available": available, "limit": limit}


def _has(name: str, wanted: tuple[str, ...], flags: set[str]) -> bool:
    return any(flag in flags for flag in wanted) if name == "NEON" else all(flag in flags for flag in wanted)


def _flags(info: str) -> set[str]:
    listed = _field(info, "flags") or _field(info, "Features")
    if not listed and sys.platform == "darwin":
        listed = f"{_of_the_system('machdep.cpu.features')} {_of_the_system('machdep.cpu.leaf7_features')}"
        listed += " neon" if platform.machine() == "arm64" else ""
    return set(listed.lower().split())


def _cores(info: str) -> int | None:
    """Real ones, without their second threads; None where nobody says."""
    pairs, package = set(), ""
    for line in info.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            package = value.strip()
        elif key.strip() == "core id":
            pairs.add((package, value.strip()))
    text = _of_the_system("hw.physicalcpu")
    return len(pairs) or (int(text) if text.isdecimal() else None)


def _cpu_limit(root: Path) -> float | None:
    """Processors' worth of time that the control groups around this process grant; None without a limit."""
    found = []
    for path in _group_files(root, "cpu", ("cpu.max",)):
        words = _text(path).split()
        if len(words) == 2 and words[0].isdecimal() and int(words[1] or 0) > 0:
            found.append(int(words[0]) / int(words[1]))
    for path in _group_files(root, "cpu", ("cpu.cfs_quota_us",)):
        quota, period = _text(path).strip(), _text(path.with_name("cpu.cfs_period_us")).strip()
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 < int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _group_files(root: Path, controller: str, names: tuple[str, ...]) -> list[Path]:
    """Files of that name from this process's control group up to the root one, in either version of the interface."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or (parts[1] and controller not in parts[1].split(",")):
            continue
        home = root / "sys/fs/cgroup" / (controller if parts[1] else "")
        group = Path(parts[2].lstrip("/"))
        for place in (group, *group.parents):
            found += [path for name in names if (path := home / place / name).is_file()]
    return found


def _field(info: str, name: str) -> str:
    return next(
        (line.partition(":")[2].strip() for line in info.splitlines() if line.partition(":")[0].strip() == name), ""
    )


def _kilobytes(text: str | None) -> int | None:
    return int(text) * 1024 if text and text.isdecimal() else None


def _of_the_system(name: str) -> str:
    """A value of sysctl, where there is one."""
    if sys.platform != "darwin":
        return ""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=2)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if not done.returncode else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
