"""The memory bank: distance of a token to the nearest token of the normal images.

Shapes: B images, L tokens, E joint width, M bank rows, K shots.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["leave_one_out_distance", "nearest_distance", "unit"]

BLOCK_ROWS = 8192
"""Bank rows compared at a time; bounds the similarity block to queries x 8192 whatever the size of the bank."""


def unit(values: Tensor) -> Tensor:
    """Rows scaled to length one; a zero row stays zero."""
    return F.normalize(values, dim=-1)


def nearest_distance(tokens_BLE: Tensor, bank_ME: Tensor, *, compared_in: torch.dtype = torch.float32) -> Tensor:
    """[B, L] cosine distance 1 - max cosine to the bank, in 0..2, 0 on a token that is in the bank.

    Neither side needs unit length. Computed in float32 whatever the input, since half precision leaves ties.
    With a half as `compared_in` the halves only choose a row, in less time: the distance to the row chosen is that of
    float32, so it is never too small, and too large where another row is nearer by less than the halves can tell.
    """
    queries = unit(tokens_BLE.float()).flatten(0, -2)
    best = queries.new_full((queries.shape[0],), -torch.inf)
    lowered = None if compared_in == torch.float32 else queries.to(compared_in)
    for start in range(0, bank_ME.shape[0], BLOCK_ROWS):
        rows = unit(bank_ME[start : start + BLOCK_ROWS].float())
        if lowered is None:
            found = (queries @ rows.T).amax(dim=1)
        else:
            found = (queries * rows[_chosen(lowered, rows)]).sum(dim=1)
        best = torch.maximum(best, found)
    return (1 - best).unflatten(0, tokens_BLE.shape[:-1])


def _chosen(queries_QE: Tensor, rows_ME: Tensor) -> Tensor:
    """[Q] the row of largest product. What all rows have in common is taken off first: it changes no choice, and what
    is left is small enough for the few digits of a half."""
    apart = (rows_ME - rows_ME.mean(dim=0)).to(queries_QE.dtype)
    return (queries_QE @ apart.T).max(dim=1).indices


def leave_one_out_distance(tokens_KLE: Tensor, grid: tuple[int, int], *, own_places: bool = False) -> Tensor:
    """[K, L] distance of every support token to the support without its own image.

    With one image (K = 1) the tokens of the same image that lie at least a quarter of the grid away stand in for the
    other images, so that the distance is neither zero nor empty. `own_places` lets them count for any K: they stand in
    for a second image of the same lot, which a handful of shots from different lots does not hold.
    """
    shots = range(len(tokens_KLE))
    if len(shots) == 1:
        return _own_distance(tokens_KLE, grid)
    others = [torch.cat((tokens_KLE[:i], tokens_KLE[i + 1 :])).flatten(0, 1) for i in shots]
    distance_KL = torch.cat([nearest_distance(tokens_KLE[i : i + 1], others[i]) for i in shots])
    return torch.minimum(distance_KL, _own_distance(tokens_KLE, grid)) if own_places else distance_KL


def _own_distance(tokens_KLE: Tensor, grid: tuple[int, int]) -> Tensor:
    """[K, L] distance to the nearest token of the same image that is at least a quarter of the grid away."""
    rows_KLE = unit(tokens_KLE.float())
    near_LL = _near(grid, tokens_KLE.device)
    return torch.stack([1 - (rows @ rows.T).masked_fill(near_LL, -1.0).amax(dim=1) for rows in rows_KLE])


def _near(grid: tuple[int, int], device: torch.device) -> Tensor:
    """[L, L] True where two grid places are closer than a quarter of the shorter side (at least one step)."""
    y, x = torch.meshgrid(torch.arange(grid[0], device=device), torch.arange(grid[1], device=device), indexing="ij")
    places = torch.stack((y.flatten(), x.flatten()), dim=1)
    gap = (places[:, None] - places[None, :]).abs().amax(dim=-1)
    return gap < max(1, min(grid) // 4)
