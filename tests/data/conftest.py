"""A server on this machine that cuts, lies and changes its mind, and the data set it has."""

import hashlib
import http.server
import io
import os
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sowa.data.get import get
from sowa.data.sources import SOURCES, Archive, Source
from tests.trees import mvtec


@dataclass
class Script:
    """What the server does; tests change it while it runs."""

    body: bytes = b""
    cut: int = 0
    """Bytes of each answer after which the connection is closed; 0 is never."""
    cuts: int = 100
    """How many answers are cut."""
    status: int = 200
    failures: int = 100
    """How many answers have that status, if it is not 200."""
    tag: str = '"one"'
    ranges: bool = True
    shift: int = 0
    """By how much an answer to a range begins too late."""
    length: bool = True
    location: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range) of each GET."""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        script, wanted = self.server.script, self.headers.get("Range", "")
        script.asked.append((self.path, wanted))
        if script.location and self.path != "/here":
            self._head(302, {"Location": script.location})
        elif script.status != 200 and script.failures > 0:
            script.failures -= 1
            self._head(script.status, {"Content-Length": "0"})
        elif wanted and script.ranges and self.headers.get("If-Range", script.tag) == script.tag:
            self._part(script, int(wanted.removeprefix("bytes=").removesuffix("-")))
        else:
            self._head(200, {"Content-Length": str(len(script.body))} if script.length else {})
            self._send(script, script.body)

    def _part(self, script, start):
        total, start = len(script.body), start + script.shift
        if start >= total:
            self._head(416, {"Content-Range": f"bytes */{total}"})
            return
        there = {"Content-Range": f"bytes {start}-{total - 1}/{total}", "Content-Length": str(total - start)}
        self._head(206, there)
        self._send(script, script.body[start:])

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in (headers | ({"ETag": self.server.script.tag} if self.server.script.tag else {})).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, script, content):
        if script.cut and script.cuts > 0:
            script.cuts -= 1
            content = content[: script.cut]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.script = Script()
    server.url = f"http://127.0.0.1:{server.server_port}/gear.zip"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def alone(monkeypatch):
    """No proxy and no setting of this machine has a say."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SOWA_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> bytes:
    """A data set of MVTec's plan as a zip."""
    root = mvtec(tmp_path_factory.mktemp("packed"), categories=("gear",), traps=False).root
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    return buffer.getvalue()


@pytest.fixture
def gear(server, packed, monkeypatch, alone):
    """A source `gear` whose archive the server has."""
    server.script.body = packed
    archive = Archive("gear.zip", (server.url,), sha256=hashlib.sha256(packed).hexdigest(), size=len(packed))
    source = Source("Gears", "http://127.0.0.1/page", "CC BY 4.0", ("Wheel et al. 2020",), (archive,))
    monkeypatch.setitem(SOURCES, "gear", source)
    return source


class Run:
    """One `get` with what it said."""

    def __init__(self, home: Path):
        self.home, self.said = home, []

    def __call__(self, name: str = "gear", **options) -> Path:
        return get(name, home=self.home, pause=0.0, say=self.said.append, **options)

    def fails(self, error: type[Exception], words: str, **options) -> str:
        """One line with these words, and no data set."""
        with pytest.raises(error, match=words) as caught:
            self(**options)
        assert "\n" not in str(caught.value)
        assert not (self.home / "gear").exists()
        return str(caught.value)

    def parts(self) -> list[int]:
        """Sizes of what is there of the archive."""
        return [path.stat().st_size for path in self.home.rglob("*.part")]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "home")
