"""Many pictures: in order, in constant memory, from many threads, one bad one stops nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sowa.errors import ConfigError, DataError
from sowa.predictor.streaming import Ready, judge_ahead, judges_on
from tests.predictor.parts import fitted, part, parts


def test_results_come_in_order_with_their_names(tmp_path):
    paths = []
    for seed in range(7):
        paths.append(tmp_path / f"{seed}.png")
        part(seed, defect=seed % 2 == 1).save(paths[-1])
    for batch_size in (1, 3, 8):
        results = list(fitted().stream(paths, batch_size=batch_size))
        assert [result.name for result in results] == [str(path) for path in paths]
        for result, path in zip(results, paths, strict=True):
            assert result.score == pytest.approx(fitted().predict(path).score, rel=1e-5)
            assert result.milliseconds > 0


def test_an_unreadable_picture_is_a_row(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    items = [part(0), tmp_path / "broken.png", ("mine", part(1)), tmp_path / "absent.png"]
    results = list(fitted().stream(items, batch_size=2))
    assert [result.verdict == "error" for result in results] == [False, True, False, True]
    assert results[2].name == "mine" and "broken.png" in results[1].error and "\n" not in results[1].error
    with pytest.raises(DataError, match="broken"):
        list(fitted().stream(items, on_error="raise"))


def test_only_a_few_pictures_are_taken_ahead():
    """Memory does not grow with the stream: no item is taken long before its result is given."""
    taken = []

    def source():
        for seed in range(60):
            taken.append(seed)
            yield part(seed % 3)

    for count, _ in enumerate(fitted().stream(source(), batch_size=4), start=1):
        assert len(taken) <= count + 12
    assert count == 60


def test_the_next_batch_is_judged_while_results_are_handed_over():
    begun = [threading.Event() for _ in range(3)]
    pictures = (Ready(str(number), None, None, 0.0) for number in range(6))

    def judge(batch):
        begun[int(batch[0].name) // 2].set()
        return threading.current_thread().name

    for place, (batch, thread) in enumerate(judge_ahead(pictures, judge, batch_size=2, strict=False)):
        assert [ready.name for ready in batch] == [str(2 * place), str(2 * place + 1)]
        assert thread.startswith("sowa-judge")
        if place < 2:
            assert begun[place + 1].wait(60)


def test_judges_share_threads_and_batch_and_keep_the_order():
    pictures, seen = [Ready(str(number), None, None, 0.0) for number in range(11)], []
    before = torch.get_num_threads()
    meeting = threading.Barrier(2)

    def judge(batch):
        if batch[0].name in "02":  # the first two batches are in work at once
            meeting.wait(60)
        return torch.get_num_threads(), threading.current_thread().name, len(batch)

    for batch, found in judge_ahead(iter(pictures), judge, batch_size=4, strict=False, judges=2):
        assert torch.get_num_threads() == before
        seen += [ready.name for ready in batch]
        assert found[0] == max(1, before // 2) and found[2] <= 2
    assert seen == [ready.name for ready in pictures]
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [before]


@pytest.mark.parametrize(("batch_size", "judges"), [(2, 2), (3, 2), (5, 4), (8, 3), (8, 8)])
def test_judges_together_hold_no_more_than_two_batches(batch_size, judges):
    taken, judged = [], []
    pictures = (taken.append(number) or Ready(str(number), None, None, 0.0) for number in range(60))
    for batch, _ in judge_ahead(pictures, judged.append, batch_size=batch_size, strict=False, judges=judges):
        assert len(taken) - int(batch[0].name) <= 2 * batch_size


def test_judges_are_as_many_as_there_is_work_for(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [judges_on(torch.device("cpu"), size) for size in (1, 3, 8)] == [1, 3, 4]
    assert judges_on(torch.device("cuda"), 8) == 1


def test_an_error_of_the_judge_reaches_the_caller():
    def judge(batch):
        raise DataError("no finite score")

    pictures = (Ready(str(number), None, None, 0.0) for number in range(6))
    with pytest.raises(DataError, match="finite"):
        list(judge_ahead(pictures, judge, batch_size=2, strict=False))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sowa-judge")]


def test_each_is_answered_before_the_next_is_taken():
    taken = []

    def camera():
        for seed in range(3):
            taken.append(seed)
            yield part(seed)

    for count, _ in enumerate(fitted().stream(camera(), batch_size=1), start=1):
        assert len(taken) == count


def test_leaving_early_leaves_no_threads():
    results = fitted().stream(parts(20), batch_size=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sowa-")]


def test_wrong_settings_are_said_at_once():
    for wrong in ({"batch_size": 0}, {"batch_size": True}, {"on_error": "skip"}):
        with pytest.raises(ConfigError):
            fitted().stream([], **wrong)
    assert list(fitted().stream([])) == []


@pytest.mark.parametrize("model", ["sowa_plus", "sowa", "winclip", "padim"])
def test_threads_agree_with_one_after_the_other(model):
    detector, pictures = fitted(model), [*parts(6), *parts(6, defect=True)]
    alone = [detector.predict(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.predict, pictures * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert one.score == other.score and one.regions == other.regions
        assert (one.heatmap == other.heatmap).all()
