"""The scripts of the quality figures: what they ask for, what they change in images, and the page they write."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sowa.benchmark.plan import plan_of
from sowa.calibration import choose_cut
from sowa.training.compose import compose_job

SMALL = {"train_good": 8, "test_good": 2, "test_bad": 2, "size": 64}
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("quality", "quality_cost", "quality_lists", "quality_page", "quality_run", "quality_trust"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("part", ["locked", "development"])
def test_every_row_composes_with_the_images_of_its_part(part):
    from quality import plans

    for plan in plans(part, None):
        assert plan.seeds == (0, 1, 2, 3, 4)
        first = plan.methods[0]
        for data, method in [(data, first) for data in plan.data] + [(plan.data[0], one) for one in plan.methods[1:]]:
            words = [f"backbone={plan.backbone}", *data.words, *method.words]
            settings = compose_job("train", words).settings
            target = settings["data"]["target"]
            if data.name == "objects":  # no list: the part of the drawn data is the choice
                assert part == "development" and target["draw"]["part"] == "objects"
            else:
                assert target["list"] == f"{data.name}_{part}"
            assert settings["data"]["auxiliary"]["draw"]["part"] == "training"
            if data.name == "drawn":
                assert settings["data"]["target"]["draw"]["part"] == part


def test_the_lists_hold_as_many_drawn_images_as_are_drawn():
    from quality import plans
    from quality_lists import DRAWN

    for part in ("locked", "development"):
        drawn = next(data for data in plans(part, None)[0].data if data.name == "drawn")
        target = compose_job("train", list(drawn.words)).settings["data"]["target"]["draw"]
        assert {key: target[key] for key in DRAWN[part]} == DRAWN[part]


def test_disturbances_change_little_and_keep_the_frame():
    from quality_trust import DISTURBED

    y, x = np.mgrid[:96, :64]
    pixels = (100 + 40 * np.sin(x / 9) + 40 * np.cos(y / 7)).astype(np.uint8)
    image = Image.fromarray(np.stack([pixels] * 3, axis=-1))
    for name, change in DISTURBED.items():
        changed = change(image)
        assert changed.size == image.size and changed.mode == "RGB", name
        gap = np.abs(np.asarray(changed).astype(int) - np.asarray(image).astype(int)).mean()
        assert 0 < gap < 40, name


def cell(method, category, k, seed, gap, support=()):
    rng = np.random.default_rng(seed)
    labels = [0] * 8 + [1] * 8
    scores = rng.normal(size=16) + gap * np.array(labels)
    rows = [
        {"image": f"{i}.png", "label": label, "score": float(s)}
        for i, (label, s) in enumerate(zip(labels, scores, strict=True))
    ]
    metrics = {"image_auroc": 0.5 + gap / 10, "image_ap": 0.5, "image_f1_max": 0.5}
    if category not in ("mono", "poly"):
        metrics |= {"pixel_auroc": 0.9, "pixel_ap": 0.5, "pixel_aupro": 0.8, "pixel_aupro_05": 0.6}
    where = {"dataset": "elpv" if category in ("mono", "poly") else "drawn", "category": category, "k": k, "seed": seed}
    return {
        "method": method,
        **where,
        "metrics": metrics,
        "scores": rows,
        "support": {"scores": list(support), "expected_spread": 0.8},
    }


def test_false_alarms_are_those_above_the_threshold_of_the_shots():
    from quality import false_alarms

    one = cell("sowa_plus", "mono", 4, 0, 3.0, support=(0.1, -0.2, 0.3, 0.0))
    cut = choose_cut((0.1, -0.2, 0.3, 0.0), target=0.02, largest=True, images=4, expected=0.8).threshold
    alarms, found = false_alarms(one)
    assert alarms == sum(row["score"] > cut for row in one["scores"] if not row["label"]) / 8
    assert found == sum(row["score"] > cut for row in one["scores"] if row["label"]) / 8
    assert false_alarms(cell("patchcore", "mono", 4, 0, 3.0)) is None


def test_the_page(tmp_path):
    from quality_page import write_page

    cells = [
        cell(method, category, k, seed, gap)
        for method, gap in (("sowa_plus", 3.0), ("sowa_plus_before", 2.0), ("brightness", 0.5))
        for category in ("mono", "poly", "brick_lot", "cap")
        for k in (0, 1, 4)
        for seed in (0, 1)
    ]
    for one in cells:
        one["alarms"] = (0.125, 0.5) if one["method"] == "sowa_plus" else None
    table = {"as they are": 0.9, "turned": 0.8, "moved": 0.89}
    parts = {name: {"disturbed": table, "defective_shot": table, "seconds": 3.0} for name in ("elpv/mono", "drawn/cap")}
    row = {"seconds_per_image": 0.2, "seconds_to_learn_4": 3.5, "bytes_of_4_shots": 500_000, "threads": 2}
    cost = {"busy": 0.02, "load": [0.1, 0.2, 0.3], "methods": {"sowa_plus": row, "sowa_plus_fast": row}}
    trust = {"parts": parts, "most": 6, "sheets": {"mono": "elpv-mono.jpg"}, "cost": cost}
    spent = {"decode": 1.0, "tower": 20.0, "score": 3.0, "metrics": 4.0}
    about = {
        "part": "locked",
        "date": "2026-01-01",
        "command": "make quality",
        "precision": ["bf16", "fp32"],
        "wall": 100,
        "processes": 2,
        "seconds": {"cells": {"sowa_plus": spent}, "beside": {"training of sowa": 5.0}},
        "failed": [],
        "limit": None,
        "machine": {"commit": "abc", "cores": 2},
    }
    write_page(cells, trust, about, tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| ELPV mono | 4 | 0.800 | 0.88 | 0.93 | floor missed |" in page
    assert "| mono | 0.900 | 0.800 | 0.890 |" in page and "| change | +0.000 | -0.100 | -0.010 |" in page
    assert "| target |  | miss | pass |" in page
    assert "| 4 | ELPV mono | AUROC | +0.100 |" in page
    assert "| sowa_plus | seconds an image | 0.200 | 0.25 | pass |" in page
    assert "| sowa_plus_fast | seconds an image | 0.200 | 0.05 | miss |" in page
    assert "| sowa_plus | 1 | 20 | 3 | 4 | 28 |" in page and "| **all** |  |  |  |  | **33** |" in page
    assert "[mono](elpv-mono.jpg)" in page and "**Failed" not in page and "not quiet" not in page
    rows = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))["rows"]
    row = {"method": "sowa_plus", "shots": 4, "set": "drawn, all", "metric": "image_auroc", "mean": 0.8, "sd": 0.0}
    assert row in rows
    assert len((tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()) == len(cells) + 1

    cost["busy"] = 0.5
    write_page(cells, trust, about | {"failed": ["padim broke"], "limit": 3}, tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "**Failed: padim broke**" in page and "A trial on 3 images" in page and "The machine was not quiet" in page
    assert "| sowa_plus | seconds an image | 0.200 | 0.25 | - |" in page
    assert "| sowa_plus | megabytes of 4 shots | 0.500 | 1 | pass |" in page


def test_every_row_stands_in_one_plan_with_its_shots():
    from quality import plans

    found = {method.name: plan.shots_for(method.name) for plan in plans("development") for method in plan.methods}
    assert len(found) == sum(len(plan.methods) for plan in plans("development")) == 9
    for name in ("sowa_plus", "sowa_plus_before", "sowa_plus_fast"):
        assert found[name] == (0, 1, 2, 4, 8)
    assert found["sowa"] == found["winclip"] == (0, 1, 4) and found["padim"] == (1, 4)
    (plan,) = plans("development", ["padim"], [2], precision="fp32", limit=5)
    assert (plan.shots_for("padim"), plan.precision, plan.limit) == ((2,), "fp32", 5)


def test_time_left_is_that_of_what_is_missing():
    from quality_run import OTHER, WEIGHTS, _words

    todo, start = {"sowa_plus": 10, "padim": 10}, {"sowa_plus": 5, "padim": 0}
    assert "left" not in _words(start, start, todo, 7.0)
    done = {"sowa_plus": 10, "padim": 0}
    left = 60.0 * 10 * OTHER / (5 * WEIGHTS["sowa_plus"])
    assert _words(done, start, todo, 60.0) == f"10 of 20 cells and parts, 60 s, about {left:.0f} s left"


def test_all_of_it_on_a_tiny_tower_and_again_from_what_is_there(tmp_path, monkeypatch, capsys):
    """The whole way to the page; the second run computes nothing and writes the same figures."""
    import quality
    import quality_cost

    content = {
        "backbone": "random_tiny",
        "shots": [0, 1, 4],
        "seeds": [0, 1],
        "precision": "fp32",
        "methods": {
            "sowa_plus": ["backbone.image_size=112", "model.half=false"],
            "padim": ["backbone.image_size=56"],
        },
        "data": {
            "drawn": [
                "data=demo",
                "data.target.categories=[cap,leather]",
                *(f"data.target.draw.{key}={value}" for key, value in SMALL.items()),
            ]
        },
    }
    monkeypatch.setattr(
        quality, "plans", lambda *_, **__: [plan_of(content, trained={}, paths=[f"paths.cache_dir={tmp_path}"])]
    )
    monkeypatch.setattr(quality_cost, "LISTEN", 0.01)
    figures = []
    for name in ("first", "second"):
        words = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / name), "--processes", "1"]
        monkeypatch.setattr(sys, "argv", ["quality.py", *words])
        quality.main()
        figures.append([(tmp_path / name / file).read_bytes() for file in ("cells.csv", "drawn-cap.jpg")])
        page = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert "## Disturbed images" in page and "## Where the time went" in page and "**Failed" not in page
    assert figures[0] == figures[1]
    assert len(list((tmp_path / "out").glob("locked-auto/trust/*.json"))) == 2
