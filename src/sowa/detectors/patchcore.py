"""PatchCore: distance of locally aware tokens to a memory bank, optionally thinned to a coreset (arXiv 2106.08265).

B images, V levels, L places of the finest grid, C channels of a level, D width of the embedding, M bank rows,
h w grid, H W pixels.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import level_maps, quarter_taps
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.nn.coreset import from_mean_distance, from_norms, from_row, greedy_coreset, project
from sowa.nn.euclidean import nearest_rows
from sowa.nn.maps import Border, gaussian_smooth, upsample, upsample_nearest
from sowa.types import Prediction, Reference, Tokens

__all__ = ["Patchcore"]

CHOICES = {
    "embedding": ("pooled", "concatenated"),
    "image_score": ("max", "reweighted"),
    "upsampling": ("bilinear", "nearest"),
    "border": ("symmetric", "reflect"),
    "coreset_begin": ("mean_distance", "norms", "row"),
}
START_ROWS = 10
"""Rows whose mean distance begins the approximate coreset, as published."""


class Patchcore(Detector):
    """The authors' embedding with Euclidean distances and the whole bank; nothing trained.

    Every token is joined with its neighbourhood, levels are enlarged to the finest grid, and each place is compared
    with all places of the support. Image score: largest distance on the grid.

    The authors' code: `squared=True, coreset=0.1`. anomalib: `embedding="concatenated", image_score="reweighted",
    upsampling="nearest", border="reflect", coreset=0.1, coreset_begin="row"`.
    """

    reads_cls: ClassVar[bool] = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        embedding: Literal["pooled", "concatenated"] = "pooled",
        width: int | None = None,
        neighbourhood: int = 3,
        neighbours: int = 1,
        squared: bool = False,
        image_score: Literal["max", "reweighted"] = "max",
        reweight_neighbours: int = 9,
        coreset: float | None = None,
        coreset_begin: Literal["mean_distance", "norms", "row"] = "mean_distance",
        coreset_width: int | None = 128,
        upsampling: Literal["bilinear", "nearest"] = "bilinear",
        sigma: float = 4.0,
        border: Border = "symmetric",
        seed: int = 0,
    ):
        """`taps`: the second and third quarter of the tower if None (layers 2 and 3 of a ResNet).

        `embedding`: `pooled` averages the neighbourhood and then the levels' channels to `width` (None: the widest
        level), `concatenated` puts the levels' averages side by side; `neighbourhood`: its side in tokens, odd.
        `neighbours`: bank rows whose distances are averaged; `squared`: squared distances, as the authors' library
        gives them; `reweighted` lowers the score where the nearest bank row has `reweight_neighbours` as near.
        `coreset`: share of the bank that is kept, None keeps all; `coreset_begin`: how the greedy choice begins;
        `coreset_width`: random projection for that choice, None compares whole rows; `seed`: of projection and begin.
        """
        super().__init__()
        given = {"embedding": embedding, "image_score": image_score, "upsampling": upsampling, "border": border}
        for name, value in (given | {"coreset_begin": coreset_begin}).items():
            if value not in CHOICES[name]:
                raise UnknownNameError(name, got=value, known=CHOICES[name])
        _check_numbers(neighbourhood, neighbours, reweight_neighbours, width, coreset, coreset_width)
        if squared and image_score == "reweighted":
            raise ConfigError("squared=true has no re-weighted score: use image_score=max, or squared=false")
        self.backbone, self.taps = backbone, quarter_taps(backbone, taps, slice(1, 3))
        self.embedding, self.width, self.neighbourhood = embedding, width, neighbourhood
        self.neighbours, self.squared = neighbours, squared
        self.image_score, self.reweight_neighbours = image_score, reweight_neighbours
        self.coreset, self.coreset_begin, self.coreset_width = coreset, coreset_begin, coreset_width
        self.upsampling, self.sigma, self.border, self.seed = upsampling, sigma, border, seed

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`bank` [M, D], image after image and row-major, or in the order of the greedy choice."""
        if tokens is None:
            raise NeedsSupportError(f"patchcore was given no normal image of '{category}': give it one shot or more")
        rows_MD = self.embed(tokens).flatten(2).transpose(1, 2).flatten(0, 1)
        return {"bank": rows_MD[self.choose(rows_MD)] if self.coreset is not None else rows_MD.contiguous()}

    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """The longer bank. ConfigError with a coreset: its choice needs all rows at once."""
        if self.coreset is not None:
            raise ConfigError("patchcore with a coreset cannot add to what it learnt: fit again with all normal images")
        return {"bank": torch.cat((reference["bank"], self.fit_tokens(category, tokens)["bank"]))}

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score, smoothed map [B, H, W], distances on the finest grid as the only level [B, 1, h, w]."""
        embedding_BDhw = self.embed(tokens)
        grid = embedding_BDhw.shape[-2:]
        embedding_BLD = embedding_BDhw.flatten(2).transpose(1, 2)
        distance_BL, nearest_BL = self.distances(embedding_BLD, reference["bank"])
        score = distance_BL.amax(dim=1)
        if self.image_score == "reweighted":
            score = score * self._weight(embedding_BLD, distance_BL.argmax(dim=1), nearest_BL, reference["bank"])
        distance_Bhw = distance_BL.unflatten(1, grid)
        return Prediction(score=score, score_map=self.score_map(distance_Bhw), levels=distance_Bhw[:, None])

    def distances(self, embedding_BLD: Tensor, bank_MD: Tensor) -> tuple[Tensor, Tensor]:
        """([B, L] distances, [B, L] nearest bank rows)."""
        distance_BLn, rows_BLn = nearest_rows(embedding_BLD, bank_MD, count=self.neighbours)
        return (distance_BLn.square() if self.squared else distance_BLn).mean(dim=-1), rows_BLn[..., 0]

    def score_map(self, distance_Bhw: Tensor) -> Tensor:
        """[B, h, w] distances -> [B, H, W], enlarged and smoothed."""
        return gaussian_smooth(self.enlarge(distance_Bhw), self.sigma, self.border)

    def enlarge(self, distance_Bhw: Tensor) -> Tensor:
        """[B, h, w] -> [B, H, W], not yet smoothed."""
        size = (self.backbone.image_size, self.backbone.image_size)
        if self.upsampling == "nearest":
            return upsample_nearest(distance_Bhw, size)
        return upsample(distance_Bhw, size, align_corners=False)

    def _weight(self, embedding_BLD: Tensor, worst_B: Tensor, nearest_BL: Tensor, bank_MD: Tensor) -> Tensor:
        """[B] in (0, 1]: 1 - softmax over the rows around the worst token's nearest bank row, taken at that row."""
        if min(self.reweight_neighbours, len(bank_MD)) == 1:
            return embedding_BLD.new_ones(len(embedding_BLD))
        images_B = torch.arange(len(embedding_BLD), device=embedding_BLD.device)
        token_BD, row_BD = embedding_BLD[images_B, worst_B], bank_MD[nearest_BL[images_B, worst_B]]
        _, around = nearest_rows(row_BD[:, None], bank_MD, count=self.reweight_neighbours)
        distance_Bb = torch.linalg.vector_norm(token_BD[:, None] - bank_MD[around[:, 0]], dim=-1)
        return 1 - distance_Bb.softmax(dim=1)[:, 0]

    # ---- embedding

    def embed(self, tokens: Tokens) -> Tensor:
        """[B, D, h, w] locally aware embedding of every place of the finest grid."""
        maps = level_maps(tokens)
        size = tuple(max((one.shape[-2:] for one in maps), key=lambda grid: grid[0] * grid[1]))
        side = self.neighbourhood
        if self.embedding == "concatenated":
            levels = [F.avg_pool2d(one, side, stride=1, padding=side // 2) for one in maps]
            return torch.cat([_to_size(level, size) for level in levels], dim=1)
        width = self.width or max(one.shape[1] for one in maps)
        levels = [_to_size(pool_neighbourhoods(one, side, width), size) for one in maps]
        # V * D values to D: the adaptive average takes V neighbours each.
        return torch.cat(levels, dim=1).unflatten(1, (width, len(levels))).mean(dim=2)

    # ---- coreset

    def choose(self, rows_MD: Tensor) -> Tensor:
        """[k] bank rows that the greedy choice keeps, in its order."""
        generator = torch.Generator().manual_seed(self.seed)
        count = max(1, int(len(rows_MD) * self.coreset))
        if self.coreset_width is not None:
            rows_MD = project(rows_MD, self.coreset_width, generator)
        shuffled = torch.randperm(len(rows_MD), generator=generator)
        if self.coreset_begin == "row":
            begin = from_row(rows_MD, int(shuffled[0]))
        elif self.coreset_begin == "norms":
            begin = from_norms(rows_MD)
        else:
            begin = from_mean_distance(rows_MD, shuffled[:START_ROWS])
        return greedy_coreset(rows_MD, count, begin)[0]


def pool_neighbourhoods(map_BChw: Tensor, side: int, width: int) -> Tensor:
    """[B, width, h, w]: C * side^2 zero-padded neighbourhood values of each place (channel-major), averaged adaptively.

    Where `width` is a multiple of C each output lies inside one channel, which makes it a depthwise convolution.
    """
    channels, grid = map_BChw.shape[1], map_BChw.shape[-2:]
    if width % channels:
        values = F.unfold(map_BChw, side, padding=side // 2).transpose(1, 2)
        return F.adaptive_avg_pool1d(values, width).transpose(1, 2).unflatten(2, grid)
    each = width // channels
    places = torch.eye(side * side, dtype=map_BChw.dtype, device=map_BChw.device)
    kernel = F.adaptive_avg_pool1d(places, each).T.unflatten(1, (1, side, side)).repeat(channels, 1, 1, 1)
    return F.conv2d(map_BChw, kernel, padding=side // 2, groups=channels)


def _to_size(map_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    return map_BChw if map_BChw.shape[-2:] == size else upsample(map_BChw, size, align_corners=False)


def _check_numbers(neighbourhood, neighbours, reweight_neighbours, width, coreset, coreset_width) -> None:
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ConfigError(f"neighbourhood={neighbourhood} has no middle token: give an odd number of tokens")
    counts = {"neighbours": neighbours, "reweight_neighbours": reweight_neighbours}
    for name, value in (counts | {"width": width, "coreset_width": coreset_width}).items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} is not usable: give a whole number of at least 1")
    if coreset is not None and not 0 < coreset <= 1:
        raise ConfigError(
            f"coreset={coreset} is no share of the bank: give a number above 0, at most 1, or null for all"
        )
