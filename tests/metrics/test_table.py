"""Averages that hide nothing, and files that are whole or absent."""

import csv
import json
import math
import os
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from sowa.errors import DataError, SowaError
from sowa.metrics import json_ready, print_table, summarise, write_json, write_scores_csv

NAN = float("nan")


def row(category, seed, auroc, aupro=NAN, k=4, dataset="elpv"):
    numbers = {"image_auroc": auroc, "pixel_aupro": aupro}
    return {"category": f"{dataset}/{category}", "dataset": dataset, "k": k, "seed": seed, **numbers, "seconds": 3}


ROWS = [row("mono", 0, 0.8, 0.5), row("poly", 0, 0.6), row("mono", 1, 0.9, 0.7), row("poly", 1, 0.7)]


def test_mean_over_categories_then_mean_and_sample_deviation_over_draws():
    group = summarise(ROWS)["elpv"]["k=4"]
    expected = {"mean": 0.75, "std": math.sqrt(0.005), "values": 2, "undefined": 0}
    assert group["mean"]["image_auroc"] == pytest.approx(expected)
    assert group["draws"]["1"]["image_auroc"] == pytest.approx({"mean": 0.8, "values": 2, "undefined": 0})
    assert group["categories"]["elpv/mono"]["image_auroc"]["mean"] == pytest.approx(0.85)


def test_undefined_is_left_out_and_counted():
    group = summarise(ROWS)["elpv"]["k=4"]
    assert group["mean"]["pixel_aupro"] == pytest.approx(
        {"mean": 0.6, "std": math.sqrt(0.02), "values": 2, "undefined": 2}
    )
    poly = group["categories"]["elpv/poly"]["pixel_aupro"]
    assert math.isnan(poly["mean"]) and poly["values"] == 0 and poly["undefined"] == 2


def test_zero_is_a_value():
    assert summarise([row("mono", 0, 0.0)])["elpv"]["k=4"]["mean"]["image_auroc"]["mean"] == 0.0


def test_one_draw_has_no_deviation():
    cell = summarise(ROWS[:2])["elpv"]["k=4"]["mean"]["image_auroc"]
    assert cell["mean"] == pytest.approx(0.7) and math.isnan(cell["std"])


def test_data_sets_and_k_are_kept_apart():
    rows = [*ROWS, row("mono", 0, 0.1, k=0), row("x", 0, 0.2, dataset="drawn")]
    summary = summarise(rows)
    assert {dataset: list(by_k) for dataset, by_k in summary.items()} == {"drawn": ["k=4"], "elpv": ["k=0", "k=4"]}
    assert summary["elpv"]["k=0"]["mean"]["image_auroc"]["mean"] == 0.1


def test_only_metrics_are_averaged_in_the_order_of_tables():
    rows = [{**ROWS[0], "pixel_aupro_10": 0.1, "image_ap": 0.2}]
    names = list(summarise(rows)["elpv"]["k=4"]["mean"])
    assert names == ["image_auroc", "image_ap", "pixel_aupro", "pixel_aupro_10"]


def test_a_category_missing_from_a_draw_is_named():
    assert summarise(ROWS)["elpv"]["k=4"]["missing"] == []
    assert summarise(ROWS[:3])["elpv"]["k=4"]["missing"] == ["elpv/poly seed=1"]


def test_the_same_cell_twice_stops():
    with pytest.raises(DataError, match="two rows for elpv/mono, k=4, seed=0"):
        summarise([*ROWS, ROWS[0]])


def test_a_row_without_its_names_stops():
    with pytest.raises(DataError, match="lacks dataset, seed"):
        summarise([{"category": "x", "k": 1, "image_auroc": 1.0}])


def printed(rows, width=110):
    file = StringIO()
    print_table(summarise(rows), Console(file=file, width=width))
    return file.getvalue()


def test_table_says_mean_spread_and_what_is_undefined():
    text = printed(ROWS)
    assert "elpv, k=4, 2 draws (percent)" in text
    assert "75.0±7.1" in text and "60.0±14.1*" in text
    assert "* undefined and left out: pixel_aupro 2" in text.splitlines()
    assert "missing: elpv/poly seed=1" in printed(ROWS[:3]).splitlines()


def test_table_drops_a_metric_that_is_undefined_everywhere():
    text = printed([row("mono", 0, 0.8), row("poly", 0, 0.6)])
    assert "auroc" in text and text.count("aupro") == 1 and "*" not in text and "±" not in text
    assert "undefined everywhere: pixel_aupro" in text.splitlines()


def test_names_are_not_markup():
    text = printed([row("[red]a", 0, 0.8, dataset="[b]"), row("[/red]", 1, 0.8, dataset="[b]")])
    assert "[b], k=4" in text and "[b]/[red]a" in text and "missing: [b]/[/red] seed=0" in text


def test_table_of_all_metrics_fits_a_terminal():
    names = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
    numbers = dict.fromkeys([*names, "pixel_aupro_05"], 0.987)
    text = printed([{"category": "elpv/mono", "dataset": "elpv", "k": 4, "seed": 0, **numbers}], width=100)
    assert text.count("98.7") == 16 and "…" not in text


def test_json_has_null_for_undefined_and_lists_it(tmp_path):
    write_json(tmp_path / "metrics.json", json_ready(summarise(ROWS)))
    back = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert back["results"]["elpv"]["k=4"]["categories"]["elpv/poly"]["pixel_aupro"]["mean"] is None
    assert back["undefined"] == ["elpv/k=4/categories/elpv/poly/pixel_aupro"]
    assert back["results"]["elpv"]["k=4"]["mean"]["image_auroc"]["mean"] == pytest.approx(0.75)


def test_rows_read_back_from_json_give_the_same_summary(tmp_path):
    write_json(tmp_path / "rows.json", ROWS)
    back = json.loads((tmp_path / "rows.json").read_text())
    assert json.dumps(summarise(back)) == json.dumps(summarise(ROWS))


def test_json_takes_numbers_of_any_library(tmp_path):
    things = {"a": np.float32(0.5), "b": np.arange(3), "c": (1, np.int64(2)), 4: tmp_path, "d": [math.inf, None, True]}
    write_json(tmp_path / "a.json", things)
    expected = {"a": 0.5, "b": [0, 1, 2], "c": [1, 2], "4": str(tmp_path), "d": [None, None, True]}
    assert json.loads((tmp_path / "a.json").read_text()) == expected


def score(image, value, **more):
    return {"image": image, "category": "elpv/mono", "label": 1, "score": value, "k": 4, "seed": 0, **more}


def test_scores_come_back_to_the_last_digit(tmp_path):
    values = [0.1, np.float32(0.1), 1e-30, np.float64(2) / 3]
    write_scores_csv(tmp_path / "new" / "scores.csv", (score(f"a,{i}\n.png", v) for i, v in enumerate(values)))
    with open(tmp_path / "new" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["score"]) for r in rows] == [float(v) for v in values]
    assert list(rows[0]) == ["image", "category", "label", "score", "k", "seed"]
    assert rows[1]["image"] == "a,1\n.png" and rows[0]["label"] == "1"


def test_extra_columns_follow_and_bools_are_numbers(tmp_path):
    write_scores_csv(tmp_path / "s.csv", [score("a", 0.5, method="sowa") | {"label": np.bool_(True)}])
    head, line = (tmp_path / "s.csv").read_text().splitlines()
    assert head == "image,category,label,score,k,seed,method" and line == "a,elpv/mono,1,0.5,4,0,sowa"


def test_no_scores_is_a_head_alone(tmp_path):
    write_scores_csv(tmp_path / "s.csv", [])
    assert (tmp_path / "s.csv").read_text() == "image,category,label,score,k,seed\n"


def test_names_that_are_not_utf8_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_scores_csv(tmp_path / "s.csv", [score(name, 1.0)])
    assert b"caf\xe9.png" in (tmp_path / "s.csv").read_bytes()


def broken():
    yield score("a", 1.0)
    raise KeyboardInterrupt


@pytest.mark.parametrize("rows", [broken(), [score("a", 1.0), score("b", 2.0, other=1)], [{"image": "a"}]])
def test_a_failure_leaves_the_old_file_and_nothing_else(rows, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises((KeyboardInterrupt, DataError)):
        write_scores_csv(path, rows)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["scores.csv"]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(SowaError, match="a set cannot be written"):
        write_json(path, {"a": {1}})
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["a.json"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SowaError, match="cannot write") as caught:
        write_json(tmp_path / "file" / "a.json", {})
    assert "\n" not in str(caught.value)


def test_files_have_the_mode_the_user_asked_for(tmp_path):
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode
