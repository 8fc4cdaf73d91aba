"""What a benchmark is asked for: methods x data sets x shots x seeds, from names, options and experiment files.

A method and a data set are each a name and the words that the training door would be given for it
(`winclip: [model=winclip, backbone.image_size=112]`), so that there is one language of settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sowa.errors import ConfigError, UnknownNameError

__all__ = ["Choice", "Plan", "experiments", "guest_options", "load_experiment", "numbers", "plan_of", "target_names"]

GUEST = "anomalib:"
"""Begins the name of a method that an installed anomalib brings."""

EXPERIMENTS = resources.files("sowa") / "benchmark" / "experiments"
ALIASES = {"sowa": "sowa_hfwa"}
PROTOCOLS = ("standard", "paper")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
KEYS = (
    "backbone",
    "batch_size",
    "data",
    "limit",
    "methods",
    "precision",
    "protocol",
    "reference",
    "seeds",
    "shots",
    "shots_of",
    "title",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A method or a data set: its name in the tables and its words for the training door."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole benchmark."""

    methods: tuple[Choice, ...]
    data: tuple[Choice, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    protocol: str
    backbone: str
    limit: int | None
    """Test images of each category and label; None is all of them."""
    batch_size: int
    title: str
    reference: str
    """Name of the method that the others are compared with."""
    trained: Mapping[str, Path]
    """Method -> trained tensors to be used in place of a training."""
    paths: tuple[str, ...] = ()
    """Words that say where data and weights lie; they decide no result."""
    precision: str = "fp32"
    """What towers compute in while they score (`sowa.backbones.precision`); trainings stay in float32."""
    shots_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Method -> its own shots, in place of `shots`."""

    def shots_for(self, method: str) -> tuple[int, ...]:
        return self.shots_of.get(method, self.shots)


def experiments() -> list[str]:
    """Names of the experiment files that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in EXPERIMENTS.iterdir() if path.name.endswith(".yaml"))


def load_experiment(name: str) -> dict[str, Any]:
    """The content of an experiment: by name, or a YAML file of one's own."""
    known = experiments()
    if name in known:
        path = EXPERIMENTS / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        raise UnknownNameError("benchmark experiment", got=name, known=[*known, "FILE.yaml"])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: expected keys such as {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise UnknownNameError(f"key in {name}", got=key, known=KEYS)
    return content


def numbers(text: str, *, what: str) -> tuple[int, ...]:
    """`0,1,2,4` or `0-4`, in the order given, each once."""
    found: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            found += range(int(low), int(high) + 1) if dash else [int(low)]
    except ValueError:
        raise ConfigError(f"{what} '{text}': give whole numbers of 0 or more, such as 0,1,2,4 or 0-4") from None
    if not found or min(found) < 0 or len(found) > 10_000:
        raise ConfigError(f"{what} '{text}': give whole numbers of 0 or more, such as 0,1,2,4 or 0-4")
    return tuple(dict.fromkeys(found))


def target_names() -> dict[str, str]:
    """Name a user may give -> file in configs/data: the file's own name, and the data set it judges on."""
    names: dict[str, str] = {}
    for path in _configs("data"):
        if path.name.endswith(".yaml"):
            name = path.name.removesuffix(".yaml")
            names[name] = name
            names.setdefault(yaml.safe_load(path.read_text(encoding="utf-8"))["target"]["dataset"], name)
    return names


def plan_of(content: Mapping[str, Any], *, trained: Mapping[str, Path], paths: Sequence[str] = ()) -> Plan:
    """A plan from the keys of an experiment, defaults where it says nothing; one line for what cannot be."""
    methods = _methods(content.get("methods", ["sowa"]))
    plan = Plan(
        methods=methods,
        data=_data(content.get("data", ["drawn"])),
        shots=_whole(content.get("shots", [0, 1, 2, 4]), "shots"),
        seeds=_whole(content.get("seeds", [0, 1, 2, 3, 4]), "seeds"),
        protocol=content.get("protocol", "standard"),
        backbone=str(content.get("backbone", "compact")),
        limit=content.get("limit"),
        batch_size=content.get("batch_size", 8),
        title=str(content.get("title", "")),
        reference=str(content.get("reference", methods[0].name)),
        trained=dict(trained),
        paths=tuple(paths),
        precision=content.get("precision", "fp32"),
        shots_of=_shots_of(content.get("shots_of"), methods),
    )
    if plan.precision not in PRECISIONS:
        raise UnknownNameError("precision", got=str(plan.precision), known=PRECISIONS)
    if plan.protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", got=plan.protocol, known=PROTOCOLS)
    for value, what in ((plan.limit, "limit"), (plan.batch_size, "batch_size")):
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{what} {value!r}: give a whole number of 1 or more")
    names = [method.name for method in methods]
    for name in trained:
        if name not in names:
            raise UnknownNameError("method with trained weights", got=name, known=names)
    if plan.reference not in names:
        raise UnknownNameError("reference method", got=plan.reference, known=names)
    return replace(plan)


def guest_options(choice: Choice) -> dict[str, Any]:
    """The words of a guest, `pre_trained=false`, as options of its class; values are YAML."""
    options = {}
    for word in choice.words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{choice.name}: '{word}' is no option: write name=value, such as pre_trained=false")
        options[key] = yaml.safe_load(value)
    return options


def _shots_of(given: Any, methods: Sequence[Choice]) -> dict[str, tuple[int, ...]]:
    """Those of methods that are not asked for are left out: an experiment's methods may be overruled."""
    if not isinstance(given or {}, Mapping):
        raise ConfigError(f"shots_of {given!r}: give methods with their shots, such as {{padim: [1, 4]}}")
    names = [method.name for method in methods]
    return {name: _whole(shots, f"shots_of {name}") for name, shots in (given or {}).items() if name in names}


def _methods(given: Any) -> tuple[Choice, ...]:
    known = sorted(path.name.removesuffix(".yaml") for path in _configs("model") if path.name.endswith(".yaml"))
    choices = []
    for name, words in _pairs(given, "methods"):
        if not name.startswith(GUEST) and not any(word.startswith("model=") for word in words):
            model = ALIASES.get(name, name)
            if model not in known:
                raise UnknownNameError("method", got=name, known=[*known, *ALIASES, f"{GUEST}NAME"])
            words = (f"model={model}", *words)
        choices.append(Choice(name, words))
    return _unlike(choices, "methods")


def _data(given: Any) -> tuple[Choice, ...]:
    choices, known = [], target_names()
    judged = {file: name for name, file in known.items() if name != file or name == "elpv"}
    for name, words in _pairs(given, "data"):
        if not any(word.startswith("data=") for word in words):
            if name not in known:
                raise UnknownNameError("data set", got=name, known=known)
            words = (f"data={known[name]}", *words)
            name = judged[known[name]]
        choices.append(Choice(name, words))
    return _unlike(choices, "data")


def _pairs(given: Any, what: str) -> list[tuple[str, tuple[str, ...]]]:
    rows = given.items() if isinstance(given, Mapping) else ((name, ()) for name in given or ())
    pairs = [(str(name), tuple(str(word) for word in words or ())) for name, words in rows]
    if not pairs:
        raise ConfigError(f"{what}: none given; name at least one")
    return pairs


def _unlike(choices: list[Choice], what: str) -> tuple[Choice, ...]:
    names = [choice.name for choice in choices]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{what}: {', '.join(twice)} given twice")
    return tuple(choices)


def _whole(given: Any, what: str) -> tuple[int, ...]:
    values = given if isinstance(given, list | tuple) else [given]
    return numbers(",".join(str(value) for value in values), what=what)


def _configs(group: str) -> list[Any]:
    return list((resources.files("sowa.configs") / group).iterdir())
