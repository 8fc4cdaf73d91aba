"""`sowa doctor`: what it finds on machines with and without network, and a self-test that cannot hang it."""

import json
import os
import socket
import sys
import threading

import pytest

from sowa import cli
from sowa.about import doctor, selftest
from sowa.about.doctor import examine, self_test


@pytest.fixture
def closed(monkeypatch, tmp_path):
    """No network at all, an empty cache, and nothing that the environment says of either."""

    def refuse(*_, **__):
        raise OSError("closed")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in list(os.environ):
        if name.startswith(("HF_", "PIP_", "SOWA_")) or name.lower().endswith("_proxy") or name == "OMP_NUM_THREADS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "missing", list)


def run(words, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    return done.value.code, capsys.readouterr()


def test_without_network_and_weights(closed, tmp_path):
    facts = examine(with_test=False)
    assert facts["network"] == {"hub": "does not answer", "index": "does not answer"}
    assert facts["weights"]["compact"] is None and facts["weights"]["random_tiny"] == "drawn"
    assert facts["cache"]["path"] == str(tmp_path / "cache") and not facts["cache"]["exists"]
    assert not facts["usable"] and "offline default" in facts["problems"][0]
    assert not (tmp_path / "cache").exists()


def test_without_network_but_with_weights(closed, tmp_path):
    from sowa.backbones.weights import CONVERTED

    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / CONVERTED).write_bytes(b"")
    facts = examine(with_test=False)
    assert facts["weights"]["compact"].endswith(CONVERTED)
    assert facts["usable"] and any("CLIP" in line for line in facts["advice"])


def test_a_name_lookup_that_hangs(closed, monkeypatch):
    gate = threading.Event()

    def hanging(*_, **__):
        gate.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    try:
        assert examine(with_test=False)["network"] == {"hub": "does not answer", "index": "does not answer"}
    finally:
        gate.set()


def test_the_hub_may_be_switched_off(closed, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = examine(with_test=False)
    assert facts["network"]["hub"] == "switched off" and facts["variables"]["HF_HUB_OFFLINE"] == "1"


def test_advice_on_threads(closed, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(
        doctor, "cpu_facts", lambda: {"features": {"AVX2": False}, "limit": 1.5, "threads": 8, "usable": 2}
    )
    advice = " ".join(examine(with_test=False)["advice"])
    assert "OMP_NUM_THREADS=1 leaves 1 of 2" in advice and "1.5 of 8" in advice and "no AVX2" in advice


@pytest.mark.parametrize(
    ("free", "writable", "says"), [(1 << 20, True, "are free"), (1 << 40, False, "cannot be written")]
)
def test_a_cache_that_cannot_be_used(closed, monkeypatch, free, writable, says):
    monkeypatch.setattr(doctor, "_cache", lambda: {"path": "c", "exists": True, "writable": writable, "free": free})
    assert any(says in line for line in examine(with_test=False)["problems"])


def test_json_and_exit_code(closed, capsys, monkeypatch):
    code, out = run(["doctor", "--quick", "--json"], capsys)
    assert code == 1 and json.loads(out.out)["usable"] is False
    monkeypatch.setattr(doctor, "_problems", lambda facts: [])
    code, out = run(["doctor", "--quick"], capsys)
    assert code == 0 and out.out.endswith("usable\n")
    assert all(word in out.out for word in ("processor", "memory", "cache", "model hub", "package index", "extras"))


def test_the_self_test_itself(capsys):
    assert selftest.main() == 0
    loaded, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert loaded["torch"] and done["ok"] and done["defective"] > done["good"]


SAID = "import json, sys, time, os; print(json.dumps({'torch': '1', 'seconds': 1.0}), flush=True); "
DONE = "print(json.dumps({'ok': True, 'seconds': 2.0}))"


@pytest.mark.parametrize(
    ("code", "ok", "says"),
    [
        (SAID + DONE, True, ""),
        (SAID + "time.sleep(60)", False, "did not finish"),
        ("import time; time.sleep(60)", False, "did not finish"),
        (SAID + "os.abort()", False, "signal 6"),
        ("raise ImportError('no such library')", False, "ImportError: no such library"),
        ("print('[]')", False, "exit code 0"),
        ("", False, "exit code 0"),
    ],
    ids=["well", "hangs", "never loads", "crashes", "fails", "garbage", "silent"],
)
def test_a_self_test_is_watched_from_outside(code, ok, says):
    working = 0.5 if "sleep" in code else 30
    found = self_test(
        command=(sys.executable, "-S", "-c", code), loading=working if "seconds" not in code else 30, working=working
    )
    assert found["ok"] is ok and says in found.get("error", "")


def test_a_self_test_that_cannot_start(tmp_path):
    assert "cannot be started" in self_test(command=(str(tmp_path / "none"),))["error"]


def test_a_failed_self_test_is_a_problem(closed, monkeypatch):
    monkeypatch.setattr(doctor, "self_test", lambda: {"ok": False, "error": "signal 4"})
    facts = examine()
    assert "the self-test failed: signal 4" in facts["problems"]
