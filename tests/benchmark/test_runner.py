"""Cells are computed once, together, and whatever happens to some of them the others stand."""

import errno
import json
import subprocess
import sys

import pytest
import torch

from sowa.artifact import save_trained
from sowa.benchmark import runner, store
from sowa.benchmark.runner import nothing_left, run_benchmark
from sowa.benchmark.store import Store
from sowa.detectors.padim import Padim
from sowa.detectors.patchcore import Patchcore
from sowa.errors import ConfigError, SowaError
from sowa.training.build import build
from sowa.training.compose import compose_job
from sowa.training.evaluate import evaluate
from sowa.training.sources import read_source

TINY = ["backbone.image_size=56"]


def files(folder):
    return {path: path.read_bytes() for path in sorted((folder / "cells").rglob("*.json"))}


def test_cells_are_those_of_the_evaluation(make_plan, tmp_path, drawn_cache):
    plan = make_plan(["patchcore"], shots=[1, 2], seeds=[0, 1])
    outcome = run_benchmark(plan, Store(tmp_path))
    assert (outcome.computed, outcome.found, outcome.failed, outcome.skipped) == (8, 0, [], [])
    words = [f"backbone={plan.backbone}", *plan.data[0].words, *plan.methods[0].words, *plan.paths]
    settings = compose_job("train", words).settings
    source = read_source(**settings["data"]["target"], cache_dir=str(drawn_cache))
    alone = evaluate(build(settings).eval(), dataset="drawn", samples=source.samples, shots=[1, 2], seeds=[0, 1])
    cells, _ = Store(tmp_path).cells()
    for cell in cells:
        (row,) = [
            row
            for row in alone.rows
            if (row["category"], row["k"], row["seed"]) == (f"drawn/{cell['category']}", cell["k"], cell["seed"])
        ]
        for name, value in cell["metrics"].items():
            assert value == pytest.approx(row[name], nan_ok=True)
        assert len(cell["scores"]) == 4 and len(cell["shots"]) == cell["k"]


def test_a_second_run_computes_nothing_and_a_changed_setting_only_its_own(make_plan, tmp_path, monkeypatch):
    run_benchmark(make_plan(shots=[1]), Store(tmp_path))
    before = files(tmp_path)
    again = run_benchmark(make_plan(shots=[1]), Store(tmp_path))
    assert (again.computed, again.found) == (0, 4) and files(tmp_path) == before
    changed = make_plan({"padim": [*TINY, "model.eps=0.02"], "patchcore": TINY}, shots=[1])
    third = run_benchmark(changed, Store(tmp_path))
    assert (third.computed, third.found) == (2, 2)
    assert before.items() <= files(tmp_path).items()


def test_a_test_image_passes_the_backbone_once_for_all_methods_and_draws(make_plan, tmp_path, monkeypatch):
    from sowa.backbones.base import Backbone

    seen = []
    encode = Backbone.encode_image
    monkeypatch.setattr(
        Backbone, "encode_image", lambda self, images, taps: seen.append(len(images)) or encode(self, images, taps)
    )
    run_benchmark(make_plan(shots=[1, 2], seeds=[0, 1]), Store(tmp_path))
    assert sum(seen) == 2 * (4 + 2)  # four test images and the two training images of each category


def test_all_methods_get_the_same_nested_shots(make_plan, tmp_path):
    run_benchmark(make_plan(shots=[1, 2], seeds=[0, 1]), Store(tmp_path))
    cells, _ = Store(tmp_path).cells()
    drawn = {}
    for cell in cells:
        drawn.setdefault((cell["category"], cell["k"], cell["seed"]), set()).add(tuple(cell["shots"]))
    assert all(len(lists) == 1 for lists in drawn.values())
    for (category, k, seed), (shots,) in drawn.items():
        if k == 1:
            ((both,),) = [(lists,) for key, (lists,) in drawn.items() if key == (category, 2, seed)]
            assert both[:1] == shots


def test_a_method_that_needs_shots_is_left_out_at_zero(make_plan, tmp_path):
    outcome = run_benchmark(make_plan(["padim"], shots=[0, 1]), Store(tmp_path))
    assert outcome.computed == 2 and len(outcome.skipped) == 2 and "k=0" in outcome.skipped[0]
    none = run_benchmark(make_plan(["padim"], shots=[0]), Store(tmp_path / "none"))
    with pytest.raises(ConfigError, match="nothing to compute"):
        nothing_left(make_plan(["padim"], shots=[0]), none)


def test_one_method_fails_the_others_stand(make_plan, tmp_path, monkeypatch):
    def broken(self, tokens, reference):
        raise RuntimeError("out of memory\nsomewhere")

    monkeypatch.setattr(Padim, "score", broken)
    outcome = run_benchmark(make_plan(shots=[1]), Store(tmp_path))
    assert outcome.computed == 2
    assert len(outcome.failed) == 2 and all(
        "padim" in line and "out of memory somewhere" in line for line in outcome.failed
    )
    monkeypatch.undo()
    assert run_benchmark(make_plan(shots=[1]), Store(tmp_path)).computed == 2


def test_an_unreadable_image_costs_its_category_alone(make_plan, tmp_path, monkeypatch):
    from sowa.data import dataset
    from sowa.errors import DataError

    read = dataset.read_reduced

    def damaged(path, **options):
        if "leather" in str(path):
            raise DataError(f"{path}: damaged image")
        return read(path, **options)

    monkeypatch.setattr(dataset, "read_reduced", damaged)
    outcome = run_benchmark(make_plan(["padim"], shots=[1]), Store(tmp_path))
    assert outcome.computed == 1 and len(outcome.failed) == 1 and "leather" in outcome.failed[0]


def test_a_damaged_cell_is_computed_again(make_plan, tmp_path):
    run_benchmark(make_plan(["padim"], shots=[1]), Store(tmp_path))
    path, content = next(iter(files(tmp_path).items()))
    path.write_bytes(content[: len(content) // 2])
    assert run_benchmark(make_plan(["padim"], shots=[1]), Store(tmp_path)).computed == 1
    again, first = json.loads(path.read_bytes()), json.loads(content)
    assert again["metrics"] == first["metrics"]


def test_a_full_disk_is_one_line_and_loses_nothing(make_plan, tmp_path, monkeypatch):
    written = []
    write = store.write_json

    def full(path, value):
        if written:
            raise SowaError(f"cannot write {path}: {OSError(errno.ENOSPC, 'No space left on device').strerror}")
        written.append(path)
        write(path, value)

    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(SowaError, match="No space left"):
        run_benchmark(make_plan(shots=[1]), Store(tmp_path))
    monkeypatch.undo()
    assert not list((tmp_path / "locks").iterdir())
    outcome = run_benchmark(make_plan(shots=[1]), Store(tmp_path))
    assert (outcome.computed, outcome.found) == (3, 1)


def test_two_processes_share_a_folder(make_plan, tmp_path, drawn_cache):
    """The other process holds one category; this one does the rest and waits for it."""
    plan = make_plan(shots=[1])
    other = Store(tmp_path, stale=60)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom sowa.benchmark.store import Store\n"
        "with Store(Path(sys.argv[1])).claim('drawn-cap') as lock:\n print(bool(lock), flush=True)\n time.sleep(4)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "True"
    said = []
    outcome = run_benchmark(plan, other, progress=lambda done, todo, name: said.append(name))
    holder.communicate()
    assert outcome.computed == 4
    assert any(name.startswith("waiting for 1") for name in said)
    assert said.index("drawn/leather") < next(i for i, name in enumerate(said) if name.startswith("waiting"))


def test_auxiliary_methods_are_trained_once_and_refuse_their_own_data(make_plan, tmp_path):
    words = [*TINY, "optimisation.lr=0.0001", "data.batch_size=2"]
    plan = make_plan({"sowa": words, "patchcore": TINY}, shots=[0, 1])
    outcome = run_benchmark(plan, Store(tmp_path))
    assert outcome.computed == 2 * 2 + 2 and not outcome.failed
    (trained,) = (tmp_path / "trained").glob("*/trained.safetensors")
    stamp = trained.stat().st_mtime_ns
    run_benchmark(make_plan({"sowa": words}, shots=[0, 1], seeds=[1]), Store(tmp_path))
    assert trained.stat().st_mtime_ns == stamp
    cells, _ = Store(tmp_path).cells()
    leagues = {(cell["method"], cell["k"]): cell["league"] for cell in cells}
    assert leagues[("sowa", 0)] == leagues[("sowa", 1)] == "auxiliary_trained"
    assert leagues[("patchcore", 1)] == "training_free"
    given = make_plan({"sowa": words}, shots=[1], trained={"sowa": trained})
    assert run_benchmark(given, Store(tmp_path)).computed == 2  # a file given is another setting


def test_weights_of_another_backbone_are_refused(make_plan, tmp_path):
    settings = compose_job("train", ["model=sowa_hfwa", "backbone=random_tiny", "backbone.seed=5", *TINY]).settings
    path = tmp_path / "trained.safetensors"
    detector = build(settings)
    save_trained(path, detector, meta={"detector": "sowa", "backbone": {}, "weights_id": detector.backbone.weights_id})
    outcome = run_benchmark(make_plan(["sowa"], shots=[1], trained={"sowa": path}), Store(tmp_path / "out"))
    assert not outcome.computed and "choose the backbone it was trained on" in outcome.failed[0]


def test_methods_that_encode_in_their_own_way_stay_alone():
    settings = compose_job("train", ["model=winclip", "backbone=random_tiny", *TINY]).settings
    winclip = build(settings)
    patchcore = Patchcore(backbone=winclip.backbone)
    groups = runner.groups_of([winclip, patchcore, Padim(backbone=winclip.backbone)])
    assert [len(group.detectors) for group in groups] == [1, 2]
    assert [group.shared for group in groups] == [False, True]


@pytest.mark.parametrize("backbone", ["random_tiny", "random_tiny_cnn"])
def test_shared_tokens_are_those_that_each_would_have_read(backbone):
    words = ["model=patchcore", f"backbone={backbone}", "backbone.image_size=64" if "cnn" in backbone else TINY[0]]
    tower = build(compose_job("train", words).settings).backbone
    detectors = [Padim(backbone=tower, taps=(1, 3)), Patchcore(backbone=tower, taps=(4, 2))]
    (group,) = runner.groups_of(detectors)
    images = torch.rand(2, 3, tower.image_size, tower.image_size)
    shared = group.encode(images)
    for detector in detectors:
        own, alone = group.own(shared, detector), detector.encode(images)
        assert own.grid == alone.grid and type(own) is type(alone)
        assert getattr(own, "grids", None) == getattr(alone, "grids", None)
        assert all(torch.equal(a, b) for a, b in zip(own.levels, alone.levels, strict=True))
