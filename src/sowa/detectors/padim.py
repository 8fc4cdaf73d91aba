"""PaDiM: one Gaussian per place of the grid over the tokens of several levels (arXiv 2011.08785).

B images, L places of the finest grid, D channels kept, K shots, R = K - 1 directions, h w grid, H W pixels.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pyramid import level_maps, quarter_taps
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, NeedsSupportError, UnknownNameError
from sowa.nn.gaussian import Gaussian, fit_gaussian, mahalanobis
from sowa.nn.maps import Border, enlarge, upsample_nearest
from sowa.types import Prediction, Reference, Tokens

__all__ = ["Padim"]

BORDERS = ("symmetric", "reflect")
PAPER_CHANNELS = {1792: 550, 448: 100}
"""Channels of all levels together -> how many the paper keeps (Wide ResNet-50-2, ResNet-18)."""
MOST_CHANNELS = 550


class Padim(Detector):
    """Mahalanobis distance of each place to what the shots show there; nothing trained.

    Levels are enlarged to the finest grid by repetition and a fixed random subset of their channels is kept. The
    covariance of the K shots (divisor K - 1) gets `eps` on its diagonal; with one shot it is `eps` alone, and the
    distance is the Euclidean one over sqrt(eps). Image score: largest value of the smoothed map.
    """

    reads_cls: ClassVar[bool] = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        channels: int | Sequence[int] | None = None,
        eps: float = 0.01,
        sigma: float = 4.0,
        border: Border = "symmetric",
        seed: int = 0,
    ):
        """`taps`: the first three quarters of the tower if None (layers 1 to 3 of a ResNet); `channels`: how many are
        drawn from `seed`, or which, or None for the paper's number; `eps`: 0.01, in anomalib 0.01001; `sigma`:
        smoothing in pixels; `border`: `reflect` is anomalib's."""
        super().__init__()
        if border not in BORDERS:
            raise UnknownNameError("border", got=border, known=BORDERS)
        if not eps > 0:
            raise ConfigError(f"eps={eps} is not usable: K shots leave most directions without variance, give eps > 0")
        self.backbone, self.taps = backbone, quarter_taps(backbone, taps, slice(0, 3))
        self.channels = channels if channels is None or isinstance(channels, int) else tuple(channels)
        self.eps, self.sigma, self.border, self.seed = eps, sigma, border, seed

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`channels` [D] int64; `mean` [L, D]; `axes` [L, R, D] and `variance` [L, R] of the covariance."""
        if tokens is None:
            raise NeedsSupportError(f"padim was given no normal image of '{category}': give it one shot or more")
        channels = self.draw_channels(sum(one.shape[1] for one in level_maps(tokens)))
        gaussian = fit_gaussian(self.embed(tokens, channels).flatten(2).transpose(1, 2))
        return {
            "channels": channels,
            "mean": gaussian.mean_LD,
            "axes": gaussian.axes_LRD,
            "variance": gaussian.variance_LR,
        }

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score, smoothed map [B, H, W], distances on the finest grid as the only level [B, 1, h, w]."""
        distance_Bhw = self.distances(tokens, reference)
        size = (self.backbone.image_size, self.backbone.image_size)
        score_map = enlarge(distance_Bhw, size, self.sigma, self.border)
        score = score_map.flatten(1).amax(dim=1)
        return Prediction(score=score, score_map=score_map, levels=distance_Bhw[:, None])

    def distances(self, tokens: Tokens, reference: Reference) -> Tensor:
        """[B, h, w] Mahalanobis distance of every place of the finest grid."""
        embedding_BDhw = self.embed(tokens, reference["channels"])
        gaussian = Gaussian(reference["mean"], reference["axes"], reference["variance"])
        distance_BL = mahalanobis(embedding_BDhw.flatten(2).transpose(1, 2), gaussian, self.eps)
        return distance_BL.unflatten(1, embedding_BDhw.shape[-2:])

    def embed(self, tokens: Tokens, channels_D: Tensor) -> Tensor:
        """[B, D, h, w] the kept channels of all levels on the finest grid, in the order of `channels`."""
        maps = level_maps(tokens)
        size = max((one.shape[-2:] for one in maps), key=lambda grid: grid[0] * grid[1])
        return torch.cat([upsample_nearest(one, tuple(size)) for one in maps], dim=1)[:, channels_D]

    def draw_channels(self, total: int) -> Tensor:
        """[D] which of `total` channels are kept, ascending unless they were given."""
        wanted = PAPER_CHANNELS.get(total, min(total, MOST_CHANNELS)) if self.channels is None else self.channels
        if isinstance(wanted, int):
            if not 1 <= wanted <= total:
                raise ConfigError(f"channels={wanted} cannot be drawn: the taps have {total}, give 1..{total} or null")
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randperm(total, generator=generator)[:wanted].sort().values
        if not wanted or len(set(wanted)) < len(wanted) or not all(0 <= channel < total for channel in wanted):
            raise ConfigError(
                f"channels={list(wanted)[:4]}... are not usable: give different numbers of 0..{total - 1}"
            )
        return torch.tensor(wanted, dtype=torch.int64)
