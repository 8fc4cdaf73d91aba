"""`sowa report` on the folder of a run, as `sowa.training.evaluate` writes it."""

import json

import numpy as np
import pytest
import yaml

from sowa.errors import DataError
from sowa.report import write_report
from sowa.report.runs import read_run
from sowa.training.evaluate import Evaluation, write_results
from tests.report.folders import draw
from tests.report.reading import harmless


def run_folder(folder, categories=("disc", "ring"), *, defect="crack"):
    rng = np.random.default_rng(0)
    result = Evaluation()
    for k, seed in ((0, 0), (4, 1), (4, 2)):
        for category in categories:
            name = f"toy/{category}"
            result.rows.append(
                {"dataset": "toy", "category": name, "k": k, "seed": seed, "image_auroc": 0.9, "pixel_ap": 0.5}
            )
            for i in range(12):
                result.scores.append(
                    {
                        "image": f"{category}/{i}.png",
                        "category": name,
                        "label": i % 2,
                        "score": float(rng.normal(i % 2, 0.7)) + 100 * seed,
                        "k": k,
                        "seed": seed,
                        "defect": defect if i % 2 else "good",
                    }
                )
    shots = {category: [f"{category}/good{i}.png" for i in range(4)] for category in categories}
    result.shots = [{"dataset": "toy", "seed": seed, "k": 4, "shots": shots} for seed in (1, 2)]
    write_results(folder, result, about={"protocol": "standard", "detector": "sowa"})
    (folder / "run.json").write_text(
        json.dumps({"command": ["eval.py", "shots=[0,4]"], "status": "finished", "cores": 2})
    )
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"target": {"root": str(folder / "images")}}}))
    return folder


def test_a_run(tmp_path):
    folder = run_folder(tmp_path / "run")
    draw(folder / "images", "disc/0.png")
    page = harmless(write_report(folder, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert all(word in page.text for word in ("Evaluation of sowa", "toy/disc", "toy/ring", "crack", "disc/good3.png"))
    assert "4 good pictures of each category, seed 1" in page.text and "90.0" in page.text
    assert "eval.py 'shots=[0,4]'" in page.text and "threshold 1" not in page.text
    assert len(page.named("svg")) == 6 and len(page.named("img")) == 1


def test_the_draw_that_is_shown(tmp_path):
    run = read_run(run_folder(tmp_path / "run"))
    assert run.draw == (4, 1)
    assert all(len(group.scores) == 12 and 90 < min(group.scores) < max(group.scores) < 110 for group in run.groups)
    assert run.shots["toy/ring"] == [f"ring/good{i}.png" for i in range(4)]
    worst = run.groups[0].lists["normals high"].rows(2)
    assert [row.score for row in worst] == sorted((row.score for row in worst), reverse=True)


def test_names_are_only_words(tmp_path):
    folder = run_folder(tmp_path / "run", ["<b>x</b>", '"><img src=x>'], defect="<script>")
    page = harmless(write_report(folder, tmp_path / "r.html", title="</title>").read_text(encoding="utf-8"))
    assert "toy/<b>x</b>" in page.text and "<script>" in page.text


def test_many_categories(tmp_path, monkeypatch):
    monkeypatch.setattr("sowa.report.runs.MOST_CATEGORIES", 3)
    run = read_run(run_folder(tmp_path / "run", [f"c{i}" for i in range(5)]))
    assert len(run.groups) == 3 and run.left_out == 2


@pytest.mark.parametrize("name", ["metrics.json", "scores.csv"])
def test_a_missing_file(tmp_path, name):
    folder = run_folder(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(DataError, match="holds neither" if name == "metrics.json" else "is missing"):
        write_report(folder, tmp_path / "r.html")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metrics.json", "{", "cannot be read"),
        ("metrics.json", "{}", "holds no results"),
        ("metrics.json", '{"rows": [{}]}', "without k and seed"),
        ("scores.csv", "image,label\n", "lacks the column category"),
        ("scores.csv", "image,category,label,score,k,seed\na,toy/c,1,x,4,1\n", "line 2"),
        ("scores.csv", "image,category,label,score,k,seed\na,toy/c,3,1,4,1\n", "line 2"),
        ("scores.csv", "image,category,label,score,k,seed\na,toy/c,1,1,four,1\n", "line 2"),
        ("scores.csv", "image,category,label,score,k,seed\n", "no score of k=4"),
    ],
    ids=range(8),
)
def test_a_damaged_file(tmp_path, name, content, says):
    folder = run_folder(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=says) as error:
        write_report(folder, tmp_path / "r.html")
    assert "\n" not in str(error.value)


def test_what_is_not_needed_may_be_gone_or_damaged(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "run.json").unlink()
    (folder / "config.yaml").write_text("a: [")
    (folder / "shots.json").unlink()
    harmless(write_report(folder, tmp_path / "r.html", pictures=0).read_text(encoding="utf-8"))
