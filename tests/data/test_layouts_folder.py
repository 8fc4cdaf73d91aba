"""Anybody's folders, as somebody in a hurry would arrange them."""

import pytest

from sowa.data.layouts import read_samples, recognise, scan
from sowa.errors import DataError
from tests import trees


def draw(root, *names):
    for name in names:
        trees.picture(root / name)
    return root


def found(root, **options):
    return {s.name: (s.category, s.split, s.label, s.defect) for s in read_samples(root, "folder", **options)}


def test_train_and_test_folders_are_kept(tmp_path):
    root = draw(tmp_path / "nut", "train/good/0.png", "test/good/1.png", "test/cut/2.png", "val/good/3.png")
    assert recognise(root) == "folder"
    assert found(root, validation=True) == {
        "test/cut/2.png": ("nut", "test", 1, "cut"),
        "test/good/1.png": ("nut", "test", 0, "good"),
        "train/good/0.png": ("nut", "train", 0, "good"),
        "val/good/3.png": ("nut", "validation", 0, "good"),
    }


def test_loose_images_in_train_are_good(tmp_path):
    root = draw(tmp_path / "nut", "train/0.png", "train/1.png", "test/ok/2.png", "test/NG/3.png")
    assert [v[1:] for v in found(root).values()] == [
        ("test", 1, "NG"),
        ("test", 0, "good"),
        ("train", 0, "good"),
        ("train", 0, "good"),
    ]


def test_images_alone_are_all_good_and_for_training(tmp_path):
    root = draw(tmp_path / "nut", "a.png", "b.JPG")
    assert recognise(root) == "folder"
    assert found(root) == {"a.png": ("nut", "train", 0, "good"), "b.JPG": ("nut", "train", 0, "good")}


def test_good_alone_is_for_training(tmp_path):
    assert {v[1] for v in found(draw(tmp_path, *(f"good/{i}.png" for i in range(6)))).values()} == {"train"}


def test_several_products(tmp_path):
    root = draw(tmp_path, "nut/good/0.png", "nut/bad/1.png", "cap/OK/0.png", "cap/bad/1.png")
    assert {(v[0], v[2]) for v in found(root).values()} == {("nut", 0), ("nut", 1), ("cap", 0), ("cap", 1)}


@pytest.mark.parametrize("good, train", [(1, 1), (3, 3), (4, 4), (5, 4), (8, 4), (9, 5), (20, 10)])
def test_half_of_the_good_train_but_four_if_there_are(tmp_path, good, train):
    root = draw(tmp_path, "bad/x.png", *(f"good/{i}.png" for i in range(good)))
    assert [v[1] for v in found(root).values()].count("train") == train


def test_the_half_does_not_follow_the_numbering(tmp_path):
    root = draw(tmp_path, "bad/x.png", *(f"good/{i:03}.png" for i in range(20)))
    split = [v[1] for name, v in found(root).items() if name.startswith("good")]
    assert split[:10].count("train") not in (0, 10)


def test_folder_that_merely_begins_with_good_is_a_defect(tmp_path):
    assert found(draw(tmp_path, "good/0.png", "good_but_dirty/1.png"))["good_but_dirty/1.png"][2] == 1


def test_defect_of_the_label_is_not_mistaken_for_labels(tmp_path):
    assert found(draw(tmp_path, "good/0.png", "label/1.png"))["label/1.png"][2] == 1


def test_subfolders_of_good_are_good_and_of_bad_finer_kinds(tmp_path):
    read = found(draw(tmp_path, "good/monday/0.png", "bad/dent/1.png"))
    assert read["good/monday/0.png"][2:] == (0, "good") and read["bad/dent/1.png"][2:] == (1, "bad/dent")


@pytest.mark.parametrize(
    "truth",
    [
        "ground_truth/cut/7_mask.png",
        "ground_truth/test/cut/7.png",
        "masks/7.bmp",
        "Masks/7_label.PNG",
        "test/masks/cut/7.png",
        "test/cut/masks/7.png",
        "test/cut/7_mask.png",
        "test/cut/7_GT.bmp",
    ],
)
def test_masks_are_found_by_name_wherever_people_put_them(tmp_path, truth):
    draw(tmp_path, "train/good/7.png", "test/good/7.png", "test/cut/7.png", "test/cut/8.png")
    trees.mask(tmp_path / truth)
    samples = read_samples(tmp_path, "folder")
    assert len(samples) == 4
    assert {s.name: s.masks for s in samples if s.masks} == {"test/cut/7.png": (tmp_path / truth,)}


def test_flat_mask_that_fits_two_images_is_refused(tmp_path):
    draw(tmp_path, "good/1.png", "cut/0.png", "dent/0.png")
    trees.mask(tmp_path / "masks/0.png")
    with pytest.raises(DataError, match=r"fits images of several folders named 0; put masks below .*masks/cut"):
        read_samples(tmp_path, "folder")


def test_loose_images_beside_good_are_told_not_read(tmp_path):
    root = draw(tmp_path, "good/0.png", "overview.png")
    reading = scan(root, "folder")
    assert [s.name for s in reading.samples] == ["good/0.png"]
    assert [p.kind for p in reading.problems] == ["stray_image"]


@pytest.mark.parametrize(
    "names, match",
    [
        (("0.png", "cut/1.png"), "loose images beside folders .cut.: put the good ones into"),
        (("good/0.png", "test/cut/1.png"), "both beside and inside"),
        (("train/good/0.png", "test/1.png"), "loose images beside folders"),
        (("cut/0.png", "dent/1.png"), "not laid out as folder"),
    ],
)
def test_undecidable_folders_say_what_to_do(tmp_path, names, match):
    with pytest.raises(DataError, match=match):
        read_samples(draw(tmp_path, *names), "folder")


def test_loop_of_links_ends(tmp_path):
    draw(tmp_path, "good/0.png", "bad/1.png")
    (tmp_path / "bad/again").symlink_to(tmp_path / "bad", target_is_directory=True)
    assert list(found(tmp_path)) == ["bad/1.png", "good/0.png"]
