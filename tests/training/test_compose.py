"""Settings: what can be written on the command line, and how a slip of the pen is answered."""

import re

import pytest

from sowa.errors import ConfigError, SowaError
from sowa.training.compose import chosen_keys, compose_job, default_settings, expand_sweep, list_groups
from sowa.training.usage import help_text


def settings(*overrides):
    return compose_job("train", overrides).settings


def test_the_seeds_users_command():
    composed = settings("trainer=cpu", "data=sowa_visa", "model=sowa_hfwa")
    assert composed["choices"] | {"backbone": "clip", "logger": "csv"} == composed["choices"]
    assert (composed["data"]["auxiliary"]["dataset"], composed["data"]["target"]["dataset"]) == ("mvtec", "visa")
    assert composed == settings()


@pytest.mark.parametrize(
    ("slip", "answer"),
    [
        ("data=sowa_vsia", "choice for data 'sowa_vsia' (did you mean 'sowa_visa'?)"),
        ("trainr=cpu", "setting 'trainr' (did you mean 'trainer'?)"),
        ("trainer.max_epoch=2", "'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)"),
        ("model.sgima=2", "did you mean 'model.sigma'?"),
        ("data.target.rot=/x", "did you mean 'data.target.root'?"),
        ("logger=[csv,tensorbord]", "did you mean 'tensorboard'?"),
        ("experiment=papr", "did you mean 'paper'?"),
        ("logger=null", "choose one of csv"),
        ("seed.first=1", "'seed' is a single value"),
        ("seed=one", "a whole number is wanted"),
        ("seed=1.5", "a whole number is wanted"),
        ("seed=true", "a whole number is wanted"),
        ("optimisation.lr=fast", "a number is wanted"),
        ("test=1", "true or false is wanted"),
        ("optimisation=3", "set one of optimisation.optimizer"),
        ("+extra=1", "unknown setting 'extra'"),
        ("~nothing", "unknown setting 'nothing'"),
        ("+seed=1", "already at 'seed'"),
        ("hydra.run.dir=/x", "paths.output_dir"),
        ("data=sowa_visa,sowa_mvt", "--multirun"),
        ("seed", "write KEY=VALUE"),
        ("shots=[0,4", "cannot read the setting"),
        ("trainer.max_epochs=${nowhere}", "nowhere"),
    ],
)
def test_slips(slip, answer):
    with pytest.raises(SowaError, match=re.escape(answer)) as caught:
        settings(slip)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", ["/a b/(c)/d=e", "/ü/日本", "/plain", "C:\\data", "/100%/#1", "~/data"])
def test_paths_are_taken_as_they_stand(path):
    assert settings(f"paths.data_dir={path}")["paths"]["data_dir"] == path


def test_values_keep_their_kind():
    composed = settings(
        "optimisation.lr=1", "shots=[1,2]", "seed=3", "model.window=4", "+trainer.gradient_clip_val=0.5"
    )
    assert composed["optimisation"]["lr"] == 1
    assert composed["shots"] == [1, 2]
    assert composed["model"]["window"] == 4
    assert composed["model"]["seed"] == 3, "the model's seed follows the run's"
    assert composed["trainer"]["gradient_clip_val"] == 0.5


def test_environment_names_the_data(monkeypatch):
    monkeypatch.delenv("SOWA_DATA", raising=False)
    assert settings()["paths"]["data_dir"] is None
    monkeypatch.setenv("SOWA_DATA", "/from/environment")
    assert settings()["paths"]["data_dir"] == "/from/environment"
    assert settings("paths.data_dir=/given")["paths"]["data_dir"] == "/given"


def test_sweep_is_the_product():
    runs = expand_sweep(["data=sowa_visa,sowa_mvt", "seed=range(2)", "shots=[0,4]", "~logger"])
    assert runs == [
        [f"data={data}", f"seed={seed}", "shots=[0,4]", "~logger"]
        for data in ("sowa_visa", "sowa_mvt")
        for seed in (0, 1)
    ]
    assert all(settings(*run) for run in runs)
    with pytest.raises(ConfigError, match="no end of values"):
        expand_sweep(["optimisation.lr=interval(0,1)"])


def test_saved_settings_stand_where_nothing_is_said():
    trained = compose_job("train", ["model=sowa_linear", "backbone=random_tiny", "data=sowa_mvt", "seed=7"]).settings
    saved = {key: trained[key] for key in ("model", "backbone", "data", "protocol", "seed", "choices")}
    saved["model"] = {**saved["model"], "sigma": 2.5, "protocol": "${protocol}"}
    found = compose_job("eval", [], saved=saved).settings
    assert found["model"] == {**trained["model"], "sigma": 2.5}
    assert (found["backbone"], found["data"], found["seed"]) == (trained["backbone"], trained["data"], 7)
    assert found["choices"] | trained["choices"] | {"logger": "csv"} == found["choices"] | {"logger": "csv"}
    given = compose_job("eval", ["protocol=paper", "model.sigma=1.0", "data=sowa_btad"], saved=saved).settings
    assert (given["model"]["protocol"], given["model"]["sigma"], given["model"]["adapter"]) == ("paper", 1.0, "linear")
    assert given["data"]["target"]["dataset"] == "btad"
    assert "saved" not in list_groups()["model"]


def test_chosen_keys():
    assert chosen_keys(["ckpt_path=/a b/c=d", "shots=[0]", "~logger", "+x=1"])["ckpt_path"] == "/a b/c=d"


@pytest.mark.parametrize("job", ["train", "eval"])
def test_help_names_every_group_and_setting(job):
    text = help_text(job)
    for group in default_settings(job)[0]:
        assert all(option in text for option in (group, *list_groups()[group]))
    assert "seed=0" in text
    assert "model.abnormal_templates=[damaged {}]" in text
    assert "paths.data_dir=" in text
