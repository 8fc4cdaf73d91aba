"""From good pictures to verdicts: what is learnt, what is said of it, and what never happens."""

import json
import math

import numpy as np
import pytest

from sowa.detectors import DETECTORS
from sowa.errors import ArtifactError, ConfigError, DataError, NeedsSupportError, UnknownNameError
from sowa.predictor.learn import copies, most_shots
from sowa.predictor.predictor import DEFAULT_MODEL, Predictor
from sowa.predictor.view import View
from tests.predictor.parts import SIZE, fitted, part, parts

QUICK = {"promptad": {"epochs": 2}}
ON = {"padim": "random_tiny_cnn"}


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("model", sorted(DETECTORS))
def test_every_method_judges_from_good_pictures_alone(model, k):
    """From one picture on: numbers, not everything defective, and a good part stays about or below 1 on the scale."""
    detector = Predictor.fit(
        parts(k), name="disc", model=model, backbone=ON.get(model, "random_tiny"), options=QUICK.get(model)
    )
    good = [detector.predict(picture) for picture in parts(4, first=20)]
    bad = detector.predict(part(30, defect=True))
    assert all(math.isfinite(result.score) and 0 <= result.probability <= 1 for result in (*good, bad))
    assert sum(result.verdict == "good" for result in good) >= 2
    assert bad.score > np.median([result.score for result in good])
    assert bad.probability > np.median([result.probability for result in good])
    if bad.heatmap is not None:
        assert bad.heatmap.shape == SIZE[::-1] and bad.heatmap.dtype == np.float32
        assert np.median([result.heatmap.max() for result in good]) < 1.1
        assert bad.heatmap.max() > np.median([result.heatmap.max() for result in good])


def test_a_result_is_consistent_in_itself():
    detector = fitted("patchcore", k=4)
    result = detector.predict(part(30, defect=True), name="thing")
    assert result.name == "thing" and result.size == SIZE and result.artifact == detector.id
    assert result.verdict == "defective" and result.score > result.threshold and result.probability > 0.5
    assert result.milliseconds > 0 and result.error is None
    x, y, width, height = result.regions[0].box
    inside = result.heatmap[y : y + height, x : x + width]
    assert inside.max() == pytest.approx(result.regions[0].peak)
    # The patch lies from a third of each side on.
    assert x < SIZE[0] / 3 + SIZE[1] / 8 < x + width and y < SIZE[1] / 3 + SIZE[1] / 8 < y + height
    json.dumps(result.record(), allow_nan=False)


def test_a_score_does_not_depend_on_other_pictures():
    detector = fitted()
    alone = detector.predict(part(30, defect=True)).score
    mixed = list(detector.stream([part(31), part(30, defect=True), part(32)]))
    assert mixed[1].score == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("model", ["sowa", "padim", "patchcore", "winclip"])
def test_pictures_that_are_all_the_same(model):
    """Copies count once; a plain new good part is not an alarm because nothing ever varied."""
    detector = Predictor.fit([part(0)] * 5, model=model, backbone="random_tiny")
    assert detector.info()["copies"] == 4
    assert "counted once" in detector.promise()
    assert detector.predict(part(0)).verdict == "good"
    flat = Predictor.fit(
        [np.full((40, 40, 3), grey, np.uint8) for grey in (120, 121)], model=model, backbone="random_tiny"
    )
    result = flat.predict(np.full((40, 40, 3), 120, np.uint8))
    assert result.verdict == "good" and np.isfinite(result.heatmap).all() and result.heatmap.max() < 1


def test_more_pictures_than_are_remembered_set_the_threshold():
    detector = Predictor.fit(parts(12), name="disc", model="patchcore", backbone="random_tiny", k=3, seed=1)
    info = detector.info()
    uses = [normal["use"] for normal in info["normals"]]
    assert uses == ["reference"] * 3 + ["threshold"] * 9
    assert info["calibration"]["kind"] == "held out" and info["calibration"]["normals"] == 9
    assert info["reference"]["bank"][0] == 3 * 64
    again = Predictor.fit(parts(12), name="disc", model="patchcore", backbone="random_tiny", k=4, seed=1)
    chosen = [{n["sha256"] for n in i["normals"] if n["use"] == "reference"} for i in (info, again.info())]
    assert chosen[0] < chosen[1], "draws are nested in k"


def test_how_many_are_remembered():
    assert most_shots(View(16)) == 64
    assert most_shots(View(16, tile=0.5)) == 256 // 9
    assert most_shots(View(16, tile=0.06, overlap=0.8)) == 1


def test_no_picture_at_all():
    detector = Predictor.fit(name="disc", backbone="random_tiny")
    result = detector.predict(part(0))
    assert 0 <= result.score <= 1 and result.threshold == 0.5 and result.heatmap is not None
    said = detector.promise()
    assert "not calibrated" in said and "random" in said and "no good picture" in result.threshold_source
    with pytest.raises(NeedsSupportError):
        Predictor.fit(model="padim", backbone="random_tiny")
    calibrated = Predictor.fit(parts(5), k=0, backbone="random_tiny")
    assert (
        calibrated.info()["model"]["name"] == "sowa"
        and Predictor.fit(parts(1), backbone="random_tiny").info()["model"]["name"] == DEFAULT_MODEL
    )
    assert calibrated.info()["calibration"]["kind"] == "held out"
    assert sum(calibrated.predict(picture).verdict == "good" for picture in parts(4, first=20)) >= 3


def test_the_promise_is_in_plain_words():
    lines = fitted("patchcore", k=4).promise().split("\n")
    assert lines[0] == "disc: patchcore on random_tiny remembers 4 good pictures."
    assert "53 %" in lines[2] and "95 % confidence" in lines[2] and "give 59 for 5 %" in lines[2]
    assert "95 % with 95 % confidence" in fitted("patchcore", k=1).promise()
    assert "calibrate again for another lot" in lines[3]


def test_one_odd_picture_is_named(tmp_path):
    for number, picture in enumerate([*parts(6), part(6, defect=True)]):
        picture.save(tmp_path / f"{number}.png")
    said = Predictor.fit(tmp_path, model="patchcore", backbone="random_tiny").promise()
    assert "worth a look" in said and "6.png" in said
    assert "worth a look" not in fitted("patchcore", k=6).promise()


def test_files_are_remembered_by_name_and_hash_never_by_place(tmp_path):
    part(0).save(tmp_path / "first.png")
    detector = Predictor.fit(tmp_path, backbone="random_tiny", thumbnails=True)
    assert [normal["name"] for normal in detector.info()["normals"]] == ["first.png"]
    assert str(tmp_path) not in json.dumps(detector.info())
    assert detector.thumbnails.shape == (1, 64, 64, 3)
    assert fitted().thumbnails is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"model": "nothing"}, UnknownNameError),
        ({"backbone": "nothing"}, UnknownNameError),
        ({"options": {"nothing": 1}}, UnknownNameError),
        ({"options": {"sigma": object()}}, ConfigError),
        ({"backbone_options": {"nothing": 1}}, ConfigError),
        ({"k": -1}, ConfigError),
        ({"k": 7}, DataError),
        ({"k": True}, ConfigError),
        ({"name": ""}, ConfigError),
        ({"name": "a\nb"}, ConfigError),
        ({"target_false_alarms": 0.0}, ConfigError),
        ({"tile": 2}, ConfigError),
        ({"roi": "nowhere.png"}, ConfigError),
        ({"trained": "nowhere"}, ArtifactError),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.__name__,
)
def test_wrong_settings_are_named_in_one_line(wrong, error):
    with pytest.raises(error) as caught:
        Predictor.fit(parts(2), **{"backbone": "random_tiny", **wrong})
    assert "\n" not in str(caught.value)


def test_an_unreadable_good_picture_stops_the_fit(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="broken"):
        Predictor.fit([part(0), tmp_path / "broken.png"], backbone="random_tiny")


def test_progress_is_told():
    told = []
    Predictor.fit(parts(3), model="padim", backbone="random_tiny", progress=lambda *now: told.append(now))
    assert ("learning", 3, 3) in told and any(what == "leaving out" for what, _, _ in told)
    assert all(done <= total for _, done, total in told)


def test_copies_are_the_same_part_and_the_same_every_time():
    first, second = list(copies(part(0))), list(copies(part(0)))
    assert len(first) == 8 and len(list(copies(part(0), moved=False))) == 4
    for one, again in zip(first, second, strict=True):
        assert one.size == SIZE and one.tobytes() == again.tobytes() != part(0).tobytes()
        assert np.abs(np.asarray(one).astype(int) - np.asarray(part(0))).mean() < 25


# ------------------------------------------------------------------------------------------------------------- changes


def test_adding_is_like_fitting_together():
    added = Predictor.fit(parts(2), model="patchcore", backbone="random_tiny").add(parts(2, first=2))
    assert added.predict(part(30)).score == pytest.approx(fitted("patchcore", k=4).predict(part(30)).score, rel=1e-4)
    assert len(added.info()["normals"]) == 4 and added.info()["calibration"]["normals"] == 4
    assert added.id != fitted("patchcore", k=2).id


def test_adding_changes_a_new_one_only_and_refuses_what_is_known():
    detector = fitted("sowa", k=3)
    before = detector.id, detector.predict(part(30)).score
    more = detector.add([part(3), part(0)])
    assert len(more.info()["normals"]) == 4
    assert (detector.id, detector.predict(part(30)).score) == before
    with pytest.raises(DataError, match="remembered already"):
        detector.add([part(0)])
    with pytest.raises(ConfigError, match="fit again"):
        fitted("padim").add([part(9)])


def test_adding_to_nothing_is_fitting():
    added = Predictor.fit(name="disc", backbone="random_tiny").add(parts(3))
    assert added.predict(part(30)).score == pytest.approx(fitted("sowa").predict(part(30)).score, rel=1e-6)
    assert added.threshold == pytest.approx(fitted("sowa").threshold, rel=1e-6)


def test_calibrating_with_other_good_pictures():
    detector = fitted("patchcore")
    bad = parts(5, first=70, defect=True)
    calibrated = detector.calibrate(parts(19, first=40), bad, target_false_alarms=0.1)
    scale = calibrated.info()["calibration"]
    assert scale["kind"] == "held out" and scale["ranked"] and scale["normals"] == 19 and scale["exceeding"] <= 1
    assert scale["defects"] == 5 and scale["found"] == 5
    assert sum(calibrated.predict(picture).verdict == "defective" for picture in parts(19, first=40)) <= 1
    said = calibrated.promise()
    assert "5 of 5 defective" in said and "On average" in said
    assert detector.info()["calibration"]["kind"] == "left out", "the old one is as it was"
    few = detector.calibrate(parts(3, first=40), target_false_alarms=0.01)
    assert not few.info()["calibration"]["ranked"] and few.info()["calibration"]["exceeding"] == 0


def test_defects_never_set_the_threshold():
    detector = fitted("patchcore")
    with_defects = detector.calibrate(parts(9, first=40), parts(3, first=40), target_false_alarms=0.1)
    without = detector.calibrate(parts(9, first=40), target_false_alarms=0.1)
    assert with_defects.threshold == without.threshold
    assert "is not set by itself" in with_defects.promise()


def test_calibrating_refuses_what_was_learnt_from():
    with pytest.raises(DataError, match="learnt from"):
        fitted().calibrate([part(0), part(50)])
    with pytest.raises(DataError, match="no good picture"):
        fitted().calibrate([])
    with pytest.raises(ConfigError):
        fitted().calibrate([part(50)], target_false_alarms=1.5)


def test_the_users_threshold():
    detector = fitted()
    score = detector.predict(part(30)).score
    strict = detector.with_threshold(score - 0.01)
    assert strict.predict(part(30)).verdict == "defective" and strict.predict(part(30)).probability > 0.5
    exact = detector.with_threshold(score).predict(part(30))
    assert exact.verdict == "good" and exact.probability == 0.5
    assert "user" in exact.threshold_source
    assert strict.predict(part(30)).heatmap.max() == detector.predict(part(30)).heatmap.max()
    for wrong in (float("nan"), float("inf"), "high", True):
        with pytest.raises(ConfigError):
            detector.with_threshold(wrong)
