"""A detector's file and a folder of pictures with hostile names, some of them no pictures."""

import json
import os

import pytest

from tests.predictor.parts import fitted, part

SIDE = {"size": (64, 56)}
NAMES = [
    "a.png",
    "B.PNG",
    "below/c d.png",
    "below/-e.png",
    "below/s3:/f.png",
    "new\nline.png",
    'quote".png',
    "hash#%41?.png",
    "double::colon.png",
    "star*[x].png",
    "ünï\u2028cödé.png",
    os.fsdecode(b"not-utf8-\xff.png"),
]
BROKEN = ["broken.png", "empty.png"]
LEFT_OUT = [".hidden.png", "notes.txt", "below/.DS_Store"]


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "disc.sowa"
    fitted().save(path)
    return str(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(NAMES):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part(number, defect=number % 2 == 1, **SIDE).save(path, format="PNG")
        except OSError:  # a file system that takes no such names
            continue
    (home / "broken.png").write_bytes(b"no picture at all")
    (home / "empty.png").write_bytes(b"")
    for name in LEFT_OUT:
        (home / name).write_bytes(b"x")
    return str(home)


@pytest.fixture
def memory():
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def rows(text: str) -> list[dict]:
    """Of a results.jsonl, without what depends on the moment."""
    found = [json.loads(line) for line in text.splitlines()]
    for row in found:
        row.pop("milliseconds")
    return found
