"""Every YAML composes, and every key in it is the name of a parameter."""

import inspect
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, loggers

import sowa.configs
from sowa.backbones import BACKBONES, build_backbone
from sowa.detectors import detector_class
from sowa.training.build import build
from sowa.training.compose import compose_job, list_groups
from sowa.training.module import LitDetector
from sowa.training.sources import drawn_root, read_source
from sowa.training.train import LOGGERS

GROUPS = list_groups()
YAML = Path(sowa.configs.__file__).parent


def parameters(function):
    return set(inspect.signature(function).parameters)


def options(group):
    return pytest.mark.parametrize("option", GROUPS[group])


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in GROUPS[group]])
def test_every_option_composes(group, option):
    assert compose_job("train", [f"{group}={option}"]).settings["choices"][group] == option


@options("experiment")
def test_every_experiment_evaluates(option):
    assert compose_job("eval", [f"experiment={option}"]).settings["choices"]["experiment"] == option


@options("model")
def test_every_model_is_built_on_the_tiny_backbone(option):
    settings = compose_job("train", [f"model={option}", "backbone=random_tiny"]).settings
    model = settings["model"]
    assert model.keys() <= parameters(detector_class(model["name"])) | {"name"}
    for protocol in ("standard", "paper") if "protocol" in model else ("standard",):
        detector = build({**settings, "model": {**model, **({"protocol": protocol} if "protocol" in model else {})}})
        assert detector.trains != "auxiliary" or detector.trained_state()


def test_the_papers_model_is_the_default_of_its_class():
    model = compose_job("train", ["model=sowa_hfwa"]).settings["model"]
    defaults = {key: value.default for key, value in inspect.signature(detector_class("sowa")).parameters.items()}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert {key: value for key, value in model.items() if key != "name"}.items() <= plain.items()


@options("backbone")
def test_backbone_keys(option):
    backbone = compose_job("train", [f"backbone={option}"]).settings["backbone"]
    assert backbone.keys() <= parameters(build_backbone)
    assert backbone["name"] == option
    assert option in BACKBONES


@options("data")
def test_data_keys(option):
    data = compose_job("train", [f"data={option}"]).settings["data"]
    for part in ("auxiliary", "target"):
        assert data[part].keys() - {"mosaic_rate"} <= parameters(read_source)
        assert data[part].get("draw", {}).keys() <= parameters(drawn_root)
    assert 0 <= data["auxiliary"]["mosaic_rate"] <= 1


@pytest.mark.parametrize(
    ("option", "auxiliary", "target", "mosaic_rate"),
    [
        ("sowa_visa", "mvtec", "visa", 0.2),
        ("sowa_mvt", "visa", "mvtec", 0.0),
        ("sowa_btad", "mvtec", "btad", 0.2),
        ("sowa_dagm", "mvtec", "dagm", 0.2),
        ("sowa_dtd", "mvtec", "dtd", 0.2),
        ("demo", "drawn", "drawn", 0.2),
    ],
)
def test_auxiliary_data_as_the_paper_chooses(option, auxiliary, target, mosaic_rate):
    data = compose_job("train", [f"data={option}"]).settings["data"]
    assert (data["auxiliary"]["dataset"], data["target"]["dataset"]) == (auxiliary, target)
    assert data["auxiliary"]["mosaic_rate"] == mosaic_rate


@options("trainer")
def test_trainer_keys(option):
    assert compose_job("train", [f"trainer={option}"]).settings["trainer"].keys() <= parameters(Trainer)


@options("logger")
def test_logger_keys(option):
    for name, values in compose_job("train", [f"logger={option}"]).settings["logger"].items():
        assert name == option
        assert values.keys() <= parameters(getattr(loggers, LOGGERS[name]))


def test_optimisation_keys_and_the_papers_values():
    optimisation = compose_job("train", []).settings["optimisation"]
    optimisation["betas"] = tuple(optimisation["betas"])
    assert optimisation == {
        key: value.default for key, value in inspect.signature(LitDetector).parameters.items() if key in optimisation
    }
    assert {key: optimisation[key] for key in ("lr", "weight_decay", "factor", "patience")} == {
        "lr": 1e-3,
        "weight_decay": 0.2,
        "factor": 0.1,
        "patience": 5,
    }


@options("experiment")
def test_experiments_open_with_their_command(option):
    comments = [line for line in (YAML / f"experiment/{option}.yaml").read_text().splitlines() if line.startswith("#")]
    (command,) = (line for line in comments if "python src/train.py" in line)
    words = command.split("src/train.py")[1].split()
    assert f"experiment={option}" in words
    assert compose_job("train", words).settings["choices"]["experiment"] == option
    assert len(comments) > 2, "an experiment says what to expect"


@pytest.mark.parametrize("path", sorted(YAML.rglob("*.yaml")), ids=lambda path: str(path.relative_to(YAML)))
def test_every_file_says_what_it_is_for(path):
    assert path.read_text().startswith("# ")
