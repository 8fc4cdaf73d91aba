"""Nearest rows of a memory bank by Euclidean distance, exact on the rows that are found.

Shapes: B images, L tokens, D token width, M bank rows, n neighbours.
"""

import torch
from torch import Tensor

__all__ = ["nearest_rows"]

BLOCK_ROWS = 4096
"""Bank rows compared at a time: bounds the distances held at once to L x 4096 whatever the size of the bank."""


def nearest_rows(tokens_BLD: Tensor, bank_MD: Tensor, *, count: int = 1) -> tuple[Tensor, Tensor]:
    """([B, L, n] Euclidean distances, [B, L, n] bank rows), nearest first; n = `count`, at most M.

    Rows are searched by |a|^2 - 2ab + |b|^2, which loses digits where a distance is small beside the vectors, and the
    distances to the rows found are then taken from the differences: a token that is in the bank has distance 0. Each
    image is searched alone, so that the result does not depend on its batch. Computed in float32 at least.
    """
    dtype = torch.promote_types(tokens_BLD.dtype, torch.float32)
    tokens, bank = tokens_BLD.to(dtype), bank_MD.to(dtype)
    centre = bank.mean(dim=0)  # shorter vectors lose fewer digits
    count = min(count, len(bank))
    found = [_nearest_of_image(image_LD, bank, centre, count) for image_LD in tokens]
    if not found:
        empty = (0, tokens.shape[1], count)
        return tokens.new_empty(empty), torch.empty(empty, dtype=torch.int64, device=tokens.device)
    return torch.stack([distance for distance, _ in found]), torch.stack([rows for _, rows in found])


def _nearest_of_image(image_LD: Tensor, bank_MD: Tensor, centre_D: Tensor, count: int) -> tuple[Tensor, Tensor]:
    rows_Ln = _search(image_LD - centre_D, bank_MD, centre_D, count)
    distance_Ln = torch.stack(
        [torch.linalg.vector_norm(image_LD - bank_MD[rows_L], dim=1) for rows_L in rows_Ln.unbind(dim=1)], dim=1
    )
    distance_Ln, order = distance_Ln.sort(dim=1, stable=True)
    return distance_Ln, rows_Ln.gather(1, order)


def _search(queries_LD: Tensor, bank_MD: Tensor, centre_D: Tensor, count: int) -> Tensor:
    """[L, n] rows with the smallest |b|^2 - 2ab, found block by block."""
    best, rows = queries_LD.new_empty(len(queries_LD), 0), queries_LD.new_empty((len(queries_LD), 0), dtype=torch.int64)
    for start in range(0, len(bank_MD), BLOCK_ROWS):
        block = bank_MD[start : start + BLOCK_ROWS] - centre_D
        values = torch.addmm(block.square().sum(dim=1), queries_LD, block.T, alpha=-2)
        here, place = _smallest(values, min(count, len(block)))
        best, rows = torch.cat((best, here), dim=1), torch.cat((rows, place + start), dim=1)
        if best.shape[1] > count:
            best, kept = _smallest(best, count)
            rows = rows.gather(1, kept)
    return rows


def _smallest(values_LM: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:  # several times faster than topk
        return values_LM.min(dim=1, keepdim=True)
    return values_LM.topk(count, dim=1, largest=False)
