"""Ray hands out the same blocks. Without Ray these tests are left out."""

import os

import pytest

from sowa.errors import ConfigError
from sowa.scale.files import pictures
from sowa.scale.run import predict_many
from tests.scale.conftest import rows


def test_without_ray_it_is_said(detector, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'sowa\[scale\]'"):
        predict_many(detector, [folder], str(tmp_path), ray="local")


@pytest.mark.slow
def test_two_actors_give_the_results_of_one_process_though_one_is_killed(detector, folder, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from sowa.scale import with_ray

    predict_many(detector, [folder], str(tmp_path / "alone"), block=2)
    victims = {3}

    class Deadly(with_ray.Scorer):
        """Ends in the middle of one block, once: the second time a file says that it did."""

        def __call__(self, block):
            flag = tmp_path / "died"
            if block.number in victims and not flag.exists():
                flag.write_text("")
                os._exit(9)
            return super().__call__(block)

    monkeypatch.setattr(with_ray, "Scorer", Deadly)
    outcome = predict_many(detector, [folder], str(tmp_path / "ray"), block=2, workers=2, threads=1, ray="local")
    assert (tmp_path / "died").exists() and outcome.lost == 1 and not outcome.failed
    expected = rows((tmp_path / "alone/results.jsonl").read_text())
    assert rows((tmp_path / "ray/results.jsonl").read_text()) == expected
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


@pytest.mark.slow
def test_a_pipeline_of_ray_data(detector, folder, tmp_path):
    pytest.importorskip("ray.data")
    import ray

    from sowa.scale.with_ray import BatchScorer, ray_here

    predict_many(detector, [folder], str(tmp_path), block=4)
    expected = {row["path"]: row for row in rows((tmp_path / "results.jsonl").read_text())}
    paths = [path for path in pictures([folder]) if path.isprintable()]
    with ray_here(2, None):
        data = ray.data.from_items([{"path": path} for path in paths])
        options = {"fn_constructor_kwargs": {"detector": detector}, "batch_size": 4, "concurrency": 1}
        found = data.map_batches(BatchScorer, **options).take_all()
    assert sorted(row["path"] for row in found) == paths
    for row in found:
        assert row["verdict"] == expected[row["path"]]["verdict"]
