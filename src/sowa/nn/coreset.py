"""Greedy k-centre: a subset of a memory bank in which every row has a near representative.

Source: PatchCore section 3.2 and its two public implementations, which differ in how the greedy choice begins.
Shapes: M bank rows, D token width, k rows picked.
"""

import torch
from torch import Tensor

__all__ = ["from_mean_distance", "from_norms", "from_row", "greedy_coreset", "project", "thinned"]

BLOCK_ROWS = 1024


def greedy_coreset(rows_MD: Tensor, count: int, begin_M: Tensor) -> tuple[Tensor, Tensor]:
    """([k] picked rows in their order, [k] radius after each pick): time and again the row farthest from those picked.

    `begin_M` stands for the distances before anything is picked: its largest entry is picked first. The radius is the
    largest distance of a row to the nearest picked one and never grows. No row is picked twice; `count` is 1..M.
    """
    picked, radii = [], []
    reach_M = begin_M.clone()  # of the greedy choice: what has been picked, and the beginning
    distance_M = torch.full_like(begin_M, torch.inf)  # to what has been picked
    for _ in range(count):
        row = int(reach_M.argmax())
        to_row_M = torch.linalg.vector_norm(rows_MD - rows_MD[row], dim=1)
        torch.minimum(distance_M, to_row_M, out=distance_M)
        torch.minimum(reach_M, to_row_M, out=reach_M)
        reach_M[row] = -torch.inf
        picked.append(row)
        radii.append(distance_M.max())
    return torch.tensor(picked, dtype=torch.int64, device=rows_MD.device), torch.stack(radii)


def from_row(rows_MD: Tensor, row: int) -> Tensor:
    """Begin with one given row (anomalib)."""
    begin_M = rows_MD.new_full((len(rows_MD),), torch.finfo(rows_MD.dtype).max)
    begin_M[row] = torch.inf
    return begin_M


def from_norms(rows_MD: Tensor) -> Tensor:
    """Begin with the length of each row of the distance matrix (the authors' exact sampler)."""
    blocks = rows_MD.split(BLOCK_ROWS)
    return torch.cat([torch.linalg.vector_norm(_distances(block, rows_MD), dim=1) for block in blocks])


def from_mean_distance(rows_MD: Tensor, starts: Tensor) -> Tensor:
    """Begin with the mean distance to a few start rows (the authors' approximate sampler)."""
    return _distances(rows_MD, rows_MD[starts]).mean(dim=1)


def thinned(rows_MD: Tensor, share: float) -> Tensor:
    """[m, D] the share of the rows that the greedy choice keeps, at least one, beginning with the first row."""
    places, _ = greedy_coreset(rows_MD, max(1, round(share * len(rows_MD))), from_row(rows_MD, 0))
    return rows_MD[places]


def project(rows_MD: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """[M, width] random linear image of the rows, drawn as a linear layer begins: uniform within D ** -0.5."""
    bound = rows_MD.shape[1] ** -0.5
    weight = torch.rand(rows_MD.shape[1], width, generator=generator) * 2 * bound - bound
    return rows_MD @ weight.to(rows_MD)


def _distances(left_MD: Tensor, right_MD: Tensor) -> Tensor:
    return torch.cdist(left_MD, right_MD, compute_mode="donot_use_mm_for_euclid_dist")
