"""A result as a row."""

import json
import math
import re
import subprocess
import sys

from sowa.calibration import false_alarm_bound
from sowa.predictor.results import Region, Result, unreadable


def test_a_record_is_json_without_the_heat_map():
    region = Region(box=(1, 2, 3, 4), area=9, peak=1.5)
    result = Result("a.png", 0.7, 0.6, 0.5, "words", "defective", None, (region,), (10, 20), 3.0, "sha256:ab")
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert record["regions"] == [{"box": [1, 2, 3, 4], "area": 9, "peak": 1.5}]
    assert record["size"] == [10, 20] and record["error"] is None
    assert "heatmap" not in record


def test_a_row_of_an_unreadable_picture():
    row = unreadable("b.png", "b.png: empty", threshold=0.5, threshold_source="words", artifact="sha256:ab")
    assert math.isnan(row.score) and row.verdict == "error"
    record = json.loads(json.dumps(row.record(), allow_nan=False))
    assert record["score"] is None and record["error"] == "b.png: empty" and record["threshold"] == 0.5


def test_the_public_face_is_light_and_quick():
    code = (
        "import sys, time; began = time.perf_counter(); import sowa; took = time.perf_counter() - began;"
        "from sowa import Result; import sowa.predictor;"
        "print(took < 0.3, [m for m in ('numpy', 'torch', 'PIL') if m in sys.modules], 'fit' in dir(sowa))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "[]", "True"]


def test_fit_and_load_are_those_of_the_predictor():
    import sowa
    from sowa.predictor.predictor import Predictor

    assert sowa.Predictor is Predictor
    assert sowa.fit == Predictor.fit and sowa.load == Predictor.load


def test_more_pictures_are_asked_for_than_were_given():
    """84 good pictures, 3 of them above the threshold: 59 would not do."""
    from sowa.predictor.content import Calibration
    from sowa.predictor.scale import _known

    scale = Calibration(
        threshold=1.0,
        middle=0.5,
        pixel_threshold=None,
        kind="held out",
        normals=84,
        exceeding=3,
        ranked=False,
        target=None,
    )
    (wanted,) = re.findall(r"give (\d+) with no more than 3 above it for 5 %", _known(scale))
    assert false_alarm_bound(3, int(wanted)) <= 0.05 < false_alarm_bound(3, int(wanted) - 1) and int(wanted) > 84
