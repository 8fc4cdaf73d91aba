"""From tokens and a reference to raw score and map. B images, L tokens, D width, M bank rows."""

import torch
from torch import Tensor, nn

from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.base import Detector
from sowa.detectors.patchcore import Patchcore
from sowa.detectors.plus_heat import heat
from sowa.detectors.plus_scores import level_score
from sowa.detectors.sowa_plus import SowaPlus
from sowa.export.matrices import apart, enlarging, smoothing
from sowa.nn.bank import unit
from sowa.nn.maps import enlarging_matrix
from sowa.nn.subspace import Subspace, residual
from sowa.types import Reference, Tokens

__all__ = ["Again", "DetectorHead", "Head", "PatchcoreHead", "SowaPlusHead", "WholeSearch", "nearest"]

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


class Head(nn.Module):
    """From tokens to raw score and map. What it takes of a reference is made by `prepared`: once, where the reference
    is a part of the graph, or by the graph itself, where the reference is an input of it."""

    def prepared(self, reference: Reference) -> dict[str, Tensor]:
        """Named tensors for `forward`; by tensor operations alone."""
        return dict(reference)

    def forward(self, ready: dict[str, Tensor], cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class DetectorHead(Head):
    """The detector's own `score`."""

    def __init__(self, detector: Detector, again: Again):
        super().__init__()
        self.detector, self.again = detector, again

    def forward(self, ready: dict[str, Tensor], cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self.detector.score(self.again(cls, *levels), ready)
        return found.score, found.score_map


class WholeSearch:
    """Stands for `sowa.nn.search.ApproximateSearch` where nobody knows yet how many rows a bank will have: all of them
    at once, exactly, as `sowa.nn.bank.nearest_distance` does it in blocks."""

    def of(self, bank_VME: Tensor) -> list["WholeSearch"]:
        return [WholeBank(bank_ME) for bank_ME in bank_VME]


class WholeBank:
    """One level of `WholeSearch`."""

    def __init__(self, bank_ME: Tensor):
        self.rows_ME = unit(bank_ME.float())

    def nearest_distance(self, tokens_BLE: Tensor) -> Tensor:
        return 1 - (unit(tokens_BLE.float()) @ self.rows_ME.T).amax(dim=-1)


class SowaPlusHead(Head):
    """`SowaPlus.score` with its scale as numbers, and with enlarging and smoothing in one matrix."""

    def __init__(self, detector: SowaPlus, again: Again, *, heard: bool):
        """heard: those who judge by training have a share in score or map; the head's tokens are the last levels."""
        super().__init__()
        self.opinion = detector.opinion if heard else None
        self.again, self.fractions, self.full = again, detector.fractions, len(detector.taps)
        self.spaces, self.floor, self.global_weight = detector.spaces, detector.floor, detector.global_weight
        self.seen, self.seen_share = detector.mapped, detector.network_map
        self.register_buffer("weights_V", torch.tensor(detector.level_weights))
        size, grid = detector.backbone.image_size, detector.backbone.grid
        self.rows, self.columns = (enlarging_matrix(side, size, float(detector.sigma)) for side in grid)

    def prepared(self, reference: Reference) -> dict[str, Tensor]:
        scale, floor = reference["scale"], self.floor
        middle, spread = scale[-1]
        # Without a scale the global term is left out, as in `fused`.
        slope = torch.where(middle > 0, self.global_weight / (spread + floor * middle).clamp(min=1e-30), 0.0)
        return reference | {
            "middle_V": scale[:-1, 0],
            "slope_V": self.weights_V / (scale[:-1, 1] + floor * scale[:-1, 0]).clamp(min=1e-12),
            "global_middle": middle,
            "global_slope": slope,
        }

    def forward(self, ready: dict[str, Tensor], cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.again(cls, *levels)
        own = [  # a residual does not ask for the variances
            residual(level, Subspace(ready[f"mean_{place}"], ready[f"basis_{place}"], torch.empty(0)))
            for place, level in enumerate(tokens.levels[: self.spaces])
        ]
        scores_BV = torch.stack([level_score(level_BL, self.fractions) for level_BL in own], dim=1)
        score_B = ((scores_BV - ready["middle_V"]) * ready["slope_V"]).sum(dim=1)
        if self.global_weight:
            distance_B = torch.linalg.vector_norm(tokens.cls[:, None] - ready["global"], dim=-1).amin(dim=1)
            score_B = score_B + ready["global_slope"] * (distance_B - ready["global_middle"])
        seen, grid = [own[place] for place in self.seen], tokens.grids[0]
        scale_V2 = ready["map_scale"][[*range(self.full), *self.seen]]
        _, heat_Bhw = heat(own[: self.full], seen, scale_V2, grid, share=self.seen_share)
        logits = [] if self.opinion is None else self.opinion.panel(tokens)
        if "logits" in ready:
            heat_Bhw = heat_Bhw + self.opinion.heat(logits, ready)
        if "opinion" in ready:
            score_B = score_B + self.opinion.said(self.opinion.panel.score(logits), ready)
        return score_B, apart(self.rows, self.columns, heat_Bhw)


class PatchcoreHead(Head):
    """`Patchcore.score` for all pictures of a batch at once."""

    def __init__(self, detector: Patchcore, again: Again, rows: int | None):
        """rows: of the bank; None where they are not known yet (at least `least_rows`)."""
        super().__init__()
        self.detector, self.again, self.whole = detector, again, rows is None
        most = self.least_rows(detector) if rows is None else rows
        self.neighbours, self.around = min(detector.neighbours, most), min(detector.reweight_neighbours, most)
        size, repeats = detector.backbone.image_size, detector.upsampling == "nearest"
        smooth = smoothing(size, detector.sigma, detector.border)
        self.rows, self.columns = (smooth @ enlarging(side, size, nearest=repeats) for side in again.grid)

    @staticmethod
    def least_rows(detector: Patchcore) -> int:
        """Of a bank from which all wanted neighbours can be taken."""
        return max(detector.neighbours, detector.reweight_neighbours if detector.image_score == "reweighted" else 1)

    def prepared(self, reference: Reference) -> dict[str, Tensor]:
        bank_MD = reference["bank"].float()
        return {"bank": bank_MD, "centre": bank_MD.mean(dim=0)}

    def forward(self, ready: dict[str, Tensor], cls: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor]:
        embedding_BDhw = self.detector.embed(self.again(cls, *levels))
        grid, width = embedding_BDhw.shape[-2:], embedding_BDhw.shape[1]
        tokens_BLD = embedding_BDhw.flatten(2).transpose(1, 2)
        rows_ND = tokens_BLD.reshape(-1, width)
        distance_Nn, place_Nn = nearest(rows_ND, ready["bank"], ready["centre"], self.neighbours, whole=self.whole)
        if self.detector.squared:
            distance_Nn = distance_Nn.square()
        distance_BL = distance_Nn.mean(dim=-1).unflatten(0, (-1, grid[0] * grid[1]))
        score_B = distance_BL.amax(dim=1)
        if self.detector.image_score == "reweighted" and self.around > 1:
            score_B = score_B * self._weight(ready, tokens_BLD, distance_BL, place_Nn[:, 0])
        return score_B, apart(self.rows, self.columns, distance_BL.unflatten(1, grid))

    def _weight(self, ready: dict[str, Tensor], tokens_BLD: Tensor, distance_BL: Tensor, place_N: Tensor) -> Tensor:
        """[B] how little the surroundings of the worst token's nearest row speak for it, see `Patchcore`."""
        bank_MD = ready["bank"]
        worst_B1 = distance_BL.argmax(dim=1, keepdim=True)
        token_BD = tokens_BLD.gather(1, worst_B1[..., None].expand(-1, -1, tokens_BLD.shape[2]))[:, 0]
        row_BD = bank_MD[place_N.unflatten(0, (-1, distance_BL.shape[1])).gather(1, worst_B1)[:, 0]]
        _, around_Bb = nearest(row_BD, bank_MD, ready["centre"], self.around, whole=self.whole)
        distance_Bb = torch.linalg.vector_norm(token_BD[:, None] - bank_MD[around_Bb], dim=-1)
        return 1 - distance_Bb.softmax(dim=1)[:, 0]


def nearest(
    rows_ND: Tensor, bank_MD: Tensor, centre_D: Tensor, count: int, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """([N, n] Euclidean distances, [N, n] bank rows), nearest first: searched by products, measured by differences.
    whole: the bank at once, for a graph that has to serve banks of any number of rows, `count` or more."""
    queries_ND = rows_ND - centre_D
    best, places = [], []
    for start in (0,) if whole else range(0, bank_MD.shape[0], BLOCK_ROWS):
        block = (bank_MD if whole else bank_MD[start : start + BLOCK_ROWS]) - centre_D
        least = count if whole else min(count, block.shape[0])
        here, place = _smallest(block.square().sum(dim=1) - 2 * (queries_ND @ block.T), least)
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
