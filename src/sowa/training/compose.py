"""Settings from the YAML groups and the command line. Hydra enters here and leaves as plain dicts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sowa.errors import ConfigError, UnknownNameError

__all__ = ["Composed", "chosen_keys", "compose_job", "default_settings", "expand_sweep", "list_groups"]

SAVED = "saved"
"""Name under which the settings stored with trained weights enter a group: `model=saved`."""


@dataclass(frozen=True, slots=True)
class Composed:
    """Settings of one run."""

    job: str
    settings: dict[str, Any]
    """Plain and resolved: what `config.yaml` of the run folder shows. `choices` is group -> chosen option."""
    overrides: tuple[str, ...]


def compose_job(job: str, overrides: Sequence[str], *, saved: Mapping[str, Any] | None = None) -> Composed:
    """Settings of `train` or `eval`. `saved`, what trained weights say of their training, stands where the overrides
    say nothing."""
    groups = list_groups()
    with _hydra() as loader:
        said = _parse(loader, overrides)
        presets = _presets(saved or {}, {override.key_or_group for override in said}, groups)
        given = [*_parse(loader, presets), *said]
        config = _composed(job, given, groups)
        try:
            choices = {key: value for key, value in config.hydra.runtime.choices.items() if "/" not in key}
            OmegaConf.set_struct(config, False)
            del config["hydra"]
            settings = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_line(error)) from error
    for group, name in choices.items():
        choices[group] = saved["choices"].get(group, name) if saved and name == SAVED else name
    settings["choices"] = choices
    return Composed(job=job, settings=settings, overrides=tuple(overrides))


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The product of all comma lists, choices and ranges: the overrides of each run, the last varying fastest."""
    with _hydra() as loader:
        values = []
        for override in _parse(loader, overrides):
            if not override.is_sweep_override():
                values.append([override.input_line])
            elif override.is_discrete_sweep():
                key = override.get_key_element()
                values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            else:
                raise ConfigError(
                    f"'{override.input_line}' has no end of values: give a list (a,b), choice(a,b) or range(a,b)"
                )
    return [list(combination) for combination in itertools.product(*values)]


def chosen_keys(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value text of the overrides that set one plain value."""
    with _hydra() as loader:
        parsed = [one for one in _parse(loader, overrides) if not one.is_delete() and not one.is_sweep_override()]
        return {one.key_or_group: str(one.value()) for one in parsed if one.value() is not None}


@cache
def list_groups() -> dict[str, list[str]]:
    """Group -> options, of the YAML that comes with the package."""
    with _hydra() as loader:
        names = [name for name in loader.list_groups("") if name != "hydra"]
        return {name: [option for option in loader.get_group_options(name) if option != SAVED] for name in names}


def default_settings(job: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(group -> option, settings) without any override; values that follow others are shown as `${other}`."""
    with _hydra():
        config = compose(job, overrides=[], return_hydra_config=True)
    choices = {key: value for key, value in config.hydra.runtime.choices.items() if "/" not in key}
    return choices, {key: value for key, value in OmegaConf.to_container(config).items() if key != "hydra"}


@contextmanager
def _hydra() -> Iterator[Any]:
    with initialize_config_module("sowa.configs", job_name="sowa", version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _parse(loader: Any, overrides: Sequence[str]) -> list[Override]:
    """One override for each word; a value with signs that mean something to the grammar is taken as it stands."""
    parser = OverridesParser.create(loader)
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigError(f"'{text}' is not a setting: write KEY=VALUE, or --help to see the keys")
        key, _, value = text.partition("=")
        quoted = f"{key}='{value}'"
        plain = value and value[0] not in "[{'\"$" and "'" not in value and not value.endswith("\\")
        try:
            parsed += parser.parse_overrides([text])
        except HydraException:
            try:
                parsed += parser.parse_overrides([quoted] if plain else [text])
            except HydraException:
                raise ConfigError(
                    f"cannot read the setting '{text}': quote a value with special signs, \"{quoted}\""
                ) from None
    return parsed


def _presets(saved: Mapping[str, Any], given: set[str], groups: Mapping[str, list[str]]) -> list[str]:
    """Overrides that bring in what was saved: a group as an option of its own, on top of the one it was made from."""
    presets = []
    for key in ("model", "backbone", "data", "protocol", "seed"):
        if key not in saved or key in given:
            continue
        if key not in groups:
            presets.append(f"{key}={saved[key]}")
            continue
        choice = saved["choices"].get(key)
        defaults = {"defaults": [choice, "_self_"]} if choice in groups[key] else {}
        ConfigStore.instance().store(group=key, name=SAVED, node={**defaults, **saved[key]})
        presets.append(f"{key}={SAVED}")
    return presets


def _composed(job: str, overrides: Sequence[Override], groups: Mapping[str, list[str]]) -> DictConfig:
    """The composed settings; a wrong group, option, key or kind of value is answered with what exists."""
    choosing, setting = [], []
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(
                f"'{override.input_line}' is several values: add --multirun, write [a,b] for a list, or quote it"
            )
        (choosing if override.key_or_group in groups else setting).append(override)
    for override in choosing:
        _check_choice(override, groups[override.key_or_group])
    try:
        base = compose(job, overrides=[override.input_line for override in choosing], return_hydra_config=True)
        for override in setting:
            _check_setting(base, override, groups)
        lines = [override.input_line for override in overrides]
        return compose(job, overrides=lines, return_hydra_config=True) if setting else base
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_line(error)) from error


def _check_setting(base: DictConfig, override: Override, groups: Mapping[str, list[str]]) -> None:
    first = override.key_or_group.split(".")[0]
    if first == "hydra":
        raise ConfigError(f"'{override.input_line}' has no effect here: the run folder is paths.output_dir")
    if override.is_add() or override.is_force_add():
        _find(base, first, groups)
        return
    node = _find(base, override.key_or_group, groups)
    if not override.is_delete():
        _check_kind(override.key_or_group, node, override.value())


def _check_choice(override: Override, options: list[str]) -> None:
    if override.is_delete():
        return
    value = override.value()
    for name in value if isinstance(value, list) else [value]:
        if str(name) not in (*options, SAVED):
            raise UnknownNameError(f"choice for {override.key_or_group}", got=name, known=options)


def _find(config: DictConfig, path: str, groups: Mapping[str, Any]) -> Any:
    """The node at a dotted path; a name that is not there is answered with its neighbours."""
    node, prefix = config, ""
    for part in path.split("."):
        if not isinstance(node, DictConfig | ListConfig):
            raise ConfigError(f"unknown setting '{path}': '{prefix}' is a single value")
        names = list(node) if isinstance(node, DictConfig) else [str(index) for index in range(len(node))]
        names = [name for name in names if name != "hydra"]
        if part not in names:
            known = [f"{prefix}.{name}" if prefix else str(name) for name in names]
            more = "; '+' before a key adds another parameter of lightning.Trainer" if prefix == "trainer" else ""
            error = UnknownNameError("setting", got=path, known={*known, *(groups if not prefix else ())})
            raise ConfigError(f"{error}{more}")
        node = node._get_node(part if isinstance(node, DictConfig) else int(part))
        prefix = f"{prefix}.{part}" if prefix else part
    return node


KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _check_kind(key: str, node: Any, value: Any) -> None:
    """A number, a whole number and a truth value stay what they are; other defaults take anything."""
    if isinstance(node, DictConfig):
        raise ConfigError(f"'{key}' is a group of settings: set one of {', '.join(f'{key}.{name}' for name in node)}")
    old = None if isinstance(node, ListConfig) else node._value()
    if type(old) not in KINDS or (isinstance(value, str) and "${" in value):
        return
    allowed = {bool: (bool,), int: (int,), float: (int, float)}[type(old)]
    if type(value) not in allowed:
        raise ConfigError(f"{key}={value} cannot be used: {KINDS[type(old)]} is wanted, such as {str(old).lower()}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\nConfig search path", 1)[0].split())
