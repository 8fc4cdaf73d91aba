"""`check` names every fault of a data set with its path, counts as published, and says how bad it is."""

import json
import os
import shutil

import pytest

from sowa.data import check_content
from sowa.data.check import check, published_as, unusable
from sowa.data.images import read_image
from sowa.data.layouts_counts import published_counts
from sowa.errors import DataError, UnknownNameError
from tests.data.test_damaged import MAX_PIXELS, damaged_files
from tests.data.test_sound import SIGNATURE, chunk, header
from tests.trees import TREES, blank, mask, mvtec, picture


def found(report) -> set[tuple[str, str]]:
    """(kind, path below the root)."""
    return {(p.kind, p.path.removeprefix(f"{report.root}/")) for p in report.problems}


@pytest.fixture
def root(tmp_path):
    """MVTec's plan with a category nobody has published: nothing is wrong with it."""
    return mvtec(tmp_path / "data", categories=("gear",)).root


def test_clean(root):
    report = check(root)
    assert report.exit_code == 0 and report.problems == () and report.published is None
    assert report.record() == {
        "layout": "mvtec",
        "categories": {"gear": {"train_good": 5, "train_bad": 0, "test_good": 2, "test_bad": 4, "masks": 4}},
        "problems": [],
    }


def test_each_fault_is_named_once_with_its_path(root):
    gear = root / "gear"
    (gear / "train/good/000.png").write_bytes(b"not an image")
    (gear / "train/good/001.png").write_bytes((gear / "train/good/001.png").read_bytes()[:90])
    (gear / "ground_truth/broken/000_mask.png").unlink()
    blank(gear / "ground_truth/broken/001_mask.png")
    mask(gear / "ground_truth/cut/000_mask.png", (8, 8))
    (gear / "ground_truth/cut/001_mask.png").write_bytes(b"")
    shutil.copy(gear / "train/good/002.png", gear / "test/good/001.png")
    shutil.copy(gear / "test/cut/000.png", gear / "train/good/004.png")
    mask(gear / "ground_truth/cut/007_mask.png")
    report = check(root)
    assert report.exit_code == 1
    assert found(report) == {
        ("unreadable_image", "gear/train/good/000.png"),
        ("unreadable_image", "gear/train/good/001.png"),
        ("missing_mask", "gear/test/broken/000.png"),
        ("empty_mask", "gear/ground_truth/broken/001_mask.png"),
        ("size_mismatch", "gear/ground_truth/cut/000_mask.png"),
        ("unreadable_mask", "gear/ground_truth/cut/001_mask.png"),
        ("duplicate", "gear/train/good/002.png"),
        ("defective_among_normals", "gear/train/good/004.png"),
        ("orphan_mask", "gear/ground_truth/cut/007_mask.png"),
    }
    assert all(problem.message and "\n" not in problem.message for problem in report.problems)
    assert next(p for p in report.problems if p.kind == "duplicate").message.endswith("(test and train)")


def test_quick_opens_nothing(root, monkeypatch):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    (root / "gear/ground_truth/cut/000_mask.png").unlink()
    report = check(root, quick=True)
    assert found(report) == {("missing_mask", "gear/test/cut/000.png")} and report.exit_code == 1


# ------------------------------------------------------------------------------------------------ defects among normals


@pytest.mark.parametrize("place", ["ground_truth/good/000_mask.png", "ground_truth/test/good/000.png"])
def test_mask_of_a_good_image_that_marks_something(root, place):
    mask(root / "gear" / place)
    assert found(check(root)) == {("defective_among_normals", "gear/test/good/000.png")}


def test_blank_mask_of_a_good_image_is_no_fault(root):
    blank(root / "gear/ground_truth/good/000_mask.png")
    assert check(root).exit_code == 0


def test_mask_beside_a_good_image(tmp_path):
    for i in range(3):
        picture(tmp_path / f"gear/good/{i}.png")
    mask(tmp_path / "gear/good/1_mask.png")
    picture(tmp_path / "gear/cut/9.png")
    assert found(check(tmp_path)) == {("defective_among_normals", "gear/good/1.png")}


def test_defects_in_train_are_a_fault_where_nobody_published_them(tmp_path):
    picture(tmp_path / "gear/train/good/0.png")
    picture(tmp_path / "gear/train/cut/1.png")
    picture(tmp_path / "gear/test/good/2.png")
    assert ("defective_among_normals", "gear/train/cut/1.png") in found(check(tmp_path))
    dagm = check(TREES["dagm"](tmp_path / "dagm").root)
    assert dagm.counts["Class1"]["train_bad"] == 1
    assert {kind for kind, _ in found(dagm)} == {"count"}


def test_defective_copy_of_a_test_image(root):
    shutil.copy(root / "gear/test/good/000.png", root / "gear/test/cut/001.png")
    assert ("defective_among_normals", "gear/test/good/000.png") in found(check(root))


# --------------------------------------------------------------------------------------------------------------- counts


def empty_images(root, category: str, counts: dict[str, int]) -> None:
    """As many empty files as were published."""
    kinds = (("train_good", "train/good"), ("test_good", "test/good"), ("test_bad", "test/bad"))
    for kind, folder in (*kinds, ("test_bad", "ground_truth/bad")):
        (root / category / folder).mkdir(parents=True)
        for i in range(counts[kind]):
            (root / category / folder / f"{i:03}.png").touch()


def test_published_counts_are_compared(tmp_path):
    empty_images(tmp_path, "Mesh_114", published_counts("dtd")["Mesh_114"])
    report = check(tmp_path, quick=True)
    assert (report.layout, report.published, report.exit_code) == ("dtd", "dtd", 0)
    (tmp_path / "Mesh_114/test/good/003.png").unlink()
    report = check(tmp_path, quick=True)
    assert found(report) == {("count", "Mesh_114")} and report.exit_code == 1
    assert "test_good 35 of 36" in report.problems[0].message


def test_one_tree_holds_several_data_sets(tmp_path):
    assert published_as("mvtec", {"candle", "pcb1"}) == "visa"
    assert published_as("meta_json", {"Class1"}) == "dagm"
    assert published_as("mvtec", {"bottle", "mine"}) is None and published_as("folder", {"bottle"}) is None
    report = check(TREES["visa"](tmp_path).root, split="2cls_fewshot", quick=True)
    assert report.published is None  # the published counts are of the other split


@pytest.mark.parametrize("layout", TREES)
def test_every_layout_is_checked(tmp_path, layout):
    tree = TREES[layout](tmp_path / "data")
    report = check(tree.root)
    expected = {"btad": {"empty_mask", "count"}, "folder": {"missing_mask"}}
    counted = {"count"} if report.published else set()
    assert report.layout == layout and {kind for kind, _ in found(report)} == expected.get(layout, counted)
    assert {name: tuple(row.values()) for name, row in report.counts.items()} == tree.counts


# ------------------------------------------------------------------------------------------------------------- unusable


def test_what_readers_refuse_is_unusable(tmp_path):
    tree = TREES["meta_json"](tmp_path)
    (tmp_path / "images/a/n1.png").unlink()
    report = check(tree.root)
    assert report.exit_code == 2 and ("missing_image", "images/a/n1.png") in found(report)


def test_not_one_readable_image_is_unusable(tmp_path):
    for i in range(3):
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / f"good/{i}.png").write_bytes(b"x")
    assert check(tmp_path).exit_code == 2


def test_no_data_set_at_all(tmp_path):
    with pytest.raises(DataError) as error:
        check(tmp_path / "absent")
    report = unusable(tmp_path / "absent", error.value)
    assert report.exit_code == 2
    assert report.record()["layout"] is None and len(report.record()["problems"]) == 1
    with pytest.raises(UnknownNameError):
        check(tmp_path, "mvtex")


# -------------------------------------------------------------------------------------------------------- hostile, many


@pytest.mark.parametrize("number", [160, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_named_one_by_one(tmp_path, number):
    paths = damaged_files(tmp_path, number)
    refused = {str(path) for path in paths if not readable(path)}
    report = check(tmp_path, max_pixels=MAX_PIXELS)
    assert {p.path for p in report.problems if p.kind == "unreadable_image"} == refused
    json.dumps(report.record())


def readable(path) -> bool:
    try:
        read_image(path, max_pixels=MAX_PIXELS)
    except DataError:
        return False
    return True


def test_giant_on_paper(root):
    head = header(50_000, 50_000, colour=2) + chunk(b"IDAT", bytes(20))
    (root / "gear/train/good/000.png").write_bytes(SIGNATURE + head)
    (problem,) = check(root).problems
    assert problem.kind == "unreadable_image" and "pixels" in problem.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(root):
    os.mkfifo(root / "gear/train/good/9.png")
    assert found(check(root)) == {("unreadable_image", "gear/train/good/9.png")}


def test_processes_find_what_one_finds(root, monkeypatch):
    (root / "gear/train/good/000.png").write_bytes(b"x")
    shutil.copy(root / "gear/train/good/002.png", root / "gear/test/good/001.png")
    alone = check(root)
    monkeypatch.setattr(check_content, "_FEW_BYTES", 0)
    seen = []
    assert check(root, workers=2, watch=lambda *counts: seen.append(counts)) == alone
    assert seen[-1] == (11, 11)


def test_only_files_of_equal_size_are_compared(root, monkeypatch):
    read = []
    monkeypatch.setattr(check_content, "_digest", lambda path: read.append(path))
    sizes = [path.stat().st_size for path in root.glob("gear/t*/*/0??.png")]
    check(root)
    assert len(read) == sum(sizes.count(size) > 1 for size in sizes)
