"""What the channels of a tower reach, measured once and kept in the package for the towers that int8 is offered on."""

import hashlib
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sowa.backbones.quick_int8 import Ranges
from sowa.errors import WeightsError

__all__ = ["HOME", "SHIPPED", "ranges_bytes", "shipped_ranges"]

HOME = Path(str(resources.files("sowa") / "backbones" / "measured"))

SHIPPED: dict[str, tuple[str, str]] = {
    "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780": (
        "compact.safetensors",
        "15303c327f35caf30427fd01c0f5fc2100fb883bf77f547c820ecabb0d86cbde",
    ),
}
"""Weights of an image tower -> (file below `measured`, SHA-256 of the file). Made by benchmarks/int8_ranges.py."""


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
        tensors = load(content)
        return Ranges(**{name: tensors[name].float() for name in Ranges._fields})
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except (SafetensorError, KeyError):
        raise WeightsError(f"'{path}' is damaged: install sowa again") from None


def ranges_bytes(ranges: Ranges) -> bytes:
    """As a file of the package, in half precision."""
    return save({name: value.to(torch.float16).contiguous() for name, value in ranges._asdict().items()})
