"""Shots named by a file are those images and no others; what cannot be found again is refused."""

import json

import pytest

from sowa.data.layouts import read_samples
from sowa.data.shot_lists import read_shot_list
from sowa.data.shots import draw_shots, shots_record
from sowa.errors import DataError
from tests import trees


@pytest.fixture
def samples(tmp_path):
    return read_samples(trees.mvtec(tmp_path / "data", categories=("bottle", "grid")).root)


def normals(samples, category="bottle"):
    return [s for s in samples if s.category == category and s.split == "train"]


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_what_a_run_wrote_is_read_back(tmp_path, samples):
    draws = {seed: draw_shots(samples, dataset="mvtec", k=2, seed=seed) for seed in (0, 3)}
    records = [shots_record(draws[seed], dataset="mvtec", k=2, seed=seed) for seed in (0, 3)]
    path = written(tmp_path / "shots.json", json.dumps(records))
    assert read_shot_list(path, samples, dataset="mvtec") == draws
    with pytest.raises(DataError, match="no draw of visa"):
        read_shot_list(path, samples, dataset="visa")


def test_paths_are_found_by_their_end_and_keep_their_order(tmp_path, samples):
    first, second = normals(samples)[1], normals(samples)[0]
    path = written(tmp_path / "mvtec_20seed_2shot_test_prompts.txt", str(first.image), "", f"./{second.name}")
    assert read_shot_list(path, samples, dataset="mvtec") == {20: {"bottle": [first, second]}}


def test_backward_slashes_are_read(tmp_path, samples):
    wanted = normals(samples)[0]
    path = written(tmp_path / "a.txt", wanted.name.replace("/", "\\"))
    assert read_shot_list(path, samples, dataset="mvtec") == {0: {"bottle": [wanted]}}


def test_a_name_that_two_categories_share_is_refused(tmp_path, samples):
    with pytest.raises(DataError, match=r"names \d+ images"):
        read_shot_list(written(tmp_path / "a.txt", normals(samples)[0].image.name), samples[:], dataset="mvtec")


def test_numbers_of_an_unsorted_listing_are_refused(tmp_path, samples):
    path = written(tmp_path / "selected_samples_per_run.txt", "#1: 131", "#4: 029 045 192 127")
    with pytest.raises(DataError, match="list the images' paths"):
        read_shot_list(path, samples, dataset="mvtec")


def test_defective_and_test_images_are_no_shots(tmp_path, samples):
    for sample in (next(s for s in samples if s.label), next(s for s in samples if s.split == "test" and not s.label)):
        with pytest.raises(DataError, match="shots are normal training images"):
            read_shot_list(written(tmp_path / "a.txt", sample.name), samples, dataset="mvtec")


@pytest.mark.parametrize("text", ["", "nowhere.png", "[1]"])
def test_what_is_no_list_of_shots_is_named(tmp_path, samples, text):
    name = "a.json" if text.startswith("[") else "a.txt"
    with pytest.raises(DataError, match=name):
        read_shot_list(written(tmp_path / name, text), samples, dataset="mvtec")
