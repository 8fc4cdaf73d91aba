"""Figures show the images asked for, and say which they are."""

import json

import pytest
from PIL import Image

from sowa.benchmark.figure import figure_main
from sowa.benchmark.store import Store
from sowa.errors import ConfigError

TINY = ["backbone.image_size=56"]


def test_grid_and_mechanism(make_plan, tmp_path):
    plan = make_plan({"sowa": [*TINY, "optimisation.lr=0.0001", "data.batch_size=2"], "padim": TINY}, shots=[0, 1])
    files = figure_main(plan, Store(tmp_path))
    assert [path.name for path in files] == ["methods.png", "mechanism.png", "images.json"]
    facts = json.loads(files[-1].read_text())
    assert facts["methods"] == ["sowa", "padim"] and facts["k"] == 1
    assert {one["label"] for one in facts["images"]} == {0, 1} and len(facts["images"]) == 6
    with Image.open(files[0]) as picture:
        assert picture.width > 500


def test_images_by_name_and_a_method_that_needs_shots(make_plan, tmp_path):
    plan = make_plan({"padim": TINY}, shots=[0])
    files = figure_main(plan, Store(tmp_path), names=["cap/test/good/000.png"])
    assert len(json.loads(files[-1].read_text())["images"]) == 1
    with pytest.raises(ConfigError, match="nowhere"):
        figure_main(plan, Store(tmp_path), names=["nowhere.png"])
