"""The doors as a user opens them: the seed command, a killed process, evaluation of what was trained."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from sowa.artifact import digest, read_state, read_trained
from sowa.errors import ConfigError, SowaError
from sowa.training.run import eval_main, train_main
from sowa.training.train import Training
from tests.training.small import prepare

ROOT = Path(__file__).parents[2]
SEED_COMMAND = ["trainer=cpu", "data=sowa_visa", "model=sowa_hfwa", "backbone=random_tiny"]
SMALL = ["backbone=random_tiny", "backbone.image_size=56", "logger=none", "data.batch_size=4"]
DEADLINE = 300


@pytest.fixture(scope="module", autouse=True)
def processes(data_dir, tmp_path_factory):
    """The seed command, and an endless training, killed at its first checkpoint; both run beside the other tests."""
    home = tmp_path_factory.mktemp("runs")
    endless = [*SMALL, "save_every_steps=2", "trainer.max_epochs=100000", f"paths.output_dir={home}/killed"]
    running = {
        "seed": _start([*SEED_COMMAND, f"paths.data_dir={data_dir}"], home),
        "killed": _start([*endless, f"paths.data_dir={data_dir}"], home),
    }
    Thread(target=_kill_once_saved, args=(running["killed"], home / "killed/checkpoints/last.ckpt")).start()
    yield home, running
    for process in running.values():
        process.kill()
        process.communicate()


def _kill_once_saved(process, state):
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)


def _start(words, home):
    command = [sys.executable, str(ROOT / "src/train.py"), *words]
    # One thread, as in this process: sums of floats depend on it.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_linear_variant_and_the_papers_protocol(data_dir, tmp_path):
    more = ["model=sowa_linear", "protocol=paper", "shots=[1]", "seeds=[0,1]", f"paths.data_dir={data_dir}"]
    assert train_main([*SMALL, *more, f"paths.output_dir={tmp_path}/run"]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["about"]["protocol"] == "paper"
    assert {row["seed"] for row in json.loads((tmp_path / "run/shots.json").read_text())} == {0, 1}


def test_multirun_goes_on_after_a_failure(data_dir, tmp_path, capsys):
    words = [*SMALL, f"paths.data_dir={data_dir}", f"paths.runs_dir={tmp_path}", "shots=[0],[50]"]
    assert train_main(["--multirun", "model=sowa_linear", "seed=1,2", *words]) == 2
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("train/*/*/run.json")]
    assert sorted(run["seed"] for run in runs) == [1, 2]
    error = capsys.readouterr().err
    assert "run 2 of 4: category candle of visa" in error
    assert "2 of 4 runs failed" in error


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["paths.output_dir=/x"], "paths.runs_dir"),
        (["trainer.devices=2"], "one by one"),
    ],
)
def test_what_a_multirun_cannot_do(words, answer):
    with pytest.raises(ConfigError, match=answer):
        train_main(["-m", "seed=1,2", *words])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["data.target.dataset=mvtec"], "same data"),
        (["data=sowa_btad"], "no directory for btad"),
        (["data.auxiliary.categories=[bottel]"], "did you mean 'bottle'"),
        (["data.on_error=ignore"], "raise, skip"),
        (["shots=[50]"], "50 shots"),
        (["shots=[-1]"], "shots="),
        (["seeds=[]"], "seeds="),
        (["data.batch_size=0"], "batch_size"),
        (["save_every_steps=0"], "save_every_steps=0"),
        (["optimisation.lr=-1"], "lr=-1"),
        (["protocol=fast"], "paper, standard"),
        (["model.heads=7"], "heads=7"),
        (["+model.colour=1"], "'colour'"),
        (["+backbone.colour=1"], "'colour'"),
        (["+data.target.colour=1"], "'colour'"),
        (["+trainer.colour=1"], "'colour'"),
        (["+trainer.max_steps=3"], "trainer.max_steps"),
        (["trainer.precision=half"], "Precision 'half' is invalid"),
        (["trainer.devices=none"], "devices"),
        (["ckpt_path=/nowhere"], "no checkpoint at '/nowhere'"),
    ],
)
def test_mistakes_stop_before_anything_is_written(data_dir, tmp_path, words, answer):
    with pytest.raises(SowaError, match=answer) as caught:
        train_main([*SMALL, f"paths.data_dir={data_dir}", f"paths.runs_dir={tmp_path}", *words])
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_missing_data_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("SOWA_DATA", raising=False)
    for words, answer in (([], "SOWA_DATA"), ([f"paths.data_dir={tmp_path}/absent"], "no such directory")):
        with pytest.raises(SowaError, match=answer):
            train_main([*SMALL, *words])


def test_evaluation_needs_weights(data_dir, tmp_path):
    words = ["backbone=random_tiny", f"paths.data_dir={data_dir}", f"paths.runs_dir={tmp_path}"]
    with pytest.raises(SowaError, match="ckpt_path"):
        eval_main(words)
    (tmp_path / "trained.safetensors").write_bytes(b"{}")
    with pytest.raises(SowaError, match="damaged"):
        eval_main([*words, f"ckpt_path={tmp_path}/trained.safetensors"])


def test_an_interrupt_reaches_the_caller(data_dir, tmp_path, monkeypatch):
    """Lightning would exit with 1 and leave the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    training: Training = prepare(data_dir, tmp_path)

    def interrupted(batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.detector, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.fit()
    assert signal.getsignal(signal.SIGINT) is handler


def test_help_and_composed_settings(capsys):
    assert train_main(["--help"]) == 0
    assert "sowa_visa" in capsys.readouterr().out
    assert train_main(["--cfg", "job", "seed=5", "backbone=random_tiny"]) == 0
    assert "seed: 5" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--help"):
        train_main(["--nonsense"])


# ---- what the processes left, last because they take the longest


@pytest.fixture(scope="module")
def seed_run(processes):
    home, running = processes
    out, err = running["seed"].communicate(timeout=DEADLINE)
    assert running["seed"].returncode == 0, err
    (folder,) = (home / "runs/train/sowa_visa_sowa_hfwa_random_tiny").iterdir()
    return folder, out, err


def test_the_seed_command(seed_run):
    folder, out, err = seed_run
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.yaml", "run.json", "metrics.json", "scores.csv", "shots.json", "trained.safetensors"}
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["steps"], run["seed"]) == ("finished", 2, 0)
    assert run["backbone"] == {"name": "random_tiny", "weights_id": "random:seed=0"}
    assert run["overrides"][: len(SEED_COMMAND)] == SEED_COMMAND
    with open(folder / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["category"] for row in rows} == {"visa/candle", "visa/pcb1"}
    assert {(row["k"], row["seed"]) for row in rows} == {("0", "0"), ("4", "0")}
    assert len(rows) == 2 * 8  # two draws of the four test images of two categories
    assert (folder / "csv/version_0/metrics.csv").read_text().startswith("epoch,step,train/loss")
    assert "candle" in out
    assert err.strip().splitlines()[-1].endswith(str(folder))
    assert "Warning" not in err


def test_evaluating_the_run_gives_its_numbers(seed_run, data_dir, tmp_path, monkeypatch):
    folder, _, _ = seed_run
    words = [f"ckpt_path={folder}", f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path}/eval"]
    monkeypatch.setattr(sys, "argv", ["src/eval.py", *words])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(ROOT / "src/eval.py"), run_name="__main__")
    assert done.value.code == 0
    for name in ("metrics.json", "scores.csv", "shots.json"):
        assert (tmp_path / "eval" / name).read_bytes() == (folder / name).read_bytes(), name


def test_weights_are_not_judged_on_what_they_were_trained_on(seed_run, data_dir, tmp_path):
    words = [f"ckpt_path={seed_run[0]}", f"paths.data_dir={data_dir}", f"paths.runs_dir={tmp_path}"]
    with pytest.raises(SowaError, match=r"trained on mvtec \(bottle, grid\)"):
        eval_main([*words, "data=sowa_mvt"])


def test_a_killed_process_resumes_with_the_bits_of_one_that_lived(processes, data_dir, tmp_path):
    home, running = processes
    state = home / "killed/checkpoints/last.ckpt"
    _, err = running["killed"].communicate(timeout=DEADLINE)
    assert running["killed"].returncode == -signal.SIGKILL, err
    epochs = read_state(state)["epoch"] + 2
    same = [*SMALL, "save_every_steps=2", f"trainer.max_epochs={epochs}"]
    places = [f"paths.output_dir={home}/killed", f"paths.data_dir={data_dir}"]
    assert train_main([*same, *places, "resume=true", "test=false"]) == 0
    whole = prepare(data_dir, tmp_path, same)
    whole.fit()
    assert digest(read_trained(home / "killed/trained.safetensors")[0]) == digest(whole.detector.trained_state())
    run = json.loads((home / "killed/run.json").read_text())
    assert run["status"] == "finished"
    assert run["attempts"][0]["status"] == "running", "a killed process cannot say that it ended"
    assert run["resumed_from"] == str(state)
