"""In which numbers a frozen tower computes. Distances, statistics and metrics stay in float32 whatever is chosen."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import torch

from sowa.errors import ConfigError, UnknownNameError

__all__ = ["Precision", "native_bf16", "native_int8", "resolve_precision", "working_dtype"]

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LEAST_WIDTH = 256
"""Towers with narrower tokens stay in float32 under `auto`: their products are too small for halves to pay."""
AMPERE = (8, 0)
"""The first generation of cards with bfloat16 products."""
FLAGS = ("avx512_bf16", "amx_bf16")
"""What the system calls instructions that multiply bfloat16."""
BYTE_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""What it calls instructions that multiply bytes into 32-bit sums."""


def resolve_precision(precision: str, *, width: int, device: torch.device) -> str:
    """`fp32`, `bf16`, `fp16` or `int8` for a tower of that token width on that device.

    `auto`: on a processor `bf16` where it multiplies bfloat16 by itself (AVX512-BF16, AMX) and the tower is at least
    256 wide, else `fp32`; on CUDA `bf16` where the card has it, else `fp16`; elsewhere `fp32`.
    Raises UnknownNameError for another word, ConfigError for `fp16` on a processor, which has no products for it, and
    for `int8` where there are none for bytes: it is for processors with AVX512-VNNI, AVX-VNNI or AMX.
    """
    if precision not in get_args(Precision):
        raise UnknownNameError("precision", got=str(precision), known=get_args(Precision))
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision=fp16 is for a GPU: on a processor choose bf16, fp32 or auto")
    if precision == "int8" and not (device.type == "cpu" and native_int8()):
        raise ConfigError(
            "precision=int8 is for processors with AVX512-VNNI, AVX-VNNI or AMX: choose auto, bf16 or fp32"
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= AMPERE else "fp16"
    return "bf16" if device.type == "cpu" and width >= LEAST_WIDTH and native_bf16() else "fp32"


def working_dtype(precision: str) -> torch.dtype:
    """Of a resolved precision: what a tower's products are of; with int8, those that are not of bytes."""
    if precision == "int8":
        return torch.bfloat16 if native_bf16() else torch.float32
    return DTYPES[precision]


@lru_cache(maxsize=1)
def native_bf16() -> bool:
    """Whether this processor has instructions that multiply bfloat16; False where that cannot be found out."""
    if flags := _flags():
        return any(flag in flags for flag in FLAGS)
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(ask()) for ask in asked if ask is not None)


@lru_cache(maxsize=1)
def native_int8() -> bool:
    """Whether it has instructions that multiply bytes into 32-bit sums; False where that cannot be found out."""
    if flags := _flags():
        return any(flag in flags for flag in BYTE_FLAGS)
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_vnni_supported", "_is_vnni_supported"))
    return any(bool(ask()) for ask in asked if ask is not None)


def _flags() -> list[str]:
    """Of the first processor, as the system tells them; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return next((line.split() for line in lines if line.startswith("flags")), [])
