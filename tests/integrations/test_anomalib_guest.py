"""anomalib's models under our shots and metrics; without anomalib one line says what to install."""

import builtins

import pytest
import torch

from sowa.errors import ConfigError, NeedsSupportError, SowaError
from sowa.integrations.anomalib_guest import guest_detector
from sowa.types import Support
from tests.conformance import normals, with_defect

UNTRAINED = {"backbone": "resnet18", "pre_trained": False}


def test_without_anomalib_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] == "anomalib":
            raise ImportError("No module named 'anomalib'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'sowa\[anomalib\]'") as caught:
        guest_detector("Patchcore")
    assert "\n" not in str(caught.value)


@pytest.fixture
def anomalib():
    return pytest.importorskip("anomalib")


@pytest.mark.parametrize("name", ["Patchcore", "Padim"])
def test_a_guest_learns_and_scores(anomalib, name):
    guest = guest_detector(name, UNTRAINED)
    reference = guest.fit(Support("nut", normals(256, 3)))
    images = torch.cat((normals(256, 2, seed=9), with_defect(normals(256, 2, seed=9))))
    with torch.inference_mode():
        seen = guest(images, reference)
    assert seen.score.shape == (4,) and seen.score_map.shape == (4, 256, 256)
    assert seen.score[2:].min() > seen.score[:2].max()
    alone = guest(images[:1], reference)
    torch.testing.assert_close(alone.score, seen.score[:1], rtol=1e-3, atol=1e-3)


def test_what_cannot_be_is_said(anomalib):
    with pytest.raises(SowaError, match="unknown anomalib model 'Patchwork'"):
        guest_detector("Patchwork")
    with pytest.raises(SowaError, match="cannot be built"):
        guest_detector("Padim", {"nonsense": 1})
    with pytest.raises(NeedsSupportError):
        guest_detector("Padim", UNTRAINED).fit(Support("nut", normals(256, 0)))


def test_guests_sit_in_the_benchmark(anomalib, tmp_path):
    from sowa.benchmark.plan import plan_of
    from sowa.benchmark.runner import run_benchmark
    from sowa.benchmark.store import Store

    draw = "data.target.draw"
    content = {
        "backbone": "random_tiny",
        "shots": [2],
        "seeds": [0],
        "methods": {
            "anomalib:Padim": ["backbone=resnet18", "pre_trained=false"],
            "padim": ["backbone.image_size=56"],
        },
        "data": {
            "drawn": [
                "data.target.categories=[cap]",
                *(f"{draw}.{key}" for key in ("train_good=2", "test_good=2", "test_bad=2", "size=64")),
            ]
        },
    }
    plan = plan_of(content, trained={}, paths=[f"paths.cache_dir={tmp_path}"])
    outcome = run_benchmark(plan, Store(tmp_path / "out"))
    assert outcome.failed == [] and outcome.computed == 2
    cells, _ = Store(tmp_path / "out").cells()
    assert {cell["method"] for cell in cells} == {"anomalib:Padim", "padim"}
    assert cells[0]["shots"] == cells[1]["shots"]
