"""Downloads: gone on with after cuts, never mixed, never from elsewhere, and no waiting without a network."""

import hashlib
import io
import socket
import threading
import time
import zipfile
from dataclasses import replace

import pytest

from sowa.data import web
from sowa.data.sources import SOURCES
from sowa.errors import DataError


def test_cut_connections_are_gone_on_with(run, gear, server, packed):
    server.script.cut = len(packed) // 3
    run()
    starts = [int(wanted.strip("bytes=-") or 0) for _, wanted in server.script.asked]
    assert starts == [0, server.script.cut, 2 * server.script.cut, 3 * server.script.cut][: len(starts)]
    assert len(starts) >= 3


@pytest.mark.parametrize("tag", ['"one"', ""])
def test_next_call_goes_on_where_the_last_was_cut(run, gear, server, packed, tag):
    script = server.script
    script.tag, script.cut = tag, 100
    run.fails(DataError, "cut 5 times, 500 bytes are there .* goes on from there")
    assert run.parts() == [500]
    script.cut, script.asked = 0, []
    run()
    assert [wanted for _, wanted in script.asked] == ["bytes=500-"]


def test_servers_without_ranges_begin_anew(run, gear, server):
    server.script.cut, server.script.cuts, server.script.ranges = 200, 2, False
    run()


def test_a_file_that_changed_meanwhile_is_not_mixed(run, gear, server, packed, monkeypatch):
    server.script.cut = 100
    run.fails(DataError, "cut 5 times")
    other = io.BytesIO(packed)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("gear/news.txt", "new")
    server.script.body, server.script.tag, server.script.cut = other.getvalue(), '"two"', 0
    archive = replace(gear.archives[0], sha256=hashlib.sha256(other.getvalue()).hexdigest(), size=None)
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=(archive,)))
    server.script.asked = []
    assert (run() / "gear/news.txt").read_text() == "new"
    assert [wanted for _, wanted in server.script.asked] == ["bytes=500-"]  # answered with the whole file


def test_a_wrong_part_is_not_taken(run, gear, server):
    server.script.cut, server.script.cuts, server.script.shift = 300, 1, 5
    run()


def test_a_part_longer_than_the_file(run, gear, server, packed):
    server.script.cut = 100
    run.fails(DataError, "cut 5 times")
    (part,) = run.home.rglob("*.part")
    part.write_bytes(packed + b"more")
    server.script.cut = 0
    run()


def test_damaged_note_beside_a_part(run, gear, server):
    server.script.cut = 100
    run.fails(DataError, "cut 5 times")
    (note,) = run.home.rglob("*.part.json")
    note.write_text("{")
    server.script.cut = 0
    run()
    assert server.script.asked[-1] == ("/gear.zip", "")


def test_length_that_is_not_said(run, gear, server):
    server.script.length, server.script.cut, server.script.cuts = False, 200, 1
    run()


def test_passing_trouble_of_the_server(run, gear, server):
    server.script.status, server.script.failures = 503, 3
    run()
    assert len(server.script.asked) == 4


# ----------------------------------------------------------------------------------------------------- wrong, elsewhere


def test_wrong_hash_leaves_nothing(run, gear, server, packed):
    server.script.body = packed[:-1] + bytes([packed[-1] ^ 1])
    line = run.fails(DataError, "sha256 is .*, expected ")
    assert gear.archives[0].sha256 in line
    assert not list(run.home.rglob("gear.zip*"))
    server.script.body = packed
    run()


def test_another_size_is_not_even_fetched(run, gear, server):
    server.script.body += b"more"
    run.fails(DataError, "are recorded: not the file that was published")
    assert run.parts() in ([], [0])


@pytest.mark.parametrize("status", [404, 410, 403])
def test_the_next_place_is_asked(run, gear, server, monkeypatch, status):
    server.script.status, server.script.failures = status, 1
    archive = replace(gear.archives[0], urls=(f"{server.url}?old", f"{server.url}?new"))
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=(archive,)))
    run()
    assert [path for path, _ in server.script.asked] == ["/gear.zip?old", "/gear.zip?new"]


def test_no_place_has_it(run, gear, server):
    server.script.status = 404
    assert "sowa data get gear --from FILE" in run.fails(DataError, "404")


def test_redirects_stay_in_the_web(run, gear, server, tmp_path):
    (tmp_path / "secret").write_text("mine")
    for place in ("file:///etc/hostname", f"file://{tmp_path}/secret", "ftp://127.0.0.1/x"):
        server.script.location = place
        run.fails(DataError, "not followed|not allowed")
    server.script.location = f"http://127.0.0.1:{server.server_port}/here"
    run()


# ----------------------------------------------------------------------------------------------------------- no network


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_nobody_there(run, gear):
    start = time.monotonic()
    run.fails(DataError, "no network", origin=f"http://127.0.0.1:{unused_port()}/gear.zip")
    assert time.monotonic() - start < 2


def test_a_network_that_swallows_everything(run, gear, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(web, "_connect", lambda *_: ended.wait(10))
    start = time.monotonic()
    run.fails(DataError, "no network")
    assert time.monotonic() - start < 2
    ended.set()
