"""Evaluation: which images are scored with which shots, and what is written."""

import csv
import json

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.data.drawn import draw_dataset
from sowa.data.layouts import read_samples
from sowa.detectors import build_detector
from sowa.errors import ConfigError, DataError
from sowa.metrics.functional import auroc
from sowa.training.evaluate import Cell, cells_of, evaluate, support_of, write_results
from sowa.types import Support


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(root, seed=0, categories=["cap", "mesh"], train_good=4, test_good=3, test_bad=3, size=64)
    return read_samples(root, "mvtec")


def detector(**options):
    return build_detector("sowa", backbone=build_backbone("random_tiny"), **options).eval()


def run(samples, **options):
    chosen = {"shots": (0, 2), "seeds": (0, 1), "batch_size": 4} | options
    return evaluate(detector(), dataset="drawn", samples=samples, **chosen)


def test_draws_without_shots_are_made_once():
    assert cells_of((4, 0), (1, 0)) == [Cell(0, 0), Cell(4, 0), Cell(4, 1)]
    for shots, seeds in (((), (0,)), ((0,), ()), ((-1,), (0,))):
        with pytest.raises(ConfigError):
            cells_of(shots, seeds)


def test_every_test_image_at_every_draw_and_no_shot_among_them(drawn):
    result = run(drawn)
    assert len(result.scores) == 12 * 3 and len(result.rows) == 2 * 3
    assert {row["category"] for row in result.rows} == {"drawn/cap", "drawn/mesh"}
    shots = {name for record in result.shots for names in record["shots"].values() for name in names}
    assert shots and not shots & {row["image"] for row in result.scores}
    assert [record["seed"] for record in result.shots] == [0, 1]


def test_rows_hold_the_metrics_of_the_scores(drawn):
    result = run(drawn)
    for row in result.rows:
        mine = [s for s in result.scores if all(s[key] == row[key] for key in ("category", "k", "seed"))]
        assert row["image_auroc"] == auroc([s["score"] for s in mine], [s["label"] for s in mine])
        assert 0 <= row["pixel_aupro"] <= 1


def test_a_score_is_that_of_the_detector_alone(drawn):
    result = run(drawn)
    image = next(sample for sample in drawn if sample.split == "test" and sample.label)
    names = result.shots[0]["shots"][image.category][:2]
    by_name = {sample.name: sample for sample in drawn}
    one = detector()
    support = support_of([by_name[name] for name in names], one.backbone.image_size)
    alone = one(support_of([image], one.backbone.image_size).images, one.fit(Support(image.category, support.images)))
    row = next(s for s in result.scores if s["image"] == image.name and (s["k"], s["seed"]) == (2, 0))
    assert row["score"] == pytest.approx(alone.score.item(), abs=1e-6)


def test_batches_and_company_do_not_matter(drawn):
    whole, single = run(drawn), run(drawn, batch_size=1)
    cap = run([sample for sample in drawn if sample.category == "cap"])
    for other in (single.scores, cap.scores):
        by_key = {(s["image"], s["k"], s["seed"]): s["score"] for s in other}
        for row in whole.scores:
            key = row["image"], row["k"], row["seed"]
            if key in by_key:
                assert row["score"] == pytest.approx(by_key[key], abs=1e-6)


def test_paper_scores_few_shots_over_the_whole_category(drawn):
    arguments = {"dataset": "drawn", "samples": drawn, "shots": (2,), "seeds": (0,), "protocol": "paper"}
    result = evaluate(detector(protocol="paper"), **arguments)
    assert all(0 <= row["score"] <= 1 for row in result.scores)
    left = [sample for sample in drawn if sample.name != result.scores[0]["image"]]
    fewer = evaluate(detector(protocol="paper"), **(arguments | {"samples": left}))
    by_image = {row["image"]: row["score"] for row in result.scores}
    extremes = [row for row in result.scores if row["category"] == result.scores[0]["category"]]
    assert len(fewer.scores) == len(result.scores) - 1
    assert min(row["score"] for row in extremes) < 0.5 < max(row["score"] for row in extremes)
    assert {row["image"] for row in fewer.scores} < set(by_image)


def test_files(drawn, tmp_path):
    result = run(drawn)
    write_results(tmp_path, result, about={"protocol": "standard"})
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["image", "category", "label", "score", "k", "seed"]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in result.scores]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["about"] == {"protocol": "standard"} and metrics["results"]["drawn"]["k=2"]["draws"].keys() == {
        "0",
        "1",
    }
    assert json.loads((tmp_path / "shots.json").read_text()) == result.shots


def test_an_unreadable_image_stops_or_is_listed(drawn, tmp_path):
    from dataclasses import replace

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    samples = [*drawn, replace(next(s for s in drawn if s.split == "test"), name="cap/test/good/x.png", image=broken)]
    with pytest.raises(DataError, match=r"broken\.png"):
        run(samples)
    result = run(samples, on_error="skip")
    assert result.skipped == ["drawn/cap/test/good/x.png"] and len(result.scores) == 12 * 3


def test_nothing_to_test_is_one_line(drawn):
    with pytest.raises(DataError, match="no test image"):
        run([sample for sample in drawn if sample.split == "train"])


def test_references_are_kept_for_pictures(drawn):
    result = run(drawn)
    reference = result.references["drawn/cap", Cell(2, 1)]
    assert all(isinstance(value, torch.Tensor) for value in reference.values()) and "bank" in reference
