"""Where pictures come from: every kind of source, in order, one at a time."""

import io
import os
import subprocess
import sys
import weakref
from threading import Event

import numpy as np
import pytest

from sowa.errors import ConfigError, DataError
from sowa.predictor import video
from sowa.predictor.judging import judged
from sowa.predictor.sources import Item, expected, good_pictures, open_sources
from sowa.predictor.watching import watched
from tests.predictor.parts import fitted, part


@pytest.fixture
def tray(tmp_path):
    for name in ("b/2.png", "b/10.png", "a/x.jpg", "top.png", ".hidden/no.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        part(1).save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def paths(*words, **options):
    return [item.path for item in open_sources([str(word) for word in words], **options)]


def test_how_many_there_will_be(tray):
    (tray / "list.txt").write_text("# two\ntop.png\n\nb/2.png\n")
    (tray / "film.gif").write_bytes(b"")
    for words in ([tray], [tray / "b", tray / "top.png"], [tray / "list.txt"], [f"{tray}/b/*.png"]):
        assert expected([str(word) for word in words]) == len(paths(*words))
    assert expected([str(tray)], skip=tray / "b") == len(paths(tray, skip=tray / "b"))
    for unknown in ("-", f"{tray}/film.gif", f"{tray}/*", "none.png"):
        assert expected([unknown]) is None


def test_a_folder_is_read_with_its_subfolders(tray):
    assert paths(tray) == ["top.png", "a/x.jpg", "b/10.png", "b/2.png"]
    assert paths(tray, skip=tray / "b") == ["top.png", "a/x.jpg"]
    (tray / "b" / "up").symlink_to(tray)
    assert paths(tray) == ["top.png", "a/x.jpg", "b/10.png", "b/2.png"]


def test_files_patterns_and_lists_keep_their_names(tray, monkeypatch):
    assert paths(tray / "a/x.jpg") == [str(tray / "a/x.jpg")]
    assert paths(f"{tray}/*/*.png") == ["b/10.png", "b/2.png"]
    assert paths(f"{tray}/**/*.png") == ["b/10.png", "b/2.png", "top.png"]
    assert paths(f"{tray}/[ab]") == ["a/x.jpg", "b/10.png", "b/2.png"]
    (tray / "list.txt").write_text("\ufeff# mine\nb/2.png\n\nabsent.png\n", encoding="utf-8")
    items = list(open_sources([str(tray / "list.txt")]))
    assert [item.path for item in items] == ["b/2.png", "absent.png"] and items[0].picture == tray / "b/2.png"
    part(1).save(tray / "a[1].png")
    assert paths(tray / "a[1].png") == [str(tray / "a[1].png")]
    monkeypatch.chdir(tray)
    assert paths("top.png", "b") == ["top.png", "10.png", "2.png"]


def test_nothing_is_opened_before_its_turn(tray):
    items = open_sources([str(tray), str(tray / "b")])
    next(items)
    (tray / "a" / "w.png").write_bytes(b"came later")
    assert "a/w.png" in [item.path for item in items]


@pytest.mark.parametrize("word", ["nowhere", "*.nothing", "empty"])
def test_a_word_that_names_nothing_is_said_at_once(tray, word):
    (tray / "empty").mkdir()
    with pytest.raises(DataError, match=r"nowhere|nothing|empty"):
        open_sources([str(tray / word)])


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp"])
def test_a_named_file_of_several_pictures_gives_each(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    first, *others = [part(seed) for seed in range(5)]
    first.save(path, save_all=True, append_images=others, **({"lossless": True} if suffix == "webp" else {}))
    items = list(open_sources([str(path)], every=2))
    assert [item.name for item in items] == [f"{path}#{number:06d}" for number in (0, 2, 4)]
    assert np.abs(np.asarray(items[1].picture).astype(int) - np.asarray(part(2))).mean() < 4
    first.save(path)
    assert [item.name for item in open_sources([str(path)])] == [str(path)]
    path.write_bytes(path.read_bytes()[:60])
    (broken,) = open_sources([str(path)])
    assert isinstance(broken.picture, DataError)


def test_what_a_source_cannot_give_is_a_row(tmp_path):
    items = [Item("1", "1", part(1)), Item("2", "2", DataError("2: the camera\nfell down")), Item("3", "3", part(3))]
    results = [result for _, result in judged(fitted(), iter(items), batch_size=2)]
    assert [result.error for result in results] == [None, "2: the camera fell down", None]


def test_any_number_in_constant_memory():
    """Of 500 pictures at most three batches (read, judged, handed over) and what is in hand are alive at once."""
    alive, most = weakref.WeakValueDictionary(), 0
    plain = [np.asarray(part(seed, size=(16, 16))) for seed in range(3)]

    class Picture(np.ndarray):
        """One that can be counted."""

    def source():
        nonlocal most
        for seed in range(500):
            picture = plain[seed % 3].copy().view(Picture)
            alive[seed] = picture
            most = max(most, len(alive))
            yield Item(str(seed), str(seed), picture)
            del picture

    results = 0
    for place, (item, result) in enumerate(judged(fitted(), source(), batch_size=4)):
        results += 1
        assert item.path == result.name == str(place) and result.error is None
    assert results == 500 and 4 <= most <= 3 * 4 + 4


def test_pictures_to_learn_from(tray, monkeypatch):
    monkeypatch.chdir(tray)
    (tray / "list.txt").write_text("2.png\n../top.png\n")
    (tray / "list.txt").rename(tray / "b" / "list.txt")
    found = [str(path) for path in good_pictures(["b", "top.png", "a/*.jpg", "b/list.txt"])]
    assert found == ["b/10.png", "b/2.png", "top.png", "a/x.jpg", "b/2.png", "b/../top.png"]
    (tray / "empty").mkdir()
    for word in ("nowhere", "empty", "*.nothing"):
        with pytest.raises(DataError, match=r"nowhere|empty|nothing"):
            good_pictures([word])


# --------------------------------------------------------------------------------------------------------------- video


def film(path, frames=7):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 112, "yuv420p"
        for seed in range(frames):
            for packet in stream.encode(av.VideoFrame.from_image(part(seed, size=(160, 112)))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_frames_of_a_video(tmp_path, suffix):
    path = tmp_path / f"line.{suffix}"
    film(path)
    items = list(open_sources([str(path)], every=3))
    assert [item.name for item in items] == [f"{path}#{number:06d}" for number in (0, 3, 6)]
    assert items[1].picture.size == (160, 112)
    assert np.abs(np.asarray(items[1].picture).astype(int) - np.asarray(part(3, size=(160, 112)))).mean() < 12


def test_a_damaged_video_is_a_row_and_opens_nothing_else(tmp_path):
    pytest.importorskip("av")
    film(tmp_path / "line.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "line.mp4").read_bytes()[:500])
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/line.mp4\n#EXT-X-ENDLIST\n")
    for name in ("cut.mp4", "list.mp4"):
        (item,) = open_sources([str(tmp_path / name)])
        assert isinstance(item.picture, DataError) and name in str(item.picture)


def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    (tmp_path / "line.mp4").write_bytes(b"")
    for word in ("line.mp4", "*.mp4"):
        with pytest.raises(ConfigError, match=r"sowa\[video\]"):
            open_sources([str(tmp_path / word)])


# ------------------------------------------------------------------------------------------------------------ watching


def test_a_file_is_given_when_it_stopped_changing(tmp_path):
    """On a clock of its own: three looks a second, changes between them."""
    now, looks = [0.0], [0]

    class Stop(Event):
        def wait(self, timeout=None):
            now[0] += 0.3
            looks[0] += 1
            if looks[0] == 2:
                (tmp_path / "x.png").write_bytes(b"12")
            if looks[0] == 9:
                (tmp_path / "x.png").write_bytes(b"longer")
            if looks[0] == 16:
                (tmp_path / "x.png").unlink()
            if looks[0] == 18:
                part(1).save(tmp_path / "x.png")
            return False

    (tmp_path / "x.png").write_bytes(b"1")
    given = []
    for item in watched(tmp_path, idle=4, stop=Stop(), clock=lambda: now[0]):
        given.append((item.path, looks[0]))
    assert [path for path, _ in given] == ["x.png"] * 3
    assert given[0][1] > 3 and given[1][1] > 10 and given[2][1] > 19


def test_a_watch_stops_between_two_pictures(tray):
    stop = Event()
    items = watched(tray, stop=stop, poll=0.01)
    assert next(items).path == "top.png"
    stop.set()
    assert list(items) == []


def test_an_empty_file_is_waited_for(tmp_path):
    now = [0.0]

    class Stop(Event):
        def wait(self, timeout=None):
            now[0] += 1
            return False

    (tmp_path / "x.png").touch()
    assert [now[0] > 9 for _ in watched(tmp_path, idle=3, stop=Stop(), clock=lambda: now[0])] == [True]


def test_standard_input_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = io.BytesIO()
    part(1).save(data, format="PNG")
    data.seek(0)
    (item,) = open_sources(["-"], stdin=data)
    assert item.picture.size == part(1).size and os.listdir(tmp_path) == []


def test_sources_load_no_video_library():
    code = "import sys, sowa.predictor.sources; print('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
