"""Every layout on a drawn tree with its traps: found, counted, paired by name, sorted, recognised."""

import os
import shutil
from pathlib import Path

import pytest

from sowa.data.images import read_image, read_mask
from sowa.data.layouts import LAYOUTS, has_pixel_truth, read_samples, recognise, scan
from sowa.data.layouts_counts import KINDS, count
from sowa.errors import ConfigError, DataError, UnknownNameError
from tests import trees
from tests.trees import TREES


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    return TREES[request.param](tmp_path / "data")


def counted(samples) -> trees.Counts:
    return {name: tuple(row[kind] for kind in (*KINDS, "masks")) for name, row in count(samples).items()}


def test_every_layout_has_a_drawn_tree():
    assert TREES.keys() == LAYOUTS.keys()


def test_tree_is_read_exactly(tree):
    assert counted(read_samples(tree.root, tree.layout)) == tree.counts


def test_tree_is_recognised(tree):
    assert recognise(tree.root) == tree.layout
    assert read_samples(tree.root) == read_samples(tree.root, tree.layout)


def test_wrapper_directories_change_nothing(tree, tmp_path):
    samples = read_samples(tree.root)
    wrapped = tmp_path / "download" / "unpacked" / tree.root.name
    wrapped.parent.mkdir(parents=True)
    shutil.move(tree.root, wrapped)
    again = read_samples(tmp_path / "download")
    assert [(s.name, s.category, s.split, s.label) for s in again] == [
        (s.name, s.category, s.split, s.label) for s in samples
    ]


def test_records_hold_together(tree):
    samples = read_samples(tree.root, validation=True)
    assert [s.name for s in samples] == sorted({s.name for s in samples})
    for sample in samples:
        size = read_image(sample.image).size
        assert sample.split in ("train", "validation", "test")
        assert (sample.defect == "good") == (sample.label == 0)
        assert sample.image.as_posix().endswith("/" + sample.name) and ".." not in sample.name
        if not sample.label:
            assert sample.masks == ()
        if sample.masks or not sample.label:
            assert read_mask(sample, size).shape == (size[1], size[0])


def test_order_of_the_file_system_has_no_say(tree, monkeypatch):
    samples = read_samples(tree.root)
    listdir, scandir = os.listdir, os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    assert read_samples(tree.root) == samples


def test_a_complete_tree_has_no_problem(tree):
    assert scan(tree.root).problems == ()


# ------------------------------------------------------------------------------------------------------- single traps


def test_masks_pair_by_name_across_absent_numbers(tmp_path):
    tree = trees.btad(tmp_path)
    bad = [s for s in read_samples(tree.root) if s.label]
    assert {s.name: s.masks[0].relative_to(tmp_path).as_posix() for s in bad} == {
        "01/test/ko/0000.bmp": "01/ground_truth/ko/0000.png",
        "01/test/ko/0002.bmp": "01/ground_truth/ko/0002.png",
        "02/test/ko/0000.png": "02/ground_truth/ko/0000.png",
        "02/test/ko/0002.png": "02/ground_truth/ko/0002.png",
        "03/test/ko/0000.bmp": "03/ground_truth/ko/0000.bmp",
        "03/test/ko/0002.bmp": "03/ground_truth/ko/0002.bmp",
    }


def test_lost_mask_does_not_shift_the_others(tmp_path):
    tree = trees.mvtec(tmp_path, categories=("bottle",), defects=("cut",), bad=3)
    lost = tmp_path / "bottle/ground_truth/cut/001_mask.png"
    lost.unlink()
    by_name = {Path(s.name).name: s.masks for s in read_samples(tree.root) if s.label}
    assert [p.name for p in by_name["000.png"] + by_name["002.png"]] == ["000_mask.png", "002_mask.png"]
    assert by_name["001.png"] == ()
    assert not has_pixel_truth(read_samples(tree.root))
    assert [p.kind for p in scan(tree.root).problems] == ["missing_mask"]


def test_mask_without_image_is_told(tmp_path):
    tree = trees.mvtec(tmp_path, categories=("bottle",), defects=("cut",))
    extra = trees.mask(tmp_path / "bottle/ground_truth/cut/777_mask.png")
    assert [(p.kind, p.path) for p in scan(tree.root).problems] == [("orphan_mask", str(extra))]


def test_validation_images_come_only_when_asked_for(tmp_path):
    tree = trees.loco(tmp_path)
    assert {s.split for s in read_samples(tree.root)} == {"train", "test"}
    extra = [s for s in read_samples(tree.root, validation=True) if s.split == "validation"]
    assert len(extra) == 2 and not any(s.label for s in extra)


def test_loco_unites_the_masks_of_a_directory(tmp_path):
    bad = next(s for s in read_samples(trees.loco(tmp_path).root) if s.label)
    assert [path.name for path in bad.masks] == ["000.png", "001.png"]


def test_one_category_of_mvtec_is_a_root_too(tmp_path):
    trees.mvtec(tmp_path / "mvtec")
    whole = [s for s in read_samples(tmp_path / "mvtec") if s.category == "bottle"]
    assert recognise(tmp_path / "mvtec/bottle") == "mvtec"
    assert read_samples(tmp_path / "mvtec/bottle") == whole


@pytest.mark.parametrize("wrapper", ["VisA_pytorch/1cls", "visa_pytorch"])
def test_reorganised_visa_reads_as_mvtec(tmp_path, wrapper):
    base = tmp_path / wrapper / "candle"
    trees.picture(base / "train/good/0000.JPG")
    trees.picture(base / "test/good/0001.JPG")
    trees.picture(base / "test/bad/000.JPG")
    trees.mask(base / "ground_truth/bad/000.png")
    if "1cls" in wrapper:
        shutil.copytree(tmp_path / wrapper, tmp_path / "VisA_pytorch/2cls_fewshot")
    samples = read_samples(tmp_path)
    assert recognise(tmp_path) == "mvtec" and counted(samples) == {"candle": (1, 0, 1, 1, 1)}
    assert all(wrapper in s.image.as_posix() for s in samples)


def test_two_class_visa_has_defects_and_masks_in_train(tmp_path):
    base = tmp_path / "candle"
    for split in ("train", "test"):
        trees.picture(base / f"{split}/good/{split}0.JPG")
        trees.picture(base / f"{split}/bad/{split}1.JPG")
        trees.mask(base / f"ground_truth/{split}/bad/{split}1.png")
    assert counted(read_samples(tmp_path, "mvtec")) == {"candle": (1, 1, 1, 1, 2)}


def test_upper_case_directories_and_suffixes_are_the_same(tmp_path):
    trees.picture(tmp_path / "nut/Train/Good/000.PNG")
    trees.picture(tmp_path / "nut/Test/Good/001.Png")
    trees.picture(tmp_path / "nut/Test/Bent/000.BMP")
    trees.mask(tmp_path / "nut/Ground_Truth/Bent/000_MASK.PNG")
    assert counted(read_samples(tmp_path, "mvtec")) == {"nut": (1, 0, 1, 1, 1)}


def test_dagm_defect_whose_mask_is_lost_stays_a_defect(tmp_path):
    tree = trees.dagm(tmp_path)
    (tmp_path / "Class1/Test/Label/0002_label.PNG").unlink()
    sample = next(s for s in read_samples(tree.root) if s.name == "Class1/Test/0002.PNG")
    assert (sample.label, sample.masks) == (1, ())
    assert [p.kind for p in scan(tree.root).problems] == ["missing_mask"]


def test_dagm_without_its_table_is_labelled_by_masks(tmp_path):
    tree = trees.dagm(tmp_path)
    for path in list(tmp_path.rglob("Labels.txt")):
        path.unlink()
    assert counted(read_samples(tree.root)) == tree.counts


def test_one_class_of_dagm_is_a_root_too(tmp_path):
    trees.dagm(tmp_path)
    assert counted(read_samples(tmp_path / "Class1")) == {"Class1": (3, 1, 2, 2, 3)}


def test_ksdd_keeps_an_item_on_one_side(tmp_path):
    good = [s for s in read_samples(trees.ksdd(tmp_path).root) if not s.label]
    sides = {s.name.split("/")[0]: s.split for s in good}
    assert len(sides) == 8 and len(good) == 8 and set(sides.values()) == {"train", "test"}


def test_ksdd_damaged_mask_is_an_error_not_a_good_part(tmp_path):
    tree = trees.ksdd2(tmp_path)
    (tmp_path / "test/20001_GT.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"20001_GT\.png"):
        read_samples(tree.root)


def test_elpv_shots_and_good_test_cells_come_from_different_modules(tmp_path):
    names = {(s.split, s.label): s.name for s in read_samples(trees.elpv(tmp_path).root) if s.category == "mono"}
    assert names == {
        ("train", 0): "images/cell0482.png",
        ("test", 1): "images/cell0483.png",
        ("test", 0): "images/cell0901.png",
    }


def test_elpv_half_takes_the_doubtful_cells_but_not_into_the_pool(tmp_path):
    tree = trees.elpv(tmp_path)
    assert counted(read_samples(tree.root, split="half")) == {"mono": (2, 0, 2, 1, 0), "poly": (1, 0, 1, 2, 0)}


# ------------------------------------------------------------------------------------------------- choices and messages


def test_categories_are_kept_by_name(tmp_path):
    tree = trees.mvtec(tmp_path)
    assert {s.category for s in read_samples(tree.root, categories=["grid"])} == {"grid"}
    with pytest.raises(UnknownNameError, match=r"'grdi' \(did you mean 'grid'\?\)"):
        read_samples(tree.root, categories=["grdi"])


def test_unknown_layout_and_split_list_what_is_allowed(tmp_path):
    tree = trees.visa(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'visa'"):
        read_samples(tree.root, "vsia")
    with pytest.raises(ConfigError, match="1cls, 2cls_highshot, 2cls_fewshot"):
        read_samples(tree.root, "visa", split="3cls")
    with pytest.raises(ConfigError, match="allowed are none"):
        read_samples(trees.mvtec(tmp_path / "m").root, "mvtec", split="1cls")


@pytest.mark.parametrize("layout", [*LAYOUTS, "auto"])
def test_empty_and_absent_directories_end_in_one_line(tmp_path, layout):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    for path, said in ((tmp_path / "empty", "inner"), (tmp_path / "absent", "no such directory")):
        with pytest.raises(DataError) as caught:
            read_samples(path, layout)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value) and said in str(caught.value)


def test_directory_of_data_sets_is_not_one(tmp_path):
    trees.mvtec(tmp_path / "mvtec")
    trees.visa(tmp_path / "visa")
    with pytest.raises(DataError, match=r"several data sets \(mvtec, visa\)"):
        recognise(tmp_path)


def test_wrong_layout_says_what_was_looked_for(tmp_path):
    tree = trees.mvtec(tmp_path)
    with pytest.raises(
        DataError, match=r"not laid out as elpv \(labels.csv beside images/\); found 0 images and 2 fol"
    ):
        read_samples(tree.root, "elpv")


def test_a_name_that_breaks_tables_is_refused(tmp_path):
    trees.picture(tmp_path / "good/a\nb.png")
    with pytest.raises(DataError, match="rename") as caught:
        read_samples(tmp_path)
    assert "\n" not in str(caught.value)


def test_published_trees_win_over_lists_beside_them(tmp_path):
    trees.mvtec(tmp_path)
    (tmp_path / "meta.json").write_text('{"train": {}, "test": {}}')
    assert recognise(tmp_path) == "mvtec"
