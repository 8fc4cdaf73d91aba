"""Archives from strangers unpack below their directory, whole, or are refused in one line."""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sowa.data.unpack import Limits, unpack
from sowa.errors import DataError

FILES = {"a/train/good/000.png": b"\x89PNG" + bytes(range(256)) * 9, "a/ä b.txt": b"", "b.png": b"x" * 700}
PACKED = {".tar": bytes, ".tar.gz": partial(gzip.compress, mtime=0), ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}


def tar_of(files: dict[str, bytes], *members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=how)
    return buffer.getvalue()


ARCHIVES = {".zip": zip_of} | {kind: lambda files, pack=pack: pack(tar_of(files)) for kind, pack in PACKED.items()}


class Yard:
    """A directory with an archive in it, a place to unpack to, and a neighbour nobody may touch."""

    def __init__(self, home: Path):
        self.home, self.folder, self.archive = home, home / "in", home / "archive"
        self.folder.mkdir()
        (home / "neighbour.txt").write_text("mine")

    def unpack(self, data: bytes, **limits: int) -> int:
        self.archive.write_bytes(data)
        return unpack(self.archive, self.folder, limits=Limits(**limits))

    def refuses(self, data: bytes, words: str, **limits: int) -> None:
        with pytest.raises(DataError, match=words) as error:
            self.unpack(data, **limits)
        assert str(self.archive) in str(error.value) and "\n" not in str(error.value)
        self.is_clean()

    def is_clean(self) -> None:
        """Nothing outside, and nothing inside but plain files and directories."""
        assert sorted(path.name for path in self.home.iterdir()) == ["archive", "in", "neighbour.txt"]
        assert (self.home / "neighbour.txt").read_text() == "mine"
        for path in self.folder.rglob("*"):
            assert stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode)

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_format_whatever_its_name(yard, kind):
    assert yard.unpack(ARCHIVES[kind](FILES)) == 3
    assert yard.files() == FILES


def test_files_are_readable_and_not_executable_whatever_the_archive_says(yard):
    info = tarfile.TarInfo("a.png")
    info.mode = 0o6777
    yard.unpack(tar_of({}, info))
    mode = (yard.folder / "a.png").stat().st_mode
    assert mode & 0o400 and not mode & 0o6111


def test_old_and_long_names(yard):
    names = {f"{'d' * 90}/{'e' * 90}/{i}.png": bytes([i]) for i in range(3)}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yard.unpack(tar_of(names, form=form))
    assert yard.files() == names


def test_streams_in_a_row_and_progress(yard):
    packed = tar_of(FILES)
    seen = []
    yard.archive.write_bytes(lzma.compress(packed[:1000]) + bytes(8) + lzma.compress(packed[1000:]))
    unpack(yard.archive, yard.folder, watch=lambda *counts: seen.append(counts))
    assert yard.files() == FILES
    assert seen and seen[-1][1] == yard.archive.stat().st_size >= seen[-1][0]


# ----------------------------------------------------------------------------------------------------------- ways out

ESCAPES = ["../neighbour.txt", "a/../../neighbour.txt", "/tmp/x.png", "..\\neighbour.txt", "C:\\x.png", "C:x.png", ".."]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_names_that_lead_out(yard, kind, name):
    yard.refuses(ARCHIVES[kind]({"good.png": b"1", name: b"2"}), "outside")


@pytest.mark.parametrize("name", ["a\nb.png", "x" * 300, "/".join("d" * 70)])
def test_names_no_data_set_needs(yard, name):
    yard.refuses(tar_of({name: b"2"}), "name that no data set needs")


SPECIAL = {
    "symbolic link": (tarfile.SYMTYPE, "../neighbour.txt"),
    "hard link": (tarfile.LNKTYPE, "good.png"),
    "device": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("words", SPECIAL)
def test_what_is_neither_file_nor_directory(yard, words):
    info = tarfile.TarInfo("a")
    info.type, info.linkname = SPECIAL[words]
    through = tarfile.TarInfo("a/neighbour.txt")
    yard.refuses(tar_of({"good.png": b"1"}, info, through), words)


def test_sparse_files(yard):
    """They have holes of any size that the archive need not hold."""
    info = tarfile.TarInfo("hole.png")
    info.type = tarfile.GNUTYPE_SPARSE
    yard.refuses(tar_of({}, info, form=tarfile.GNU_FORMAT), "special file")


def test_links_in_a_zip(yard):
    info = zipfile.ZipInfo("a")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "../neighbour.txt")
        archive.writestr("a/x", "1")
    yard.refuses(buffer.getvalue(), "symbolic link")


def test_encrypted_zip(yard):
    data = bytearray(zip_of({"a.png": b"1"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    yard.refuses(bytes(data), "encrypted")


def test_a_file_where_a_directory_is_wanted(yard):
    yard.refuses(tar_of({"a": b"1", "a/b": b"2"}), "cannot be unpacked")


# -------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("kind", ARCHIVES)
def test_expansion_without_bound(yard, kind):
    bomb = ARCHIVES[kind]({f"{i}.png": bytes(100_000) for i in range(10)})
    yard.refuses(bomb, "would unpack to more than", floor=300_000, ratio=1, total=300_000)
    assert sum(map(len, yard.files().values())) <= 300_000


def test_small_archives_may_expand_to_the_floor_and_large_ones_by_the_ratio(yard):
    bomb = gzip.compress(tar_of({"a.png": bytes(200_000)}))
    yard.refuses(bomb, "expands without bound", floor=100_000, ratio=3)
    yard.unpack(bomb, floor=300_000, ratio=3)
    yard.unpack(bomb, floor=0, ratio=200_000 // len(bomb) + 1)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_number_of_files(yard, kind):
    yard.refuses(ARCHIVES[kind]({f"{i}.png": b"" for i in range(6)}), "more than 5 files", files=5)


def test_headers_are_not_read_into_memory_whole(yard):
    """A tar may declare a header of gigabytes, which costs nothing once compressed."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 50_000_000
    head = info.tobuf(tarfile.USTAR_FORMAT)
    yard.refuses(gzip.compress(head + bytes(50_000_000)), "header of 50")


def test_xz_that_wants_much_memory(yard, monkeypatch):
    monkeypatch.setattr("sowa.data.unpack_formats._XZ_MEMORY", 1_000_000)
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}]
    yard.refuses(lzma.compress(tar_of(FILES), filters=filters), "[Mm]emory")


def test_index_of_a_zip_that_is_not_there(yard):
    data = bytearray(zip_of(FILES))
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, 0xF0000000)
    yard.refuses(bytes(data), "list of members")


def test_a_list_that_loses_members(yard):
    """One damaged length, and the library passes over all that follows."""
    data = bytearray(zip_of(FILES))
    data[data.index(b"PK\x01\x02") + 33] = 7
    yard.refuses(bytes(data), "of 3 members are in its list")


def test_zip_of_more_members_than_the_old_format_counts(yard):
    many = {f"{i}.png": b"" for i in range(65_600)}
    yard.refuses(zip_of(many, zipfile.ZIP_STORED), "more than 10 files", files=10)


def test_sizes_that_lie(yard):
    data = bytearray(zip_of({"a.png": bytes(5000)}))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 7)
    yard.refuses(bytes(data), "damaged")


# ------------------------------------------------------------------------------------------------------------- damage


def test_not_an_archive(yard):
    for data in (b"", b"<html>not found</html>", b"7z\xbc\xaf\x27\x1c" + bytes(100), b"Rar!\x1a\x07" + bytes(300)):
        yard.refuses(data, "not an archive")


def test_nothing_inside(yard):
    for data in (zip_of({}), gzip.compress(tar_of({})), tar_of({}, tarfile.TarInfo())):
        yard.archive.write_bytes(data)
        with pytest.raises(DataError):
            unpack(yard.archive, yard.folder)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_cut_is_noticed(yard, kind):
    whole = ARCHIVES[kind](FILES)
    end = whole.index(bytes(1024), whole.index(b"x" * 700)) + 512 if kind == ".tar" else len(whole)
    for length in {*range(0, end, 97), end - 1}:
        yard.archive.write_bytes(whole[:length])
        with pytest.raises(DataError):
            unpack(yard.archive, yard.folder)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([".zip", ".tar.gz", ".tar.bz2", ".tar.xz"]),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_damage_is_noticed_or_harmless(kind, places):
    """What passes has every file that the archive had, with its content; a flag or a date may differ."""
    data = bytearray(ARCHIVES[kind](FILES))
    for place, change in places:
        data[int(place * len(data))] ^= change
    with tempfile.TemporaryDirectory() as home:
        yard = Yard(Path(home))
        try:
            yard.unpack(bytes(data))
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert sorted(yard.files().values()) == sorted(FILES.values())
        yard.is_clean()
