"""The drawn data set: exact masks, repeatability, and the layout on disk."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sowa.data.drawn import (
    AUXILIARY,
    CATEGORIES,
    LOTS,
    MANIFEST,
    PARTS,
    TARGET,
    VISIBLE,
    draw_dataset,
    draw_sample,
    image_index,
)
from sowa.data.drawn.catalogue import FLAWS, SURFACE
from sowa.data.drawn.sample import LARGEST_AREA, SMALLEST_AREA
from sowa.data.layouts import read_samples, recognise
from sowa.errors import ConfigError, DataError, SowaError

PAIRS = [(category, defect) for category in CATEGORIES for defect in CATEGORIES[category].defects]
SMALL = {"seed": 3, "categories": ["leather", "cap"], "train_good": 2, "test_good": 1, "test_bad": 3, "size": 48}


def draw(category: str, defect: str | None = None, *, seed: int = 0, index: int = 0, size: int = 64):
    return draw_sample(category, seed=seed, index=index, defect=defect, size=size)


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).max(axis=-1)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_catalogue():
    assert not set(AUXILIARY) & set(TARGET)
    assert set(AUXILIARY) | set(TARGET) | set(LOTS) == set(CATEGORIES)
    judged = [{name.removesuffix("_lot") for name in PARTS[part]} for part in ("training", "development", "locked")]
    assert not (judged[0] & judged[1] or judged[0] & judged[2] or judged[1] & judged[2])
    assert {name.removesuffix("_lot") for name in PARTS["objects"]} < judged[0]
    assert all(CATEGORIES[name].kind == "object" for name in PARTS["objects"])
    assert len(CATEGORIES) >= 10
    target_kinds = [CATEGORIES[name].kind for name in TARGET]
    assert target_kinds.count("texture") >= 2 and target_kinds.count("object") >= 2
    used = {defect for _, defect in PAIRS}
    assert used == set(SURFACE) | set(FLAWS), "a defect that nothing has, or that nobody draws"
    assert len(used) >= 8
    for category in CATEGORIES.values():
        assert len(set(category.defects)) == len(category.defects) >= 5


@pytest.mark.parametrize(("category", "defect"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_mask_is_what_differs_from_the_flawless_twin(category, defect):
    for index in (0, 1):
        good, nothing = draw(category, index=index)
        bad, mask = draw(category, defect, index=index)
        assert good.shape == bad.shape == (64, 64, 3) and good.dtype == bad.dtype == np.uint8
        assert mask.shape == (64, 64) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert not nothing.any()
        changed = difference(bad, good)
        assert not changed[mask == 0].any()
        assert (changed[mask == 1] >= VISIBLE).mean() >= 0.5
        assert SMALLEST_AREA <= mask.mean() <= LARGEST_AREA


def test_masks_are_as_exact_at_full_size():
    for category, defect in (("cap", "scratch"), ("mesh", "bent"), ("wafer", "crack"), ("leather", "stain")):
        good, _ = draw(category, index=5, size=256)
        bad, mask = draw(category, defect, index=5, size=256)
        changed = difference(bad, good)
        assert not changed[mask == 0].any()
        assert (changed[mask == 1] >= VISIBLE).mean() > 0.6
        assert SMALLEST_AREA <= mask.mean() <= LARGEST_AREA


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_arguments_same_pixels_and_others_differ(category):
    defect = CATEGORIES[category].defects[0]
    image, mask = draw(category, defect)
    again, mask_again = draw(category, defect)
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    assert difference(draw(category, seed=1)[0], draw(category, seed=2)[0]).mean() > 1
    assert difference(draw(category, index=1)[0], draw(category, index=2)[0]).mean() > 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_normal_pictures_are_pictures(category):
    """Neither black nor burnt out nor flat, and not the same grey everywhere."""
    for index in range(4):
        image, _ = draw(category, index=index)
        grey = image.mean(axis=-1)
        assert 8 < grey.mean() < 248
        assert grey.std() > 2


def test_a_target_lot_holds_together():
    """Parts of one lot look alike; auxiliary pictures are lots of their own and spread far wider."""

    def spread(name):
        means = [draw(name, index=index, size=32)[0].mean(axis=(0, 1)) for index in range(6)]
        return np.std(means, axis=0).mean()

    target = {name: spread(name) for name in TARGET}
    assert all(0 < value < 14 for value in target.values()), target
    assert np.median([spread(name) for name in AUXILIARY]) > 2 * max(target.values())


def test_size_changes_resolution_not_the_part():
    small, large = draw("cap", size=64)[0], draw("cap", size=128)[0]
    halved = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX))
    assert difference(small, halved).mean() < 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"category": "leathr"}, "leather"),
        ({"category": "leather", "defect": "missing"}, "scratch"),
        ({"category": "leather", "size": 8}, "32"),
    ],
)
def test_refusals_name_what_is_allowed(arguments, words):
    with pytest.raises(SowaError, match=words) as caught:
        draw(**arguments)
    assert "\n" not in str(caught.value)


def test_layout_on_disk(tmp_path):
    root = draw_dataset(tmp_path / "made", **SMALL)
    assert root == tmp_path / "made"
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ["cap", "leather"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"], "nothing is left beside the data set"
    for category in ("cap", "leather"):
        assert [p.name for p in sorted((root / category / "train" / "good").iterdir())] == ["000.png", "001.png"]
        assert [p.name for p in sorted((root / category / "test" / "good").iterdir())] == ["000.png"]
        bad = [p for p in sorted((root / category / "test").glob("*/*.png")) if p.parent.name != "good"]
        assert len(bad) == 3 and len({p.parent for p in bad}) == 3
        for path in bad:
            assert path.parent.name in CATEGORIES[category].defects
            mask = root / category / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            pixels = np.asarray(Image.open(mask))
            assert pixels.shape == (48, 48) and set(np.unique(pixels)) == {0, 255}
            assert Image.open(path).mode == "RGB" and Image.open(path).size == (48, 48)
        assert len(list((root / category / "ground_truth").rglob("*.png"))) == 3


def test_the_reader_of_this_layout_reads_it(tmp_path):
    root = draw_dataset(tmp_path / "made", **SMALL)
    assert recognise(root) == "mvtec"
    samples = read_samples(root, "mvtec")
    assert len(samples) == 2 * (2 + 1 + 3)
    bad = [sample for sample in samples if sample.label]
    assert len(bad) == 6 and all(len(sample.masks) == 1 for sample in bad)
    assert {sample.category for sample in samples} == {"cap", "leather"}


def test_files_are_the_samples_their_index_names(tmp_path):
    root = draw_dataset(tmp_path / "made", **SMALL)
    path = next(p for p in (root / "cap" / "test").glob("*/000.png") if p.parent.name != "good")
    defect = path.parent.name
    image, mask = draw("cap", defect, seed=3, index=image_index("test", defect, 0), size=48)
    assert np.array_equal(np.asarray(Image.open(path)), image)
    stored = np.asarray(Image.open(root / "cap" / "ground_truth" / defect / "000_mask.png"))
    assert np.array_equal(stored > 0, mask > 0)


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    first, second, third = (
        files(draw_dataset(tmp_path / name, **{**SMALL, "seed": seed})) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first == second
    shared = set(first) & set(third)
    assert shared and not any(first[name] == third[name] for name in shared)


def test_more_files_leave_the_earlier_ones_alone(tmp_path):
    few = files(draw_dataset(tmp_path / "few", **SMALL))
    more = {**SMALL, "categories": ["cap", "leather", "mesh"], "train_good": 3, "test_good": 2, "test_bad": 8}
    many = files(draw_dataset(tmp_path / "many", **more))
    assert len(many) > len(few)
    assert {name: many[name] for name in few} == few


def test_no_test_picture_is_the_twin_of_a_training_picture():
    places = [(split, defect) for split in ("train", "test") for defect in (None, "scratch", "hole")]
    numbers = [image_index(split, defect, number) for split, defect in places for number in range(500)]
    assert len(set(numbers)) == len(numbers)


def test_second_call_draws_nothing(tmp_path):
    root = draw_dataset(tmp_path / "made", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    calls = []
    draw_dataset(tmp_path / "made", **SMALL, progress=lambda done, total: calls.append(done))
    assert not calls
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_settings_are_refused_and_named(tmp_path):
    draw_dataset(tmp_path / "made", **SMALL)
    with pytest.raises(DataError, match="test_bad 3 not 4") as caught:
        draw_dataset(tmp_path / "made", **{**SMALL, "test_bad": 4})
    assert "\n" not in str(caught.value)


def test_foreign_directories_are_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match="choose"):
        draw_dataset(tmp_path / "photos", **SMALL)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["mine.png"]
    (tmp_path / "empty").mkdir()
    assert (draw_dataset(tmp_path / "empty", **SMALL) / MANIFEST).is_file()


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_manifest_is_one_line(tmp_path, content):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / MANIFEST).write_text(content)
    with pytest.raises(DataError) as caught:
        draw_dataset(tmp_path / "made", **SMALL)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be written: .*SOWA_CACHE") as refusal:
        draw_dataset(tmp_path / "file" / "below" / "made", **SMALL)
    assert "\n" not in str(refusal.value)


def test_interrupted_drawing_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "made", **SMALL, progress=stop)
    assert not list(tmp_path.iterdir())


def test_the_slower_of_two_processes_keeps_what_the_faster_made(tmp_path):
    def overtake(done, total):
        if done == total:
            draw_dataset(tmp_path / "made", **SMALL)

    draw_dataset(tmp_path / "made", **SMALL, progress=overtake)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]
    assert len(files(tmp_path / "made")) == 2 * (2 + 1 + 3 + 3)


@pytest.mark.parametrize(
    "wrong", [{"categories": []}, {"categories": "cap"}, {"categories": ["cup"]}, {"train_good": -1}, {"size": 4}]
)
def test_wrong_settings_draw_nothing(tmp_path, wrong):
    with pytest.raises(SowaError):
        draw_dataset(tmp_path / "made", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_manifest_says_how_it_was_drawn(tmp_path):
    found = json.loads((draw_dataset(tmp_path / "made", **SMALL) / MANIFEST).read_text())
    assert {key: found[key] for key in SMALL} == {**SMALL, "categories": ["cap", "leather"]}
    assert found["format"] == "sowa-drawn"


def test_no_visible_defect_is_an_error_not_a_lie(monkeypatch):
    monkeypatch.setitem(SURFACE, "scratch", lambda scene, rng: scene.image)
    with pytest.raises(ConfigError, match="no visible scratch"):
        draw("leather", "scratch", size=32)


def test_drawing_is_not_slow():
    """At least 2 pictures a second of processor time at 256 px, however busy the machine; about 20 on a quiet one."""
    draw("leather", "scratch", size=256)
    start = time.process_time()
    for number, category in enumerate(("leather", "cap", "wafer", "wood", "gear", "label")):
        draw(category, CATEGORIES[category].defects[number % 3], size=256)
    assert time.process_time() - start < 6 / 2
