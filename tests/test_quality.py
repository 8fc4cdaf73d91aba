"""The scripts of the quality figures: what they ask for, what they change in images, and the page they write."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sowa.calibration import choose_cut
from sowa.training.compose import compose_job

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("quality", "quality_page", "quality_trust", "quality_lists"):
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
            assert settings["data"]["target"]["list"] == f"{data.name}_{part}"
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
        for method, gap in (("sowa_plus", 3.0), ("sowa_plus_candidate", 2.0), ("brightness", 0.5))
        for category in ("mono", "poly", "brick_lot", "cap")
        for k in (0, 1, 4)
        for seed in (0, 1)
    ]
    for one in cells:
        one["alarms"] = (0.125, 0.5) if one["method"] == "sowa_plus" else None
    table = {"mono": {"as they are": 0.9, "turned": 0.8}}
    cost = {"seconds_per_image": 0.2, "seconds_to_learn_4": 1.0, "bytes_of_4_shots": 500_000, "threads": 2}
    trust = {"disturbed": table, "defective_shot": table, "cost": {"sowa_plus": cost}}
    about = {
        "part": "locked",
        "date": "2026-01-01",
        "command": "make quality",
        "precision": "bf16",
        "machine": {"commit": "abc", "cores": 2},
    }
    write_page(cells, trust, about, tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| ELPV mono | 4 | 0.800 | 0.88 | 0.93 | floor missed |" in page
    assert "| mono | 0.900 | 0.800 |" in page and "| cost | +0.000 | -0.100 |" in page
    assert "| 4 | ELPV mono | AUROC | -0.100 |" in page
    rows = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))["rows"]
    row = {"method": "sowa_plus", "shots": 4, "set": "drawn, all", "metric": "image_auroc", "mean": 0.8, "sd": 0.0}
    assert row in rows
    assert len((tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()) == len(cells) + 1
