"""A tower is passed once for all who read it, in the precision that the plan names."""

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.benchmark.jobs import Jobs
from sowa.benchmark.passes import one_pass
from sowa.benchmark.runner import cells_found, run_benchmark
from sowa.benchmark.store import Store
from sowa.benchmark.tables import build_tables
from sowa.detectors.sowa_plus import SowaPlus
from sowa.detectors.spade import Spade
from sowa.types import Support

TINY = ["backbone.image_size=56"]


def counted(backbone, monkeypatch):
    """The numbers of images and of the last block of every pass."""
    passes, run = [], backbone._run_normed

    def counting(pixels, indices):
        passes.append((len(pixels), max(indices)))
        return run(pixels, indices)

    monkeypatch.setitem(backbone.__dict__, "_run_normed", counting)
    return passes


def test_detectors_with_blocks_of_their_own_share_a_pass(monkeypatch):
    tower = build_backbone("random_tiny")
    alone = [SowaPlus(backbone=tower, taps=taps, global_tap=1, half=False, head="none") for taps in ((1, 2), (3,))]
    images = [torch.rand(2, 3, tower.image_size, tower.image_size) for _ in range(3)]
    expected = [[detector.encode(batch) for detector in alone] for batch in images]
    passes = counted(tower, monkeypatch)
    assert one_pass(tower) is tower
    for batch, tokens in zip(images, expected, strict=True):
        for detector, own in zip(alone, tokens, strict=True):
            found = detector.encode(batch)
            assert torch.equal(found.cls, own.cls)
            assert all(torch.equal(a, b) for a, b in zip(found.levels, own.levels, strict=True))
    assert passes == [(2, 1), (2, 2), (2, 2), (2, 2)]  # only the first images passed twice


def test_smaller_sizes_share_their_pass_too(monkeypatch):
    tower = build_backbone("random_tiny")
    options = {"taps": (1, 2), "global_tap": 2, "half": True, "head": "none"}
    expected = SowaPlus(backbone=tower, **options).encode(image := torch.rand(2, 3, tower.image_size, tower.image_size))
    one_pass(tower)
    first, second = (SowaPlus(backbone=tower, **options, sigma=sigma) for sigma in (1.0, 2.0))
    assert first.smaller[0] is second.smaller[0] and first.smaller[0].image_size == tower.image_size // 2
    found = first.encode(image)
    monkeypatch.setattr(type(tower), "_run_normed", None)  # nothing passes any more
    for tokens in (found, second.encode(image)):
        assert torch.equal(tokens.cls, expected.cls)
        assert all(torch.equal(a, b) for a, b in zip(tokens.levels, expected.levels, strict=True))


def test_precision_is_a_part_of_a_cell(make_plan, tmp_path):
    plans = {name: make_plan(["padim"], shots=[1], precision=name) for name in ("fp32", "bf16")}
    plain = make_plan(["padim"], shots=[1])
    for name, plan in plans.items():
        assert run_benchmark(plan, Store(tmp_path / name)).computed == 2
        (head, _), *_ = build_tables(cells_found(Jobs(plan, Store(tmp_path / name))))[0].rows
        assert ("bf16" in head[2]) == (name == "bf16")
    store = Store(tmp_path / "fp32")
    assert len(cells_found(Jobs(plain, store))) == 2  # float32 unless told otherwise, as in cells of before
    assert not cells_found(Jobs(plans["bf16"], store))
    jobs = Jobs(plans["bf16"], store)
    target = jobs.target(plain.data[0])
    first, second = (jobs.method(plain.methods[0], plain.data[0], target).detector.backbone for _ in range(2))
    assert first is second and first.precision == "bf16"


def test_shots_of_a_method(make_plan, tmp_path):
    plan = make_plan(["padim", "patchcore"], shots=[1, 2], shots_of={"padim": [2], "spade": [1]})
    assert plan.shots_of == {"padim": (2,)}
    run_benchmark(plan, Store(tmp_path))
    cells = cells_found(Jobs(plan, Store(tmp_path)))
    assert {(cell["method"], cell["k"]) for cell in cells} == {("padim", 2), ("patchcore", 1), ("patchcore", 2)}
    assert all(set(cell["spent"]) == {"decode", "tower", "score", "metrics"} for cell in cells)


@pytest.mark.parametrize("image_score", ["pooled", "max_map"])
def test_spade_without_maps_scores_the_same(image_score):
    tower = build_backbone("random_tiny_cnn")
    detector = Spade(backbone=tower, image_score=image_score)
    images = torch.rand(3, 3, tower.image_size, tower.image_size)
    reference = detector.fit(Support("cap", images[:2]))
    whole, bare = detector(images, reference), detector.without_maps()(images, reference)
    assert torch.equal(whole.score, bare.score)
    assert (bare.score_map is None) == (image_score == "pooled")
    assert detector(images, reference).score_map is not None
