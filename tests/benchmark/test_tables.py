"""Tables say what the cells say, in every format alike."""

import csv
import io

import pytest

from sowa.benchmark.published import published, sources
from sowa.benchmark.render import _csv, latex, markdown, words, write_tables
from sowa.benchmark.tables import Cells, Entry, build_tables
from sowa.errors import DataError, SowaError


def cell(method="sowa", dataset="mvtec", category="bottle", k=4, seed=0, value=0.9, **more):
    return {
        "key": f"{method}{category}{k}{seed}",
        "method": method,
        "league": "auxiliary_trained",
        "backbone": {"name": "clip", "image_size": 336, "text_trained": True},
        "dataset": dataset,
        "category": category,
        "k": k,
        "seed": seed,
        "protocol": "standard",
        "metrics": {"image_auroc": value, "pixel_aupro": None},
        "scores": [],
    } | more


def methods(tables, name="methods_k4"):
    return next(table for table in tables if table.name == name)


def test_mean_over_categories_first_then_spread_over_seeds():
    cells = [
        cell(category=c, seed=s, value=v) for c, s, v in [("a", 0, 0.8), ("b", 0, 1.0), ("a", 1, 0.7), ("b", 1, 0.9)]
    ]
    entry = Cells(cells).entry("sowa", "mvtec", 4, "image_auroc")
    assert entry.mean == pytest.approx(0.85) and entry.std == pytest.approx(0.1 / 2**0.5)
    assert entry.printed == 0.968 and not entry.partial


def test_one_seed_has_no_spread_and_nothing_known_is_a_dash():
    table = methods(build_tables([cell(), cell("winclip", value=None)]))
    (_, (own,)), *_ = table.rows
    assert own.std is None and words(own) == "90.0 (96.8, -6.8)"
    assert words(Entry(None)) == "-"


def test_undefined_categories_are_left_out_and_missing_cells_marked():
    cells = [cell(category="a"), cell(category="b", value=None), cell("winclip", category="a", value=0.5)]
    table = methods(build_tables(cells))
    by_method = {head[0]: entries[0] for head, entries in table.rows}
    assert by_method["sowa"].mean == 0.9 and not by_method["sowa"].partial
    assert by_method["winclip"].partial and words(by_method["winclip"]).endswith("*")
    assert "some cells are missing" in table.notes[0]


def test_the_best_is_bold_ties_too():
    rows = methods(build_tables([cell(value=0.9), cell("winclip", value=0.90001), cell("padim", value=0.8)])).rows
    assert [entries[0].best for _, entries in rows] == [True, True, False]


def test_protocols_never_meet_in_a_table():
    tables = build_tables([cell(), cell(value=0.5, protocol="paper", scores_are="transductive")])
    standard, paper = methods(tables), methods(tables, "methods_k4_paper")
    assert len(standard.rows) == len(paper.rows) == 1
    assert "transductive" in paper.rows[0][0][1] and "transductive" in paper.notes[0]


def test_two_settings_of_one_method_are_refused():
    with pytest.raises(DataError, match="from different settings"):
        build_tables([cell(), cell(key="other")])


def test_every_format_holds_the_same_numbers():
    table = methods(build_tables([cell(value=0.87654), cell("win_clip", value=0.5)]))
    assert "87.7 (96.8, -9.1)" in markdown(table) and "87.7" in latex(table)
    rows = list(csv.reader(io.StringIO(_csv(table))))
    assert rows[1][4] == "87.6540" and rows[1][6] == "96.8000"


def test_latex_is_escaped():
    text = latex(methods(build_tables([cell("a_b&c%", value=0.5)])))
    assert "a\\_b\\&c\\%" in text and "a_b" not in text


def test_published_values_and_their_sources():
    assert published("sowa", "visa", 4, "image_auroc") == 0.929
    assert published("promptad", "visa", 4, "image_ap") is None
    assert published("sowa", "elpv", 4, "image_auroc") is None
    assert sources({("sowa", "visa", 4, "image_auroc"), ("x", "y", 0, "z")}) == sources(
        {("sowa", "visa", 4, "pixel_auroc")}
    )


def test_a_page_with_pictures(tmp_path):
    cells = [
        cell(m, category=c, k=k, seed=s, value=0.5 + 0.1 * s + 0.05 * k)
        for m in ("sowa", "winclip")
        for c in "ab"
        for k in (0, 4)
        for s in (0, 1)
    ]
    files = write_tables(cells, tmp_path, title="Mine", order=["winclip", "sowa"], command=["benchmark", "x"])
    assert all(path.stat().st_size for path in files)
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# Mine") and "sowa benchmark x" in page and "(shots_mvtec.png)" in page
    assert page.index("| winclip") < page.index("| sowa")
    assert {path.suffix for path in files} == {".csv", ".tex", ".png", ".md"}
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == len(cells) + 1


def test_a_single_cell_makes_a_page(tmp_path):
    assert write_tables([cell()], tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SowaError, match="cannot write"):
        write_tables([cell()], tmp_path / "file" / "tables")
