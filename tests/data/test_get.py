"""`get` from licence to data set: what is kept, what is refused, what `--from` may be."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from sowa.data.check import check
from sowa.data.get import NOTICE, get
from sowa.data.roots import _ELPV_WHEEL, DATASETS
from sowa.data.sources import SOURCES
from sowa.errors import ConfigError, DataError, UnknownNameError


def test_fetched_compared_unpacked_noted(run, gear, server):
    root = run()
    assert root == run.home / "gear" and check(root).exit_code == 0
    assert run.said[0].splitlines()[:2] == ["Gears", "Licence: CC BY 4.0"] and "Wheel et al. 2020" in run.said[0]
    note = (root / NOTICE).read_text()
    assert all(words in note for words in ("CC BY 4.0", "Wheel et al. 2020", server.url, gear.archives[0].sha256))
    assert [path.name for path in run.home.iterdir()] == ["gear"]
    assert run() == root and len(server.script.asked) == 1  # the second time nothing is fetched


def test_licence_is_said_before_anything_is_asked(tmp_path, gear, server):
    asked = []
    get("gear", home=tmp_path, say=lambda words: asked.append((words, len(server.script.asked))))
    assert asked[0][1] == 0 and "Licence" in asked[0][0]


def test_progress_and_kept_archive(run, gear):
    seen = []
    run(keep_archive=True, watch=lambda *what: seen.append(what))
    assert {words.split()[0] for words, *_ in seen} == {"fetching", "unpacking"}
    assert all(done <= total for _, done, total in seen)
    (kept,) = run.home.rglob("gear.zip")
    assert str(kept) in run.said[-1]


def test_archives_that_belong_together(run, gear, server, monkeypatch):
    parts = tuple(replace(gear.archives[0], file=f"{i}.zip", urls=(f"{server.url}?{i}",)) for i in range(2))
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=parts))
    assert check(run()).exit_code == 0
    assert len(server.script.asked) == 2


# --------------------------------------------------------------------------------------------------------------- --from


def test_local_archive(run, gear, server, packed, tmp_path):
    path = tmp_path / "mine.zip"
    path.write_bytes(packed)
    assert check(run(origin=str(path))).exit_code == 0
    assert path.exists() and server.script.asked == []


def test_local_archive_of_another_edition(run, gear, packed, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive, zipfile.ZipFile(io.BytesIO(packed)) as members:
        for name in members.namelist():
            info = tarfile.TarInfo(f"wrapper/{name}")
            info.size = members.getinfo(name).file_size
            archive.addfile(info, members.open(name))
    path = tmp_path / "gear.tar.xz"
    path.write_bytes(buffer.getvalue())
    run.fails(DataError, "another edition", origin=str(path))
    assert path.exists()
    root = run(origin=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper())
    assert check(root).exit_code == 0


def test_url_without_recorded_hash_says_so(run, gear, server, monkeypatch):
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=()))
    root = run(origin=f"{server.url}?token=secret")
    note = (root / NOTICE).read_text()
    assert "none was recorded" in note and "secret" not in note + "".join(run.said)


def test_unreadable_archive_without_recorded_hash_is_fetched_anew(run, gear, server, packed, monkeypatch):
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=()))
    server.script.body = b"<html>log in</html>"
    run.fails(DataError, "not an archive", origin=server.url)
    server.script.body = packed
    run(origin=server.url)


def test_two_urls_with_one_file_name_are_two_files(run, gear, server, packed, monkeypatch):
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=()))
    server.script.cut = 100
    run.fails(DataError, "cut", origin=server.url)
    server.script.cut, server.script.asked = 0, []
    run(origin=f"{server.url}?other")
    assert server.script.asked == [("/gear.zip?other", "")]


@pytest.mark.parametrize(
    "origin", ["ftp://127.0.0.1/x.zip", "file:///etc/hosts", "http://", "http://a b/x", "http://[/x"]
)
def test_urls_that_cannot_be_fetched(run, gear, origin):
    run.fails(DataError, "not a URL that can be fetched", origin=origin)


def test_passwords_are_not_sent(run, gear):
    assert "secret" not in run.fails(DataError, "are not sent", origin="http://me:secret@127.0.0.1/x.zip")


def test_no_such_file(run, gear):
    run.fails(DataError, "no such file", origin="nowhere.zip")


def test_a_directory_is_not_unpacked(run, gear, tmp_path):
    run.fails(DataError, "sowa data check", origin=str(tmp_path))


# -------------------------------------------------------------------------------------------------------- target, names


def test_what_is_there_already_is_left_alone(run, gear, server):
    (run.home / "gear").mkdir(parents=True)
    (run.home / "gear/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        run()
    assert (run.home / "gear/mine.txt").read_text() == "mine" and server.script.asked == []
    (run.home / "gear/mine.txt").unlink()
    run()  # an empty directory is no obstacle


def test_hostile_archive_leaves_nothing(run, gear, monkeypatch, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("gear/train/good/0.png", "1")
        archive.writestr("../../../evil.png", "2")
    (tmp_path / "evil.zip").write_bytes(buffer.getvalue())
    monkeypatch.setitem(SOURCES, "gear", replace(gear, archives=()))
    run.fails(DataError, "outside", origin=str(tmp_path / "evil.zip"))
    assert not list(run.home.iterdir()) and not list(tmp_path.rglob("evil.png"))


def test_names_and_hashes_that_are_none(run, gear):
    with pytest.raises(UnknownNameError, match="did you mean 'mvtec'"):
        run("mvtex")
    run.fails(ConfigError, "64 hexadecimal", origin="x.zip", sha256="abc")
    run.fails(ConfigError, "--from", sha256="0" * 64)


def test_by_hand_only(run):
    with pytest.raises(DataError, match=r"drive\.google.* --from FILE"):
        run("dtd")


def test_every_data_set_has_a_source(run):
    assert SOURCES.keys() == DATASETS.keys() - {"drawn"}
    for source in SOURCES.values():
        assert source.licence and source.cite and source.page.startswith("https://")
        for archive in source.archives:
            assert archive.urls and all(url.startswith("https://") for url in archive.urls)
            assert archive.sha256 is None or len(archive.sha256) == 64
    assert SOURCES["elpv"].wheel == _ELPV_WHEEL
