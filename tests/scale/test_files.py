"""Which pictures are meant, and files that appear whole or not at all."""

import os

import pytest

from sowa.errors import ArtifactError, ConfigError, DataError, SowaError
from sowa.scale import files
from sowa.scale.files import Place, fetch, is_remote, listed, pictures
from tests.scale.conftest import BROKEN, LEFT_OUT


def test_folders_are_walked_and_each_picture_is_once_and_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = pictures([folder, ".", "a.png", f"file://{folder}/a.png", "*.png", "**/*.png"])
    assert found == sorted(set(found)) and all(os.path.isabs(path) and os.path.isfile(path) for path in found)
    names = [os.path.relpath(path, folder) for path in found]
    assert {"a.png", "B.PNG", "new\nline.png", "double::colon.png", *BROKEN} <= set(names)
    assert not set(LEFT_OUT) & set(names)


def test_a_name_of_odd_signs_is_a_file_and_no_pattern(folder):
    assert pictures([f"{folder}/star*[x].png"]) == [f"{folder}/star*[x].png"]
    assert pictures([f"{folder}/double::colon.png"]) == [f"{folder}/double::colon.png"]


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://a/b", True),
        ("simplecache::s3://a/b", True),
        ("memory://x", True),
        ("file:///x", False),
        ("/a/s3://b", False),
        ("double::colon.png", False),
        ("a/b:c", False),
    ],
)
def test_what_fsspec_is_asked_for(text, remote):
    assert is_remote(text) is remote


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.png", "memory://nowhere", "memory://nowhere/*.png"])
def test_nothing_there(source, memory):
    with pytest.raises(DataError, match="no picture here"):
        pictures([source])


def test_a_system_that_nobody_knows():
    with pytest.raises(ConfigError, match="nosuch://x' cannot be reached"):
        pictures(["nosuch://x"])


def test_remote_folders_patterns_and_files(memory):
    for name in ("/in/a.png", "/in/deep/b.JPG", "/in/c.txt", "/in/.d.png"):
        memory.pipe_file(name, b"x")
    assert pictures(["memory://in"]) == ["memory:///in/a.png", "memory:///in/deep/b.JPG"]
    assert pictures(["memory://in/*.png"]) == ["memory:///in/.d.png", "memory:///in/a.png"]
    assert pictures(["memory://in/c.txt"]) == ["memory:///in/c.txt"]
    assert fetch("memory:///in/a.png") == b"x"


def test_lists_hold_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_bytes("a.png\r\n\n s p.png\ns3://b/c.png\nx\u2028y.png\n".encode() + b"\xff.png")
    here = str(tmp_path)
    assert listed("list") == [
        f"{here}/a.png",
        f"{here}/ s p.png",
        "s3://b/c.png",
        f"{here}/x\u2028y.png",
        os.fsdecode(b"%s/\xff.png" % os.fsencode(here)),
    ]
    with pytest.raises(DataError, match="no list of paths"):
        listed("nowhere")


def test_what_is_not_there_is_a_row_and_a_broken_line_is_not(memory, monkeypatch):
    with pytest.raises(DataError, match="cannot be opened"):
        fetch("memory://nothing.png")
    memory.pipe_file("/a.png", b"content")
    with pytest.raises(DataError, match="not a file"):
        memory.makedirs("/folder")
        fetch("memory://folder")
    monkeypatch.setattr(files, "PAUSE", 0.0)
    failures = iter([OSError("reset by peer"), TimeoutError("slow"), None, *[OSError("gone")] * 3])
    whole = type(memory).cat_file

    def shaky(self, path, **options):
        if (error := next(failures)) is not None:
            raise error
        return whole(self, path, **options)

    monkeypatch.setattr(type(memory), "cat_file", shaky)
    assert fetch("memory://a.png") == b"content"
    with pytest.raises(OSError, match="gone") as caught:
        fetch("memory://a.png")
    assert not isinstance(caught.value, SowaError)
    monkeypatch.setattr(files, "MOST_BYTES", 3)
    with pytest.raises(DataError, match="at most 3 are read"):
        fetch("memory://a.png")


@pytest.mark.parametrize("url", ["{tmp}/out", "file://{tmp}/out", "memory://out"])
def test_files_appear_whole_or_not_at_all(tmp_path, memory, url):
    place = Place(url.format(tmp=tmp_path))
    place.write("parts/a.jsonl", ["1", "2"])
    place.write("parts/a.jsonl", ["3", "4"])

    def half():
        yield "5"
        raise KeyboardInterrupt

    for name in ("parts/a.jsonl", "parts/b.jsonl"):
        with pytest.raises(KeyboardInterrupt):
            place.write(name, half())
    assert place.names("parts") == {"a.jsonl"} and place.names("nowhere") == set()
    assert list(place.lines("parts/a.jsonl")) == ["3", "4"]
    assert place.exists("parts/a.jsonl") and not place.exists("parts/b.jsonl")
    with pytest.raises(FileNotFoundError):
        list(place.lines("nothing"))
    place.fs.pipe_file(place._full("damaged"), b"1\n\xff\n")
    with pytest.raises(ArtifactError, match="damaged is damaged"):
        list(place.lines("damaged"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SowaError, match="cannot write"):
        Place(str(tmp_path / "file")).write("a/b", ["1"])


def test_a_client_with_errors_of_its_own_is_one_line(memory, monkeypatch):
    class NoCredentials(Exception):
        """No OSError, as those of the makers of clients."""

    def refuse(self, *words, **options):
        raise NoCredentials("unable to locate\ncredentials")

    memory.pipe_file("/in/a.png", b"x")
    monkeypatch.setattr(files, "PAUSE", 0.0)
    for name in ("isdir", "ls", "put_file", "open", "info"):
        monkeypatch.setattr(type(memory), name, refuse)
    place = Place("memory://out")
    calls = [
        lambda: pictures(["memory://in"]),
        lambda: place.names("parts"),
        lambda: place.exists("a"),
        lambda: place.write("a", ["1"]),
        lambda: listed("memory://list"),
        lambda: files.local_copy("memory://a.sowa", files.Path(".")),
    ]
    for call in calls:
        with pytest.raises(SowaError, match="unable to locate credentials"):
            call()
    with pytest.raises(OSError, match="unable to locate credentials"):
        fetch("memory://in/a.png")
