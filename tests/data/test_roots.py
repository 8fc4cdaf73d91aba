"""Data sets are found under the names people's archives have; ELPV unpacks once, whole and nothing but itself."""

import zipfile

import pytest

from sowa.data import roots
from sowa.data.layouts import LAYOUTS
from sowa.data.roots import DATASETS, elpv_root, find_root
from sowa.errors import DataError, UnknownNameError
from tests import trees


@pytest.mark.parametrize(
    "dataset, directory",
    [
        ("mvtec", "mvtec_anomaly_detection"),
        ("mvtec", "MVTec-AD"),
        ("mvtec", "MVTecAD"),
        ("visa", "VisA_20220922"),
        ("visa", "visa_pytorch"),
        ("btad", "BTech_Dataset_transformed"),
        ("dagm", "DAGM_KaggleUpload"),
        ("dtd", "DTDSynthetic"),
        ("dtd", "DTD-Synthetic"),
        ("mpdd", "MPDD"),
        ("elpv", "elpv-dataset"),
        ("drawn", "drawn"),
    ],
)
def test_directory_is_found_by_any_spelling(tmp_path, dataset, directory):
    trees.picture(tmp_path / directory / "0.png")
    assert find_root(dataset, tmp_path) == tmp_path / directory


def test_every_data_set_has_a_layout_or_is_drawn():
    assert DATASETS.keys() - {"drawn"} <= LAYOUTS.keys()


def test_mvtec_is_not_mistaken_for_its_sisters(tmp_path):
    for name in ("mvtec_ad_2", "mvtec_loco_anomaly_detection", "MVTec"):
        trees.picture(tmp_path / name / "0.png")
    assert [find_root(key, tmp_path).name for key in ("mvtec", "mvtec_ad2", "loco")] == [
        "MVTec",
        "mvtec_ad_2",
        "mvtec_loco_anomaly_detection",
    ]


def test_environment_names_the_directory_and_the_argument_wins(tmp_path, monkeypatch):
    for home in ("one", "two"):
        trees.picture(tmp_path / home / "visa/0.png")
    monkeypatch.setenv("SOWA_DATA", str(tmp_path / "one"))
    assert find_root("visa") == tmp_path / "one/visa"
    assert find_root("visa", tmp_path / "two") == tmp_path / "two/visa"


def test_empty_directory_does_not_count(tmp_path):
    (tmp_path / "visa").mkdir()
    with pytest.raises(DataError, match=r"no directory for visa \(tried visa, VisA_20220922.*set SOWA_DATA or"):
        find_root("visa", tmp_path)


def test_unset_wrong_and_unknown_are_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("SOWA_DATA", raising=False)
    with pytest.raises(DataError, match=r"Set SOWA_DATA or paths\.data_dir"):
        find_root("visa")
    with pytest.raises(DataError, match="absent: no such directory"):
        find_root("visa", tmp_path / "absent")
    with pytest.raises(UnknownNameError, match="did you mean 'visa'"):
        find_root("vissa", tmp_path)


# ----------------------------------------------------------------------------------------------------------------- ELPV


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A small wheel of the real shape, with members that must stay inside it."""
    tree = trees.elpv(tmp_path / "tree")
    path = tmp_path / "elpv.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.root.rglob("*.*")):
            archive.write(file, f"elpv_dataset/data/{file.relative_to(tree.root).as_posix()}")
        archive.writestr("elpv_dataset/utils.py", "raise SystemExit")
        archive.writestr("elpv_dataset/data/images/../../../evil.png", "x")
        archive.writestr("elpv_dataset-1.0.0.post1.dist-info/licenses/LICENSE.md", "CC BY-NC-SA 4.0")
    monkeypatch.setattr(roots, "fetch_wheel", lambda *args, **kwargs: path)
    monkeypatch.setattr(roots, "_ELPV_FILES", 11)
    return path


def test_elpv_is_unpacked_once_with_its_licence_and_nothing_else(tmp_path, wheel, monkeypatch):
    root = elpv_root(tmp_path / "cache")
    assert sorted(p.name for p in root.iterdir()) == ["LICENSE.md", "NOTICE.txt", "images", "labels.csv"]
    assert "CC BY-NC-SA 4.0" in (root / "NOTICE.txt").read_text()
    assert [p.name for p in root.parent.iterdir()] == ["elpv"] and not list(tmp_path.rglob("evil.png"))
    monkeypatch.setattr(roots, "fetch_wheel", None)
    assert elpv_root(tmp_path / "cache") == root


def test_elpv_incomplete_or_swollen_wheel_leaves_nothing(tmp_path, wheel, monkeypatch):
    monkeypatch.setattr(roots, "_ELPV_FILES", 12)
    with pytest.raises(DataError, match="11 files of ELPV found, 12 expected"):
        elpv_root(tmp_path / "cache")
    monkeypatch.setattr(roots, "_ELPV_MAX_FILE", 50)
    with pytest.raises(DataError, match="declares"):
        elpv_root(tmp_path / "cache")
    wheel.write_bytes(b"PK" + b"\0" * 40)
    with pytest.raises(DataError, match="damaged archive"):
        elpv_root(tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.*")) == []
