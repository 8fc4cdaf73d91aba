"""What SOWA Plus keeps of normal tokens, level by level: what they have in common, or the tokens themselves.

K shots, B images, L tokens, D token width, R directions, M bank rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from sowa.errors import UnknownNameError
from sowa.nn.bank import nearest_distance, unit
from sowa.nn.coreset import thinned
from sowa.nn.subspace import Moments, Subspace, merged, moments, residual, subspace, widened, without
from sowa.types import Reference

__all__ = [
    "FOLDS",
    "BankMemory",
    "Memory",
    "SubspaceMemory",
    "described_distance",
    "left_out_distances",
    "memory_of",
    "quarters",
]

MEMORIES = ("subspace", "nearest", "coreset")
FOLDS = 16
"""Left-out images are taken one by one up to this many; of more, in this many groups."""


class Memory(ABC):
    """Entries of a reference are named by the place of their level, `mean_0`, `bank_1`."""

    @abstractmethod
    def learn(self, place: int, level_KLD: Tensor, grid: tuple[int, int]) -> tuple[Reference, Tensor]:
        """(entries, [K, L] distance of each image to what the others taught); a single image is taken quarter by
        quarter, each against the other three."""

    @abstractmethod
    def distance(self, place: int, level_BLD: Tensor, reference: Reference) -> Tensor:
        """[B, L] how far a token is from the normal ones, 0 or more."""

    @abstractmethod
    def extend(self, place: int, level_KLD: Tensor, reference: Reference) -> Reference:
        """The entries with further normal images."""


class SubspaceMemory(Memory):
    """The linear subspace that holds the share `explained` of the variance of normal tokens; distance is the squared
    residual (SubspaceAD's rule), less what of it lies along ignored directions. `mean` [D], `basis` [D, R + N],
    `variance` [R] and `tokens`, their number; the last N columns are the ignored directions outside the subspace."""

    def __init__(self, *, explained: float, ignored: Mapping[int, Tensor] | None = None):
        """ignored: [D, N] directions by the place of their level."""
        self.explained, self.ignored = explained, dict(ignored or {})

    def learn(self, place: int, level_KLD: Tensor, grid: tuple[int, int]) -> tuple[Reference, Tensor]:
        level_KLD = level_KLD.float()
        folds = _folds(len(level_KLD))
        parts = [moments(level_KLD[fold]) for fold in folds]
        whole = merged(parts)
        entries = self._stored(place, self._subspace(place, whole), whole.count)
        if len(folds) > 1:
            own = [
                residual(level_KLD[fold], self._subspace(place, without(whole, part)))
                for fold, part in zip(folds, parts, strict=True)
            ]
            return entries, torch.cat(own)
        tokens_LD, own_L = level_KLD[0], level_KLD.new_empty(level_KLD.shape[1])
        for quarter_L in quarters(grid, level_KLD.device):
            own_L[quarter_L] = residual(tokens_LD[quarter_L], self._subspace(place, moments(tokens_LD[~quarter_L])))
        return entries, own_L[None]

    def distance(self, place: int, level_BLD: Tensor, reference: Reference) -> Tensor:
        return residual(level_BLD, self._space(place, reference))

    def extend(self, place: int, level_KLD: Tensor, reference: Reference) -> Reference:
        """By the kept directions: what lay outside them, 1 - `explained` of the variance, is taken as lost."""
        space, count = self._space(place, reference), int(reference[f"tokens_{place}"])
        mean_D, basis_DR = space.mean_D.double(), space.basis_DR[:, : len(space.variance_R)].double()
        inside_DD = (basis_DR * space.variance_R.double()) @ basis_DR.T
        old = Moments(count, count * mean_D, count * (inside_DD + mean_D[:, None] * mean_D[None, :]))
        joined = merged([old, moments(level_KLD.float())])
        return self._stored(place, self._subspace(place, joined), joined.count)

    def _subspace(self, place: int, of: Moments) -> Subspace:
        """That of these tokens, with the ignored directions of the level."""
        space = subspace(of, self.explained)
        return widened(space, self.ignored[place]) if place in self.ignored else space

    def _stored(self, place: int, space: Subspace, count: int) -> Reference:
        names = (f"mean_{place}", f"basis_{place}", f"variance_{place}")
        return dict(zip(names, space, strict=True)) | {f"tokens_{place}": torch.tensor(count)}

    def _space(self, place: int, reference: Reference) -> Subspace:
        return Subspace(*(reference[f"{name}_{place}"] for name in ("mean", "basis", "variance")))


class BankMemory(Memory):
    """The normal tokens themselves, or a greedy choice of them; distance is 1 - cosine to the nearest. `bank` [M, D]
    of unit rows."""

    def __init__(self, *, coreset: float | None):
        """coreset: share of each call's tokens that is kept, None keeps all."""
        self.coreset = coreset

    def learn(self, place: int, level_KLD: Tensor, grid: tuple[int, int]) -> tuple[Reference, Tensor]:
        rows_KLD = unit(level_KLD.float())
        entries = {f"bank_{place}": self._chosen(rows_KLD.flatten(0, 1))}
        folds = _folds(len(rows_KLD))
        if len(folds) > 1:
            kept = [torch.cat((rows_KLD[: fold.start], rows_KLD[fold.stop :])).flatten(0, 1) for fold in folds]
            own = [nearest_distance(rows_KLD[fold], rows_MD) for fold, rows_MD in zip(folds, kept, strict=True)]
            return entries, torch.cat(own).clamp(min=0)
        own_L = rows_KLD.new_empty(rows_KLD.shape[1])
        for quarter_L in quarters(grid, rows_KLD.device):
            own_L[quarter_L] = nearest_distance(rows_KLD[:, quarter_L], rows_KLD[0, ~quarter_L])[0]
        return entries, own_L[None].clamp(min=0)

    def distance(self, place: int, level_BLD: Tensor, reference: Reference) -> Tensor:
        return nearest_distance(level_BLD, reference[f"bank_{place}"]).clamp(min=0)

    def extend(self, place: int, level_KLD: Tensor, reference: Reference) -> Reference:
        rows_MD = self._chosen(unit(level_KLD.float()).flatten(0, 1))
        return {f"bank_{place}": torch.cat((reference[f"bank_{place}"], rows_MD))}

    def _chosen(self, rows_MD: Tensor) -> Tensor:
        return rows_MD if self.coreset is None else thinned(rows_MD, self.coreset)


def memory_of(kind: str, *, explained: float, coreset: float, ignored: Mapping[int, Tensor]) -> Memory:
    """`subspace`, `nearest` or `coreset`; UnknownNameError for anything else."""
    if kind not in MEMORIES:
        raise UnknownNameError("memory", got=kind, known=MEMORIES)
    if kind == "subspace":
        return SubspaceMemory(explained=explained, ignored=ignored)
    return BankMemory(coreset=coreset if kind == "coreset" else None)


def quarters(grid: tuple[int, int], device: torch.device) -> list[Tensor]:
    """Four [L] masks: the corners' quarters of the grid."""
    y, x = torch.meshgrid(torch.arange(grid[0], device=device), torch.arange(grid[1], device=device), indexing="ij")
    lower, right = (y >= grid[0] // 2).flatten(), (x >= grid[1] // 2).flatten()
    return [(lower == down) & (right == across) for down in (False, True) for across in (False, True)]


def _folds(count: int) -> list[slice]:
    parts = min(count, FOLDS)
    edges = [place * count // parts for place in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def described_distance(described_BE: Tensor, known_KE: Tensor) -> Tensor:
    """[B] distance to the nearest known description."""
    return torch.cdist(described_BE, known_KE, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


def left_out_distances(described_KE: Tensor) -> Tensor:
    """[K] distance of each description to the nearest other; [4] zeros for the quarters of a single one: without a
    scale the global term is left out."""
    if len(described_KE) == 1:
        return described_KE.new_zeros(4)
    distance_KK = torch.cdist(described_KE, described_KE, compute_mode="donot_use_mm_for_euclid_dist")
    return distance_KK.fill_diagonal_(torch.inf).amin(dim=1)
