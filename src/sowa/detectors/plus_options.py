"""What SOWA Plus refuses: options without sense, and references that belong to something else."""

import torch
from torch import Tensor

from sowa.errors import ArtifactError, ConfigError
from sowa.types import Reference

__all__ = ["check_origin", "check_shares", "check_weights"]

ORIGINS = {
    "head": "another trained head",
    "judges": "other judges beside the head",
    "lighting": "other directions of light",
    "network": "another network beside the backbone",
}


def check_shares(**shares: float) -> None:
    """ConfigError unless each is a share between 0 and 1; a `fraction` may be 1."""
    for name, value in shares.items():
        if not (0 < value < 1 or (value == 1 and name.endswith("fraction"))):
            raise ConfigError(f"{name}={value} cannot be used: it is a share between 0 and 1")


def check_weights(*, floor: float, **weights: float) -> None:
    """ConfigError unless the floor is above 0 and each weight 0 or more."""
    if not (floor > 0 and all(value >= 0 for value in weights.values())):
        said = ", ".join(f"{name}={value}" for name, value in weights.items())
        raise ConfigError(f"floor={floor}, {said}: floor must be above 0, the weights 0 or more")


def check_origin(reference: Reference, name: str, own_8: Tensor | None) -> None:
    """ArtifactError unless a reference was learnt with the file whose hash begins with `own_8`, or neither has one."""
    nothing = torch.empty(0)
    if not torch.equal(reference.get(name, nothing).cpu(), (nothing if own_8 is None else own_8).cpu()):
        raise ArtifactError(f"what was learnt belongs to {ORIGINS[name]}: fit again")
