"""With the offline default's real weights: seconds to fit, a defect found, a file that needs no cache."""

import time

import pytest

from sowa.errors import WeightsError
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part, parts

pytestmark = pytest.mark.weights


def test_four_good_parts_to_a_verdict_on_an_offline_machine(tmp_path):
    began = time.perf_counter()
    detector = Predictor.fit(parts(4, size=(300, 220)), name="disc")
    assert time.perf_counter() - began < 60
    good, bad = (detector.predict(part(9, size=(300, 220), defect=defect)) for defect in (False, True))
    assert good.verdict == "good" and good.heatmap.max() < 1
    assert bad.verdict == "defective" and bad.heatmap.max() > 1
    x, y, width, height = bad.regions[0].box
    assert x < 127 < x + width and y < 100 < y + height
    detector.save(tmp_path / "small.sowa")
    detector.save(tmp_path / "whole.sowa", bundle=True)
    assert (tmp_path / "small.sowa").stat().st_size < 60e6 < (tmp_path / "whole.sowa").stat().st_size
    nowhere = {"cache_dir": tmp_path / "none", "offline": True}
    with pytest.raises(WeightsError):
        Predictor.load(tmp_path / "small.sowa", **nowhere)
    again = Predictor.load(tmp_path / "whole.sowa", **nowhere)
    assert again.id == detector.id
    assert again.predict(part(9, size=(300, 220), defect=True)).score == bad.score


def test_a_convolutional_backbone_travels_too(tmp_path):
    detector = Predictor.fit(parts(2), model="patchcore", backbone="compact_cnn", options={"coreset": 0.1})
    detector.save(tmp_path / "d.sowa", bundle=True)
    again = Predictor.load(tmp_path / "d.sowa", cache_dir=tmp_path / "none", offline=True)
    assert again.predict(part(9)).score == detector.predict(part(9)).score
