"""What the channels of a tower reach: measured once, and kept in the package or in the cache."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from sowa.backbones.quick import Parts, library_parts
from sowa.backbones.quick_int8 import Ranges
from sowa.errors import WeightsError
from sowa.wheels import cache_root

__all__ = ["HOME", "SHIPPED", "Place", "known_ranges", "ranges_bytes", "ranges_place", "shipped_ranges"]

HOME = Path(str(resources.files("sowa") / "backbones" / "measured"))

SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (
        "compact.safetensors",
        "15303c327f35caf30427fd01c0f5fc2100fb883bf77f547c820ecabb0d86cbde",
    ),
}
"""Weights of an image tower -> (file below `measured`, SHA-256 of the file). Made by benchmarks/int8_ranges.py."""
MOST_BYTES = 64 << 20


def known_ranges(visual: nn.Module, weights_id: str) -> Ranges | None:
    """Those of the package, else those that `sowa measure-int8` left in the cache; None where there are neither."""
    if (found := shipped_ranges(weights_id)) is not None:
        return found
    place = ranges_place(visual, weights_id)
    return _measured(place.path, place.shapes) if place is not None and place.path.is_file() else None


class Place(NamedTuple):
    path: Path
    shapes: dict[str, tuple[int, int, int]]
    """Of what the file holds."""


def ranges_place(visual: nn.Module, weights_id: str) -> Place | None:
    """Where in the cache the ranges of this tower belong; None for one without blocks known here.

    The name of the file is made of the weights, the sizes and the activation.
    """
    found = library_parts(visual)
    if found is None:
        return None
    parts, _ = found
    shapes = _shapes(parts)
    about = f"{weights_id.partition(';')[0]}|{shapes}|{type(parts[0].activation).__name__}"
    name = hashlib.sha256(about.encode()).hexdigest()[:32]
    return Place(cache_root() / "int8" / f"{name}.safetensors", shapes)


def shipped_ranges(weights_id: str) -> Ranges | None:
    """By the `weights_id` of a backbone; None where none were measured. WeightsError if the file is not the released
    one."""
    entry = SHIPPED.get(weights_id.partition(";")[0])
    if entry is None:
        return None
    path = HOME / entry[0]
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry[1]:
            raise WeightsError(f"'{path}' is damaged: it is not the file that was released; install sowa again")
        return _ranges(load(content))
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (SafetensorError, KeyError):
        raise WeightsError(f"'{path}' is damaged: install sowa again") from None


def ranges_bytes(ranges: Ranges) -> bytes:
    """As a file, in half precision."""
    return save({name: value.to(torch.float16).contiguous() for name, value in ranges._asdict().items()})


def _measured(path: Path, wanted: Mapping[str, tuple[int, int, int]]) -> Ranges:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("larger than ranges are")
        found = _ranges(load(path.read_bytes()))
        for name, values in found._asdict().items():
            if (
                tuple(values.shape) != wanted[name]
                or not values.isfinite().all()
                or (values[:, 0] > values[:, 1]).any()
            ):
                raise ValueError("no ranges of this tower")
        return found
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (SafetensorError, KeyError, ValueError):
        raise WeightsError(f"'{path}' holds no ranges of this tower: delete it and run sowa measure-int8") from None


def _ranges(tensors: Mapping[str, Tensor]) -> Ranges:
    return Ranges(**{name: tensors[name].float() for name in Ranges._fields})


def _shapes(parts: Sequence[Parts]) -> dict[str, tuple[int, int, int]]:
    """Of the ranges of such blocks."""
    width, hidden = len(parts[0].norm_attention.weight), len(parts[0].widen.weight)
    return {name: (len(parts), 2, hidden if name == "hidden" else width) for name in Ranges._fields}
