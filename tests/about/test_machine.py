"""What the system's files say of processor and memory."""

import pytest

from sowa.about.machine import cpu_facts, memory_facts

CPU = """processor\t: 0
model name\t: Imagined 9000
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_bf16
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


def place(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_features_and_cores(tmp_path):
    place(tmp_path, "proc/cpuinfo", CPU)
    facts = cpu_facts(tmp_path)
    assert facts["name"] == "Imagined 9000" and facts["cores"] == 1
    assert facts["features"] == {
        "AVX2": True, "AVX-512": True, "AVX-512 BF16": True, "AMX": False, "NEON": False, "BF16 (Arm)": False,
    }  # fmt: skip


def test_arm(tmp_path):
    place(tmp_path, "proc/cpuinfo", ARM)
    features = cpu_facts(tmp_path)["features"]
    assert features["NEON"] and features["BF16 (Arm)"] and not features["AVX2"]


def test_nothing_to_read(tmp_path):
    facts = cpu_facts(tmp_path)
    assert facts["features"] == {} and facts["limit"] is None and facts["usable"] >= 1
    assert memory_facts(tmp_path)["limit"] is None


@pytest.mark.parametrize(("text", "limit"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("x y", None)])
def test_limit_of_a_container(tmp_path, text, limit):
    place(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    place(tmp_path, "sys/fs/cgroup/a/cpu.max", text)
    facts = cpu_facts(tmp_path)
    assert facts["limit"] == limit
    assert limit is None or facts["usable"] <= 2


def test_limit_of_the_older_interface(tmp_path):
    place(tmp_path, "proc/self/cgroup", "3:cpu,cpuacct:/box\n2:memory:/box\n")
    place(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000")
    place(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000")
    place(tmp_path, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", str(1 << 30))
    place(tmp_path, "proc/meminfo", "MemTotal:  4194304 kB\nMemAvailable:  1048576 kB\n")
    assert cpu_facts(tmp_path)["limit"] == 0.5 and cpu_facts(tmp_path)["usable"] == 1
    assert memory_facts(tmp_path) == {"total": 4 << 30, "available": 1 << 30, "limit": 1 << 30}


def test_no_limit_is_written_as_a_huge_number(tmp_path):
    place(tmp_path, "proc/self/cgroup", "2:memory:/\n")
    place(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    place(tmp_path, "proc/meminfo", "MemTotal:  4194304 kB\n")
    assert memory_facts(tmp_path)["limit"] is None
