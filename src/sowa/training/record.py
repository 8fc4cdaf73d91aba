"""The folder of one run: its settings, who ran it with what, and whether it finished."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from sowa.errors import ArtifactError, ConfigError
from sowa.metrics.table import write_json
from sowa.training.tokens import token_precision

__all__ = ["RunFolder", "identity", "lasting", "machine_facts", "open_folder", "refuse_other_training"]

PACKAGES = ("sowa", "torch", "lightning", "open_clip_torch", "timm", "numpy", "pillow")
LAUNCHED = "SOWA_RUN_FOLDER"
"""Set for the processes of a multi-device run, which all belong to the folder of the first."""

VOLATILE = frozenset({"weights", "cache_dir", "offline", "root", "num_workers", "on_error"})
"""Settings that say where things lie and how to get there, not what is computed."""


class RunFolder:
    """`config.yaml`, `run.json` and everything a run leaves behind."""

    def __init__(self, path: Path, *, writes: bool = True):
        self.path, self.writes = path, writes
        self.facts: dict[str, Any] = {}

    @property
    def state(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def trained(self) -> Path:
        return self.path / "trained.safetensors"

    def begin(self, settings: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Write `config.yaml` and the first `run.json`; what an earlier attempt wrote is listed under `attempts`."""
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        earlier = _read(self.path / "run.json")
        attempts = [*earlier.pop("attempts", []), earlier] if earlier else []
        self.facts = {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "overrides": list(overrides),
            "started": _now(),
            "status": "running",
            "seed": settings["seed"],
            **machine_facts(),
            "attempts": attempts,
        }
        _write_text(self.path / "config.yaml", yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
        self.note()

    def note(self, **facts: Any) -> None:
        """Add to `run.json`."""
        self.facts.update(facts)
        if self.writes:
            write_json(self.path / "run.json", self.facts)

    @contextmanager
    def unless_unused(self) -> Iterator[None]:
        """Take the folder away again if what comes before the run fails and left nothing in it."""
        try:
            yield
        except BaseException:
            if self.writes:
                with suppress(OSError):
                    self.path.rmdir()
            raise

    @contextmanager
    def recording(self, settings: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[None]:
        """Begin, and say at the end how it went."""
        self.begin(settings, overrides)
        status = "interrupted"
        try:
            yield
            status = "finished"
        except Exception as error:
            status = f"failed: {error}"
            raise
        finally:
            self.note(status=status, ended=_now())


def open_folder(job: str, name: str, settings: Mapping[str, Any]) -> RunFolder:
    """A new folder RUNS_DIR/JOB/NAME/DATE_TIME, or the one given, or (resume) the newest of the same settings."""
    if LAUNCHED in os.environ:
        return RunFolder(Path(os.environ[LAUNCHED]), writes=False)
    paths, resume = settings["paths"], settings.get("resume", False)
    parent = Path(paths["runs_dir"]) / job / name
    if paths["output_dir"] is not None:
        path = Path(paths["output_dir"])
        if not resume and (path / "run.json").exists():
            more = " or continue it with resume=true" if job == "train" else ""
            raise ConfigError(f"paths.output_dir={path} already holds a run: give another folder{more}")
        return RunFolder(path)
    if "LOCAL_RANK" in os.environ:
        raise ConfigError("several processes were started from outside: give them one folder, paths.output_dir=DIR")
    if resume and (found := _newest(parent, identity(settings))):
        return RunFolder(found)
    if resume:
        print(f"nothing to resume under '{parent}': starting anew", file=sys.stderr)
    return RunFolder(_new(parent))


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that trained weights carry with them: what was computed, not where things lay."""
    kept = {key: settings[key] for key in ("protocol", "seed", "optimisation", "model", "backbone", "data", "choices")}
    return _without(kept, VOLATILE) | token_precision(settings)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of all that decides the weights after a number of steps; works on `lasting` settings too."""
    flat = _flatten("", lasting(settings))
    return {key: value for key, value in flat if not key.startswith(("data.target.", "choices."))}


def refuse_other_training(mine: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Stop if a checkpoint's identity is not that of this run."""
    for key in sorted(mine.keys() | found.keys(), key=lambda name: (name.count("."), name)):
        if mine.get(key) != found.get(key):
            raise ArtifactError(
                f"cannot resume: the checkpoint was trained with {key}={found.get(key)},"
                f" this run has {key}={mine.get(key)}; use the same settings or start a new run"
            )


def _without(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in left_out}
    return {key: _without(value, left_out) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _flatten(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    pairs = (_flatten(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
    return [pair for several in pairs for pair in several]


def _newest(parent: Path, wanted: dict[str, Any]) -> Path | None:
    for path in sorted(parent.glob("*/config.yaml"), reverse=True):
        settings = _read(path)
        try:
            if identity(settings) == wanted:
                return path.parent
        except (KeyError, TypeError):
            continue
    return None


def _new(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1000):
        path = parent / (f"{stamp}_{number}" if number else stamp)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot make the run folder '{path}': {error.strerror}; set paths.runs_dir") from None
        return path
    raise ConfigError(f"a thousand runs started at {stamp} under '{parent}'")


def _read(path: Path) -> dict[str, Any]:
    """A YAML or JSON file of a run; empty if absent or damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def machine_facts() -> dict[str, Any]:
    """What a result may depend on besides its settings."""
    return {"versions": _versions(), "commit": _commit(), "platform": platform.platform(), "cores": os.cpu_count()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """The commit of the source tree this package runs from, with `+` if it was changed since; None without one."""
    here = Path(__file__).resolve().parent
    if "site-packages" in here.parts:  # the repository around it, if any, is somebody else's
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
