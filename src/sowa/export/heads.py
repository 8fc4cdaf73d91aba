"""From tokens to raw score and map, with the reference baked in. B images, L tokens, D width, M bank rows."""

import torch
from torch import Tensor, nn

from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.base import Detector
from sowa.detectors.patchcore import Patchcore
from sowa.detectors.sowa_plus import SowaPlus
from sowa.export.matrices import apart, enlarging, smoothing
from sowa.nn.maps import to_grid
from sowa.nn.subspace import Subspace, residual
from sowa.types import Reference, Tokens

__all__ = ["Again", "DetectorHead", "PatchcoreHead", "SowaPlusHead", "nearest"]

BLOCK_ROWS = 4096
"""Bank rows compared at a time, as in `sowa.nn.euclidean`: bounds the memory of a batch."""


class Again:
    """Tokens from the tower's bare tensors; widths and grids are those of every picture."""

    def __init__(self, like: Tokens):
        self.grid, self.grids = like.grid, getattr(like, "grids", None)

    def __call__(self, cls: Tensor, *levels: Tensor) -> Tokens:
        if self.grids is None:
            return Tokens(cls, levels, self.grid)
        return PyramidTokens(cls, levels, self.grid, self.grids)


class DetectorHead(nn.Module):
    """The detector's own `score`."""

    def __init__(self, detector: Detector, reference: Reference, again: Again):
        super().__init__()
        self.detector, self.reference, self.again = detector, reference, again

    def forward(self, cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self.detector.score(self.again(cls, *levels), self.reference)
        return found.score, found.score_map


class SowaPlusHead(nn.Module):
    """`SowaPlus.score` with its scale as numbers, and with enlarging and smoothing in one matrix."""

    def __init__(self, detector: SowaPlus, reference: Reference, again: Again):
        super().__init__()
        self.again, self.level_score, self.full = again, detector.level_score, len(detector.taps)
        self.spaces = [
            Subspace(*(reference[f"{name}_{place}"] for name in ("mean", "basis", "variance")))
            for place in range(self.full * detector.sizes)
        ]
        self.known_KE = reference["global"]
        scale, floor = reference["scale"], detector.floor
        self.middle_V, self.width_V = scale[:-1, 0], (scale[:-1, 1] + floor * scale[:-1, 0]).clamp(min=1e-12)
        middle, spread = scale[-1].tolist()
        self.weight = detector.global_weight if middle > 0 else 0.0
        self.global_middle, self.global_width = middle, spread + floor * middle
        self.map_middle_V, self.map_width_V = reference["map_scale"].T
        size, grid = detector.backbone.image_size, detector.backbone.grid
        smooth = smoothing(size, detector.sigma)
        self.rows, self.columns = (smooth @ enlarging(side, size) for side in grid)

    def forward(self, cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.again(cls, *levels)
        own = [residual(level, space) for level, space in zip(tokens.levels, self.spaces, strict=True)]
        scores_BV = torch.stack([self.level_score(level_BL) for level_BL in own], dim=1)
        score_B = ((scores_BV - self.middle_V) / self.width_V).sum(dim=1) / self.full
        if self.weight:
            distance_B = torch.linalg.vector_norm(tokens.cls[:, None] - self.known_KE, dim=-1).amin(dim=1)
            score_B = score_B + self.weight * (distance_B - self.global_middle) / self.global_width
        heat = [
            (own[place] - self.map_middle_V[place]) / self.map_width_V[place].clamp(min=1e-12)
            for place in range(self.full)
        ]
        mean_Bhw = to_grid(torch.stack(heat, dim=1).mean(dim=1), tokens.grids[0])
        return score_B, apart(self.rows, self.columns, mean_Bhw)


class PatchcoreHead(nn.Module):
    """`Patchcore.score` for all pictures of a batch at once."""

    def __init__(self, detector: Patchcore, reference: Reference, again: Again):
        super().__init__()
        self.detector, self.again, self.bank_MD = detector, again, reference["bank"].float()
        self.centre_D = self.bank_MD.mean(dim=0)
        self.neighbours = min(detector.neighbours, len(self.bank_MD))
        self.around = min(detector.reweight_neighbours, len(self.bank_MD))
        size, repeats = detector.backbone.image_size, detector.upsampling == "nearest"
        smooth = smoothing(size, detector.sigma, detector.border)
        self.rows, self.columns = (smooth @ enlarging(side, size, nearest=repeats) for side in again.grid)

    def forward(self, cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor]:
        embedding_BDhw = self.detector.embed(self.again(cls, *levels))
        grid, width = embedding_BDhw.shape[-2:], embedding_BDhw.shape[1]
        tokens_BLD = embedding_BDhw.flatten(2).transpose(1, 2)
        rows_ND = tokens_BLD.reshape(-1, width)
        distance_Nn, place_Nn = nearest(rows_ND, self.bank_MD, self.centre_D, self.neighbours)
        if self.detector.squared:
            distance_Nn = distance_Nn.square()
        distance_BL = distance_Nn.mean(dim=-1).unflatten(0, (-1, grid[0] * grid[1]))
        score_B = distance_BL.amax(dim=1)
        if self.detector.image_score == "reweighted" and self.around > 1:
            score_B = score_B * self._weight(tokens_BLD, distance_BL, place_Nn[:, 0])
        return score_B, apart(self.rows, self.columns, distance_BL.unflatten(1, grid))

    def _weight(self, tokens_BLD: Tensor, distance_BL: Tensor, place_N: Tensor) -> Tensor:
        """[B] how little the surroundings of the worst token's nearest row speak for it, see `Patchcore`."""
        worst_B1 = distance_BL.argmax(dim=1, keepdim=True)
        token_BD = tokens_BLD.gather(1, worst_B1[..., None].expand(-1, -1, tokens_BLD.shape[2]))[:, 0]
        row_BD = self.bank_MD[place_N.unflatten(0, (-1, distance_BL.shape[1])).gather(1, worst_B1)[:, 0]]
        _, around_Bb = nearest(row_BD, self.bank_MD, self.centre_D, self.around)
        distance_Bb = torch.linalg.vector_norm(token_BD[:, None] - self.bank_MD[around_Bb], dim=-1)
        return 1 - distance_Bb.softmax(dim=1)[:, 0]


def nearest(rows_ND: Tensor, bank_MD: Tensor, centre_D: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """([N, n] Euclidean distances, [N, n] bank rows), nearest first: searched by products, measured by differences."""
    queries_ND = rows_ND - centre_D
    best, places = [], []
    for start in range(0, bank_MD.shape[0], BLOCK_ROWS):
        block = bank_MD[start : start + BLOCK_ROWS] - centre_D
        here, place = _smallest(block.square().sum(dim=1) - 2 * (queries_ND @ block.T), min(count, block.shape[0]))
        best.append(here)
        places.append(place + start)
    place_Nn = torch.cat(places, dim=1)
    if len(places) > 1:
        _, kept = _smallest(torch.cat(best, dim=1), count)
        place_Nn = place_Nn.gather(1, kept)
    columns = [
        torch.linalg.vector_norm(rows_ND - bank_MD[place_Nn[:, neighbour]], dim=-1) for neighbour in range(count)
    ]
    distance_Nn = torch.stack(columns, dim=1)
    if count == 1:
        return distance_Nn, place_Nn
    distance_Nn, order_Nn = distance_Nn.topk(count, dim=1, largest=False)
    return distance_Nn, place_Nn.gather(1, order_Nn)


def _smallest(values_NM: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:  # several times faster than topk, here as in torch
        return values_NM.min(dim=1, keepdim=True)
    return values_NM.topk(count, dim=1, largest=False)
