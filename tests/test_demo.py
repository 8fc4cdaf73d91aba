"""The parts of the demo that need neither weights nor data; the whole is `make demo`."""

import json
from pathlib import Path

import pytest

from sowa import demo
from sowa.cli import main
from sowa.data.drawn import AUXILIARY
from sowa.data.subset import spread
from sowa.types import Sample


def sample(number: int, label: int, split: str = "test", category: str = "mono") -> Sample:
    name = f"{category}/{split}/{label}/{number:03}.png"
    return Sample(name=name, image=Path(name), category=category, split=split, label=label)


def test_spread_keeps_all_training_images_and_some_of_each_label():
    samples = [sample(i, label) for label in (0, 1) for i in range(10)] + [sample(i, 0, "train") for i in range(4)]
    kept = spread(samples, 5)
    assert [s.name for s in kept if s.split == "test" and s.label] == [
        f"mono/test/1/{i:03}.png" for i in (0, 2, 4, 6, 8)
    ]
    assert sum(s.split == "train" for s in kept) == 4 and len(kept) == 14
    assert spread(samples, 99) == sorted(samples, key=lambda s: s.name)


def test_judged_categories_are_never_trained_on():
    assert not set(demo.TARGETS) & set(AUXILIARY) and len(demo.TARGETS) == 2


def rows():
    cells = [(k, seed) for k in demo.SHOTS for seed in (range(demo.DRAWS) if k else (0,))]
    return [
        {"dataset": "elpv", "category": "elpv/mono", "k": k, "seed": seed, "image_auroc": 0.9 + seed / 100}
        | {"image_ap": 0.5, "pixel_auroc": None, "pixel_aupro": None}
        for k, seed in cells
    ]


def test_one_table_with_a_dash_where_there_is_no_truth(capsys):
    demo._print_table(rows())
    line = next(line for line in capsys.readouterr().out.splitlines() if "elpv/mono" in line)
    assert "90.0" in line and "91.0±1.0" in line and line.count(" - ") == 2 and "…" not in line


def test_a_finished_run_is_found_and_nothing_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "_prepare", lambda *_: pytest.fail("work was done again"))
    (tmp_path / "metrics.json").write_text(json.dumps({"rows": rows()}))
    key = demo._key(demo._settings(0, False))
    facts = {"key": key, "files": ["metrics.json"], "seconds": 3.0, "ended": "today"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert demo.main(["--out", str(tmp_path)]) == 0
    assert "All of it was there already" in capsys.readouterr().out
    with pytest.raises(pytest.fail.Exception):
        demo.main(["--out", str(tmp_path), "--seed", "1"])


def test_a_wrong_seed_is_one_line(capsys):
    with pytest.raises(SystemExit) as done:
        main(["demo", "--seed", "-1"])
    assert done.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
