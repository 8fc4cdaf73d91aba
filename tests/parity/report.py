"""One row per compared tensor, and how a pair of tensors is compared."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Largest absolute error of one tensor and what is allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def good(self) -> bool:
        return self.error <= self.tolerance  # False for nan, as it must be


def compare(name: str, got: Tensor | None, want: Tensor, *, tolerance: float) -> Row:
    """Absolute comparison; another shape, a value that is not finite or an absent result counts as infinitely wrong."""
    if got is None or got.shape != want.shape:
        return Row(name, float("inf"), tolerance)
    if not want.numel():
        return Row(name, 0.0, tolerance)
    error = (got.detach().double() - want.double()).abs().max().item()
    return Row(name, error if error == error else float("inf"), tolerance)


def compare_relative(name: str, got: Tensor | None, want: Tensor, *, relative: float, floor: float) -> Row:
    """As `compare` with a tolerance of `relative` times the largest entry, at least `floor`."""
    scale = want.double().abs().max().item() if want.numel() else 0.0
    return compare(name, got, want, tolerance=max(floor, relative * scale) if scale == scale else 0.0)


def exact(name: str, got: Tensor, want: Tensor) -> Row:
    """Equality of shape and of every entry."""
    same = got.shape == want.shape and bool(torch.equal(got.long(), want.long()))
    return Row(name, 0.0 if same else float("inf"), 0.0)
