"""SPADE: nearest normal images, then nearest tokens of those images (arXiv 2005.02357).

B images, V levels, L tokens, D token width, E width of the pooled vector, K shots, n retrieved shots, H W pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import level_maps, quarter_taps
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.nn.euclidean import nearest_rows
from sowa.nn.maps import gaussian_smooth, upsample
from sowa.types import Prediction, Reference, Tokens

__all__ = ["Spade"]

IMAGE_SCORES = ("pooled", "max_map")
GALLERY_BLOCK, OFFSET = 100, 1e-6
"""The published code compares 100 gallery rows at a time and drops the rest; its distance adds 1e-6 to differences."""


class Spade(Detector):
    """Distances to the support at two scales, Euclidean, nothing trained.

    Each image retrieves the `retrieved` shots whose pooled vectors are nearest. Image score: mean distance to those.
    Map: each level's tokens against all tokens of the retrieved shots, enlarged, averaged over levels, smoothed.
    With up to `retrieved` shots the retrieval takes them all.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        retrieved: int = 5,
        image_score: Literal["pooled", "max_map"] = "pooled",
        sigma: float = 4.0,
        published_gallery: bool = False,
    ):
        """`taps`: the first three quarters of the tower if None (layers 1 to 3 of a ResNet); `image_score="max_map"`:
        largest value of the map, stronger with few shots; `sigma`: smoothing in pixels; `published_gallery`: repeat the
        published code, which leaves out the last gallery rows beyond a multiple of 100."""
        super().__init__()
        if image_score not in IMAGE_SCORES:
            raise UnknownNameError("image_score", got=image_score, known=IMAGE_SCORES)
        if retrieved < 1:
            raise ConfigError(f"retrieved={retrieved} is not usable: give a whole number of at least 1")
        self.backbone, self.taps = backbone, quarter_taps(backbone, taps, slice(0, 3))
        self.retrieved, self.image_score, self.sigma = retrieved, image_score, sigma
        self.published_gallery, self.mapless = published_gallery, False

    def without_maps(self) -> "Spade":
        """Pooled vectors alone; the score `max_map` needs the map."""
        twin = self._on(self.backbone)
        twin.__dict__["mapless"] = self.image_score == "pooled"
        return twin

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`pooled` [K, E] and, for each level V counted from 1, `tokens_V` [K, L, D]."""
        if tokens is None:
            raise NeedsSupportError(f"spade was given no normal image of '{category}': give it one shot or more")
        levels = enumerate(tokens.levels, start=1)
        rows = {f"tokens_{number}": level_KLD.float().contiguous() for number, level_KLD in levels}
        return {"pooled": tokens.cls.float().contiguous()} | rows

    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """The shots of both, as `fit_tokens` of all."""
        return {name: torch.cat((reference[name], new)) for name, new in self.fit_tokens(category, tokens).items()}

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score, smoothed map [B, H, W], each level's distances at image size [B, V, H, W].

        `parts`: both image scores, `pooled_distance` and `map_maximum`, [B].
        """
        pooled_BK = pooled_distance(tokens.cls, reference["pooled"])
        distance_Bn, shots_Bn = self.retrieve(pooled_BK)
        if self.mapless:
            return Prediction(score=distance_Bn.mean(dim=1), score_map=None, parts={})
        size = (self.backbone.image_size, self.backbone.image_size)
        levels = torch.cat(
            [
                upsample(grid[:, None], size, align_corners=False)
                for grid in self.distances(tokens, reference, shots_Bn)
            ],
            dim=1,
        )
        score_map = gaussian_smooth(levels.mean(dim=1), self.sigma)
        parts = {"pooled_distance": distance_Bn.mean(dim=1), "map_maximum": score_map.flatten(1).amax(dim=1)}
        score = parts["pooled_distance" if self.image_score == "pooled" else "map_maximum"]
        return Prediction(score=score, score_map=score_map, levels=levels, parts=parts)

    def retrieve(self, pooled_BK: Tensor) -> tuple[Tensor, Tensor]:
        """([B, n] distances, [B, n] shots) of the nearest shots, nearest first."""
        distance_BK, shots_BK = pooled_BK.sort(dim=1, stable=True)
        return distance_BK[:, : self.retrieved], shots_BK[:, : self.retrieved]

    def distances(self, tokens: Tokens, reference: Reference, shots_Bn: Tensor) -> list[Tensor]:
        """[B, h, w] of every level: distance of each token to the nearest token of the image's own shots."""
        return [
            self._level_distance(query_BDhw, reference[f"tokens_{number}"], shots_Bn)
            for number, query_BDhw in enumerate(level_maps(tokens), start=1)
        ]

    def _level_distance(self, query_BDhw: Tensor, shots_KLD: Tensor, shots_Bn: Tensor) -> Tensor:
        grid = query_BDhw.shape[-2:]
        queries_BLD = query_BDhw.flatten(2).transpose(1, 2)
        if self.published_gallery:
            queries_BLD, shots_KLD = queries_BLD - OFFSET, shots_KLD.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
        # Images that retrieve other shots have other galleries.
        found = [
            nearest_rows(queries_BLD[i : i + 1], self._gallery(shots_KLD[shots_n]))[0]
            for i, shots_n in enumerate(shots_Bn)
        ]
        distance_BL = torch.cat(found)[..., 0] if found else queries_BLD[..., 0]
        return distance_BL.unflatten(1, grid)

    def _gallery(self, shots_nLD: Tensor) -> Tensor:
        """[M, D] all tokens of the retrieved shots."""
        rows_MD = shots_nLD.flatten(0, 1)
        if not self.published_gallery:
            return rows_MD
        if len(rows_MD) < GALLERY_BLOCK:
            raise ConfigError(
                f"published_gallery=true compares {GALLERY_BLOCK} rows at a time, a level has only {len(rows_MD)}:"
                " use a larger image_size, more shots, or published_gallery=false"
            )
        return rows_MD[: len(rows_MD) // GALLERY_BLOCK * GALLERY_BLOCK]


def pooled_distance(pooled_BE: Tensor, shots_KE: Tensor) -> Tensor:
    """[B, K] Euclidean distance of pooled vectors."""
    return torch.linalg.vector_norm(pooled_BE.to(shots_KE)[:, None] - shots_KE, dim=-1)
