"""The two doors: `train_main` and `eval_main` take the words of the command line and leave a run folder.

Heavy libraries are imported once the settings are known to be good, so that a typo is answered at once.
"""

import argparse
import gc
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from sowa.data.intake import intake_of
from sowa.errors import ConfigError, SowaError, UnknownNameError
from sowa.training.allocator import keep_freed_memory
from sowa.training.compose import Composed, chosen_keys, compose_job, expand_sweep
from sowa.training.usage import help_text

if TYPE_CHECKING:
    from sowa.data.shots import Shots
    from sowa.detectors.base import Detector
    from sowa.training.record import RunFolder
    from sowa.training.sources import Source

__all__ = ["eval_main", "train_main"]

DEVICES = {"gpu": "cuda", "cuda": "cuda", "mps": "mps"}
"""Where scoring happens for an accelerator of the trainer; anything else is the processor."""


def train_main(argv: Sequence[str] | None = None) -> int:
    """Train and (unless `test=false`) evaluate; returns the exit code, raises SowaError for what a user can mend."""
    return _door("train", sys.argv[1:] if argv is None else argv)


def eval_main(argv: Sequence[str] | None = None) -> int:
    """Evaluate trained weights; returns the exit code, raises SowaError for what a user can mend."""
    return _door("eval", sys.argv[1:] if argv is None else argv)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; settings are written KEY=VALUE, see --help")


def _door(job: str, argv: Sequence[str]) -> int:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("overrides", nargs="*")
    words = parser.parse_intermixed_args(argv)
    if words.help:
        print(help_text(job))
        return 0
    runs = expand_sweep(words.overrides) if words.multirun else [words.overrides]
    jobs = [compose_job(job, run, saved=_saved_settings(run) if job == "eval" else None) for run in runs]
    if words.cfg:
        print("---\n".join(yaml.safe_dump(one.settings, sort_keys=False, allow_unicode=True) for one in jobs), end="")
        return 0
    return _run(jobs[0]) if len(jobs) == 1 else _run_all(jobs)


def _run(composed: Composed) -> int:
    keep_freed_memory()
    (_train if composed.job == "train" else _evaluate)(composed)
    return 0


def _run_all(jobs: Sequence[Composed]) -> int:
    """One after the other; a run that fails does not stop those behind it."""
    if any(str(job.settings["trainer"]["devices"]) != "1" for job in jobs):
        raise ConfigError("--multirun with several devices is not possible: start these runs one by one")
    if any(job.settings["paths"]["output_dir"] is not None for job in jobs):
        raise ConfigError("paths.output_dir is the folder of one run: with --multirun set paths.runs_dir instead")
    failed = 0
    for number, job in enumerate(jobs, start=1):
        print(f"run {number} of {len(jobs)}: {' '.join(job.overrides)}", file=sys.stderr)
        try:
            _run(job)
        except SowaError as error:
            failed += 1
            print(f"sowa: error: run {number} of {len(jobs)}: {error}", file=sys.stderr)
        gc.collect()
    if failed:
        print(f"{failed} of {len(jobs)} runs failed", file=sys.stderr)
    return 2 if failed else 0


def _weights_at_hand(settings: Mapping[str, Any]) -> None:
    """Find (or fetch) the backbone's file before anything slow is loaded or read."""
    from sowa.backbones import find_weights

    places = ("model", "tag", "weights", "cache_dir", "offline")
    backbone = settings["backbone"]
    find_weights(backbone["name"], **{key: backbone[key] for key in places if key in backbone})


def _train(composed: Composed) -> None:
    settings = _checked(composed.settings)
    _weights_at_hand(settings)
    from sowa.training.build import build, call
    from sowa.training.record import open_folder
    from sowa.training.sources import check_shots, read_source, refuse_same_data
    from sowa.training.tokens import tell_token_cache

    data, places = settings["data"], {key: settings["paths"][key] for key in ("data_dir", "cache_dir")}
    known = {key: value for key, value in data["auxiliary"].items() if key != "mosaic_rate"}
    auxiliary = call(read_source, known, what="data.auxiliary", **places)
    target, drawn = None, {}
    if settings["test"]:
        target = call(read_source, data["target"], what="data.target", **places)
        refuse_same_data(auxiliary, target)
        drawn = check_shots(target, settings["shots"], settings["seeds"], settings["shots_file"])
    detector = build(settings)
    from sowa.training.train import Training, auxiliary_data  # Lightning, the slowest to load, comes last

    images = auxiliary_data(auxiliary, detector, settings)
    folder = open_folder("train", _name(settings["choices"]), settings)
    with folder.unless_unused():
        training = Training(detector, images, settings, folder)
    with folder.recording(settings, composed.overrides):
        if training.trainer.is_global_zero:
            _say(f"training on {len(images.dataset)} images of {auxiliary.dataset}, run folder {folder.path}")
            tell_token_cache(detector, len(images.dataset), settings["trainer"].get("max_epochs"))
        folder.note(**training.fit())
        if not training.trainer.is_global_zero:
            return
        if target is not None:
            _score(detector, target, drawn, settings, folder)
    _say(f"done: trained weights, settings and scores are in {folder.path}")


def _evaluate(composed: Composed) -> None:
    settings = _checked(composed.settings)
    _weights_at_hand(settings)
    from sowa.artifact import find_trained, load_trained
    from sowa.training.build import build, call
    from sowa.training.record import open_folder
    from sowa.training.sources import check_shots, read_source, refuse_trained_on

    places = {key: settings["paths"][key] for key in ("data_dir", "cache_dir")}
    target = call(read_source, settings["data"]["target"], what="data.target", **places)
    drawn = check_shots(target, settings["shots"], settings["seeds"], settings["shots_file"])
    detector = build(settings)
    if settings["ckpt_path"] is not None:
        refuse_trained_on(target, load_trained(find_trained(Path(settings["ckpt_path"])), detector))
    elif detector.trains == "auxiliary":
        raise ConfigError("ckpt_path is missing: give the run folder or the trained.safetensors of a training")
    folder = open_folder("eval", _name(settings["choices"]), settings)
    with folder.recording(settings, composed.overrides):
        _score(detector, target, drawn, settings, folder)
    _say(f"done: scores and metrics in {folder.path}")


def _score(
    detector: "Detector",
    target: "Source",
    drawn: "Mapping[int, Shots]",
    settings: Mapping[str, Any],
    folder: "RunFolder",
) -> None:
    """Evaluate, leave `metrics.json`, `scores.csv` and `shots.json` in the folder, print the tables."""
    from sowa.metrics.table import print_table, summarise
    from sowa.training.evaluate import evaluate, write_results
    from sowa.training.progress import evaluation_progress

    backbone = detector.backbone
    folder.note(backbone={"name": backbone.name, "weights_id": backbone.weights_id}, **_machine(settings))
    detector.eval().to(DEVICES.get(str(settings["trainer"]["accelerator"]), "cpu"))
    detector = detector.at_precision(settings.get("precision", "fp32"))  # a training scores in float32
    with evaluation_progress() as progress:
        result = evaluate(
            detector,
            dataset=target.dataset,
            samples=target.samples,
            shots=settings["shots"],
            seeds=settings["seeds"],
            drawn=drawn,
            protocol=settings["protocol"],
            fit=settings["data"].get("fit", "squash"),  # weights from before this setting do not name it
            batch_size=settings["data"]["batch_size"],
            workers=settings["data"]["num_workers"],
            on_error=settings["data"]["on_error"],
            exact_gb=settings.get("exact_gb", math.inf),
            progress=progress,
        )
    about = {"model": settings["model"]["name"], "backbone": backbone.name, "protocol": settings["protocol"]}
    write_results(folder.path, result, about=about)
    print_table(summarise(result.rows))
    if result.skipped:
        _say(f"{len(result.skipped)} unreadable images were left out; they are named in {folder.path / 'metrics.json'}")


def _saved_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """What the weights of `ckpt_path=` say of their training, for every group the overrides do not choose."""
    path = chosen_keys(overrides).get("ckpt_path")
    if path is None:
        return {}
    from sowa.artifact import find_trained, read_meta

    about = read_meta(find_trained(Path(path)))
    if "${" in str(about):
        raise ConfigError(f"ckpt_path={path} describes itself with ${{...}}, which is not evaluated: it cannot be used")
    saved = {key: about[key] for key in ("model", "backbone", "data", "protocol", "seed") if key in about}
    saved["choices"] = about.get("choices", {})
    if "model" in saved:  # so that protocol=... on the command line reaches the model
        follows = {key: f"${{{key}}}" for key in ("protocol", "seed") if key in saved["model"]}
        saved["model"] = {**saved["model"], **follows}
    return saved


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with lists where lists are meant and paths made absolute; what no part would check is checked here."""
    settings = dict(settings)
    for key in ("shots", "seeds"):
        values = settings[key] if isinstance(settings[key], list) else [settings[key]]
        if not values or not all(type(value) is int and value >= 0 for value in values):
            raise ConfigError(f"{key}={settings[key]} cannot be used: give whole numbers of 0 or more, such as [0,4]")
        settings[key] = values
    if not settings["exact_gb"] >= 0:
        raise ConfigError(f"exact_gb={settings['exact_gb']} cannot be used: give gigabytes of 0 or more, such as 4.0")
    if settings["data"]["batch_size"] < 1 or settings["data"]["num_workers"] < 0:
        raise ConfigError("data.batch_size must be 1 or more, data.num_workers 0 or more")
    intake_of(settings["protocol"], settings["data"].get("fit", "squash"))
    _check_precision(settings)
    paths = settings["paths"]
    if settings["shots_file"] is not None:
        settings["shots_file"] = str(Path(settings["shots_file"]).expanduser().absolute())
    settings["paths"] = {key: value and str(Path(value).expanduser().absolute()) for key, value in paths.items()}
    return settings


def _check_precision(settings: Mapping[str, Any]) -> None:
    """The word is known, and the papers' arithmetic stays exact."""
    precision = settings.get("precision", "fp32")
    known = ("auto", "fp32", "bf16", "fp16", "int8")
    if precision not in known:
        raise UnknownNameError("precision", got=str(precision), known=known)
    if settings["protocol"] == "paper" and precision != "fp32":
        raise ConfigError(f"precision={precision} with protocol=paper: the papers' numbers are of fp32, leave it out")


def _name(choices: Mapping[str, str]) -> str:
    """Of the folder that holds the runs of one kind."""
    return "_".join(choices[group] for group in ("data", "model", "backbone"))


def _machine(settings: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {"accelerator": settings["trainer"]["accelerator"], "threads": torch.get_num_threads()}


def _say(line: str) -> None:
    print(f"sowa: {line}", file=sys.stderr, flush=True)
