"""Which data may be trained on and judged on."""

from dataclasses import replace

import pytest

from sowa.data.dataset import MosaicDataset
from sowa.errors import ConfigError, DataError, UnknownNameError
from sowa.training.sources import auxiliary_images, check_shots, drawn_root, read_source, refuse_same_data
from tests import trees


@pytest.fixture(scope="module")
def mvtec(data_dir):
    return read_source(dataset="mvtec", data_dir=str(data_dir))


def test_training_uses_the_labelled_split(mvtec):
    options = {"image_size": 56, "seed": 0, "on_error": "raise"}
    images = auxiliary_images(mvtec, mosaic_rate=0.0, protocol="standard", **options)
    assert len(images) == 12
    assert {sample.split for sample in images.samples} == {"test"}
    assert {sample.label for sample in images.samples} == {0, 1}
    assert not isinstance(images, MosaicDataset)
    paper = auxiliary_images(mvtec, mosaic_rate=0.2, protocol="paper", **options)
    standard = auxiliary_images(mvtec, mosaic_rate=0.2, protocol="standard", **options)
    assert (paper.mask_rule, paper.label_rule) == ("paper_train", "kept")
    assert (standard.mask_rule, standard.label_rule) == ("nearest", "any")
    assert paper.mosaics == standard.mosaics


def test_nothing_labelled(tmp_path):
    trees.mvtec(tmp_path / "mvtec", good=0, bad=0, traps=False)
    source = read_source(dataset="mvtec", data_dir=str(tmp_path))
    with pytest.raises(DataError, match="labelled split"):
        auxiliary_images(source, image_size=56, mosaic_rate=0.2, protocol="standard", seed=0, on_error="raise")


def test_the_same_data_twice(mvtec, data_dir, tmp_path):
    root = str(mvtec.root)
    renamed = read_source(dataset="mine", root=root)
    (tmp_path / "link").symlink_to(mvtec.root)
    linked = read_source(dataset="mine", root=str(tmp_path / "link"))
    for target in (mvtec, renamed, linked):
        with pytest.raises(ConfigError, match="same data"):
            refuse_same_data(mvtec, target)


def test_a_copy_of_the_same_data(mvtec, tmp_path):
    trees.mvtec(tmp_path / "mvtec", size=(40, 30))
    with pytest.raises(ConfigError, match="same data"):
        refuse_same_data(mvtec, read_source(dataset="mvtec", data_dir=str(tmp_path)))


def test_different_data_and_disjoint_categories_pass(mvtec, data_dir):
    refuse_same_data(mvtec, read_source(dataset="visa", data_dir=str(data_dir)))
    halves = [read_source(dataset="mvtec", data_dir=str(data_dir), categories=[name]) for name in ("bottle", "grid")]
    refuse_same_data(*halves)


def test_shots_are_drawn_before_a_long_training(mvtec):
    check_shots(mvtec, [0, 5], [0, 1])
    with pytest.raises(DataError, match="6 shots"):
        check_shots(mvtec, [0, 6], [0])


def test_shots_of_a_file_stand_in_for_the_draw(mvtec, tmp_path):
    chosen = {c: [s for s in mvtec.samples if s.category == c and s.split == "train"][1:3] for c in ("bottle", "grid")}
    path = tmp_path / "shots.txt"
    path.write_text("\n".join(s.name for shots in chosen.values() for s in shots), encoding="utf-8")
    mine = replace(mvtec, samples=[s for s in mvtec.samples if s.category in chosen])
    assert check_shots(mine, [0, 2], [0], str(path)) == {0: chosen}
    with pytest.raises(ConfigError, match="names 2 images of bottle"):
        check_shots(mine, [3], [0], str(path))
    with pytest.raises(ConfigError, match=r"holds seeds \[0\], not \[1\]"):
        check_shots(mine, [1], [0, 1], str(path))


def test_drawn_data_is_drawn_once(tmp_path):
    options = {"train_good": 1, "test_good": 0, "test_bad": 1, "size": 64, "cache_dir": tmp_path}
    root = drawn_root(part="target", seed=3, **options)
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    assert files
    assert drawn_root(part="target", seed=3, **options) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.png")} == files
    assert root.is_relative_to(tmp_path)
    with pytest.raises(UnknownNameError, match="auxiliary, development, locked, objects, target"):
        drawn_root(part="targets", seed=3, **options)
