"""Small files of tensors that come with the package for SOWA Plus: read with their hash checked, written whole or not
at all."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sowa.errors import ArtifactError

__all__ = ["HOME", "Stored", "id_of", "image_weights", "released", "stored", "write_tensors"]

HOME = resources.files("sowa") / "detectors" / "heads"


class Stored(NamedTuple):
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    id_8: Tensor
    """[8] uint8, the beginning of the file's hash: references say by it what they were made with."""


@contextmanager
def stored(path: Path, *, sha256: str | None, format_: str, most: int, foreign: str, damaged: str) -> Iterator[Stored]:
    """What a file holds. ArtifactError in one line if it cannot be read, is larger than `most` bytes (`foreign` says
    what it is not then), is not the one expected, or if what is done with it finds that it is `damaged`."""
    try:
        if path.stat().st_size > most:
            raise ArtifactError(f"'{path}' is larger than {most} bytes: {foreign}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 is not None and found != sha256:
            raise ArtifactError(f"'{path}' is damaged: it is not the file that was released; install sowa again")
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if about.pop("format") != format_:
            raise ValueError("another format")
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError("not finite")
        yield Stored(tensors, about, id_of(found))
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        raise ArtifactError(f"'{path}' {damaged}") from None


def id_of(sha256: str) -> Tensor:
    """[8] uint8, the beginning of a file's hash; ValueError if it is none."""
    return torch.tensor(list(bytes.fromhex(sha256)[:8]), dtype=torch.uint8)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """A file of the package, whole or not at all; returns its SHA-256."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # One entry: of several the library writes in no fixed order.
        save_file(dict(tensors), beside, metadata={"about": json.dumps(facts, sort_keys=True)})
        beside.chmod(0o644)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def released(shipped: Mapping[str, tuple[str, str]], weights_id: str) -> tuple[Path, str] | None:
    """(path, SHA-256) of the package's file for an image tower by its `weights_id`; None where there is none."""
    entry = shipped.get(image_weights(weights_id))
    return None if entry is None else (Path(str(HOME / entry[0])), entry[1])


def image_weights(weights_id: str) -> str:
    """The part of a `weights_id` that names the image tower."""
    return weights_id.partition(";")[0]
