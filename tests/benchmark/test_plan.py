"""What is asked for is what is run, and what cannot be is said in one line."""

import pytest

from sowa.benchmark.plan import experiments, load_experiment, numbers, plan_of, target_names
from sowa.errors import ConfigError, SowaError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "expected"), [("0,1,2,4", (0, 1, 2, 4)), ("0-4", (0, 1, 2, 3, 4)), ("4,0-1,1", (4, 0, 1))]
)
def test_lists_and_ranges(text, expected):
    assert numbers(text, what="seeds") == expected


@pytest.mark.parametrize("text", ["", "a", "-1", "4-", "1.5", "3-1", "0-99999"])
def test_what_is_no_list_of_numbers(text):
    with pytest.raises(ConfigError, match="seeds"):
        numbers(text, what="seeds")


@pytest.mark.parametrize("name", experiments())
def test_experiments_that_come_along_are_plans(name):
    plan = plan_of(load_experiment(name), trained={})
    assert plan.methods and plan.data and plan.title
    assert len({choice.name for choice in plan.methods}) == len(plan.methods)


def test_the_offline_experiment_holds_all_eight_methods():
    names = {choice.name for choice in plan_of(load_experiment("offline"), trained={}).methods}
    assert names - {"sowa_plus"} == {
        "sowa",
        "winclip",
        "april_gan",
        "promptad",
        "inctrl",
        "spade",
        "padim",
        "patchcore",
    }


def test_data_sets_go_by_their_own_name_and_by_their_configuration():
    names = target_names()
    assert names["visa"] == names["sowa_visa"] == "sowa_visa" and names["drawn"] == "demo" and names["elpv"] == "elpv"


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"methods": ["sova"]}, "did you mean 'sowa'"),
        ({"methods": []}, "methods: none given"),
        ({"methods": ["padim", "padim"]}, "given twice"),
        ({"data": ["vista"]}, "unknown data set 'vista'"),
        ({"protocol": "papers"}, "unknown protocol"),
        ({"limit": 0}, "limit 0"),
        ({"batch_size": "8"}, "batch_size"),
        ({"reference": "winclip"}, "reference method"),
        ({"shots": [-1]}, "shots"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"shots_of": [1]}, "shots_of"),
    ],
)
def test_slips(content, answer):
    with pytest.raises(SowaError, match=answer) as caught:
        plan_of(content, trained={})
    assert "\n" not in str(caught.value)


def test_weights_for_a_method_that_is_not_asked_for(tmp_path):
    with pytest.raises(UnknownNameError, match="trained weights"):
        plan_of({"methods": ["padim"]}, trained={"sowa": tmp_path})


def test_experiment_files_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("methods: [padim]\nshots: 1\n")
    assert plan_of(load_experiment(str(path)), trained={}).shots == (1,)
    for text, answer in (("shot: 1", "did you mean 'shots'"), ("- a", "expected keys"), ("a: [", "is not YAML")):
        path.write_text(text)
        with pytest.raises(SowaError, match=answer):
            load_experiment(str(path))
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_experiment(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UnknownNameError, match="offline"):
        load_experiment("ofline")
