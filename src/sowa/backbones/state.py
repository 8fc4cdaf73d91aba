"""State dicts as values: read from files, hashed, loaded strictly into a module, drawn from a seed."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sowa.archive import read_torch_archive, state_of
from sowa.errors import ArtifactError, WeightsError

__all__ = ["draw_state", "hash_tensors", "load_strictly", "read_weights"]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch archive (state dict, checkpoint, TorchScript); nothing is executed.

    Raises WeightsError in one line if the file is neither, or damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            return state_of(read_torch_archive(path))
        return load_file(path)
    except ArtifactError as trouble:
        raise WeightsError(str(trouble)) from None
    except (SafetensorError, OSError, ValueError) as trouble:
        reason = (str(trouble).splitlines() or [type(trouble).__name__])[0][:120]
        raise WeightsError(f"{path} is neither whole safetensors nor a torch archive ({reason})") from None


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """ "sha256:..." over names, shapes, types and bytes; the order of the mapping and the file format do not matter."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # Flattened first: a scalar cannot be viewed as bytes.
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return f"sha256:{digest.hexdigest()}"


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Put `state` into `module` (which may lie on the meta device) without copying.

    Every tensor must be there, none may be left over and all shapes must agree; otherwise WeightsError names the
    first that does not, with `source` as the place the state came from.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if missing := sorted(wanted.keys() - state.keys()):
        raise WeightsError(f"{source} lacks '{missing[0]}' ({len(missing)} of {len(wanted)} tensors are missing)")
    if foreign := sorted(state.keys() - wanted.keys()):
        raise WeightsError(f"{source} holds '{foreign[0]}', which has no place here ({len(foreign)} such tensors)")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise WeightsError(f"{source}: '{name}' has shape {list(state[name].shape)}, expected {list(shape)}")
    module.load_state_dict(dict(state), strict=True, assign=True)


def draw_state(shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> dict[str, Tensor]:
    """Random float32 weights for the given names, scaled as transformers are usually begun.

    Each tensor is drawn from its own stream, seeded by `seed` and its name: neither the order of the names nor the
    presence of others changes it, and torch's global generator is not touched.
    """
    return {name: _draw(name, tuple(shape), seed) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    sub_seed = hashlib.sha256(f"{seed}|{name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(sub_seed, "little")))
    normal = torch.from_numpy(np.atleast_1d(generator.standard_normal(shape, dtype=np.float32))).reshape(shape)
    centre, spread = _scale(name, shape)
    return normal.mul_(spread).add_(centre)


def _scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """(mean, standard deviation) by the role a name tells."""
    if name.endswith("bias"):
        return 0.0, 0.02
    if name.endswith("token_embedding.weight") or name == "positional_embedding":
        return 0.0, 0.02
    if name.endswith(".weight") and len(shape) == 1:
        return 1.0, 0.02
    if name.endswith("proj") or name == "text_projection":
        return 0.0, shape[0] ** -0.5
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    return 0.0, fan_in**-0.5
