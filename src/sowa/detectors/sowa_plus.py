"""SOWA Plus: a few normal images as subspaces of their tokens, at three image sizes, scaled by the images themselves.

Beyond the paper (docs/SOWA_PLUS.md): tokens of two middle blocks, after the tower's final norm, are compared with the
linear subspace that holds most of the variance of the normal tokens (the residual of a principal component analysis),
at the full image size, where small defects show, at half of it, where wide ones do, and at a quarter, for the context.
At half size, what changes with the light does not count. A small convolutional network is asked the same way. Every
score is put on the scale of what the normal images get when left out in turn. A global term sees changes that have no
place.

B images, V levels, L tokens, D token width, K shots, R directions, H W pixels.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pair import PairBackbone
from sowa.detectors.plus_head import known_head
from sowa.detectors.plus_heat import HEAT_FRACTION, heat
from sowa.detectors.plus_lighting import known_lighting
from sowa.detectors.plus_looks import smaller_towers
from sowa.detectors.plus_memory import described_distance, left_out_distances, memory_of
from sowa.detectors.plus_network import Network, known_network
from sowa.detectors.plus_opinion import Opinion
from sowa.detectors.plus_options import check_origin, check_shares, check_weights
from sowa.detectors.plus_panel import Panel, known_judges
from sowa.detectors.plus_scores import fused, level_score, quarter_scores, spread_of
from sowa.detectors.plus_towers import SowaPlusTowers
from sowa.detectors.plus_words import Words
from sowa.errors import ConfigError, NeedsSupportError
from sowa.nn.maps import enlarge, top_mean
from sowa.nn.states import StateHead
from sowa.types import Prediction, Reference, Tokens

__all__ = ["SowaPlus"]

GLOBALS = 64
"""Normal images kept for the global term."""


class SowaPlus(SowaPlusTowers):
    """Support-only detector on any transformer backbone; nothing is trained on the user's images. Without shots the
    trained head of the package judges, if there is one for the backbone. On a pair of towers (`clip_dinov2`) the
    self-supervised one is the memory's, and without shots the other one's words judge.

    taps: blocks 6 and 8 of 12 if None, and the like of other depths. global_tap: block 9 of 12.
    half: also look at half the image size; auto: if its grid has at least 14 rows. quarter: look at a quarter, too;
    auto: where half is looked at. quarter_weight: of that look in the score, each of the others counts 1.
    lighting: directions in which tokens move with exposure and contrast; at half size no distance counts along
    them. `auto` is those of the package, if there are any for the backbone; `none`, or a file of `write_lighting`.
    network: a second tower, whose tokens are remembered like the transformer's: `auto` is that of the package, if
    there is one beside the backbone, for images of 224 px or more; `none`, or a file of `write_network`; for
    memory=subspace.
    network_weight: of its score, a full size counts 1; network_map: of its map, that of the full size counts 1.
    memory: what is kept of normal tokens: the `subspace` that holds the share `explained` of their variance, all of
    them (`nearest`), or the share `coreset` of them.
    fraction: of an image's tokens, the most unusual ones, whose mean is its score at a level; wide_fraction: a
    second, larger one, whose mean counts as much, for what is a little unusual over a wide area; 0: no second.
    floor: share of the mean score of left-out normal images that is added to their spread.
    global_weight: of the global term against one image size; 0 leaves it out. sigma: of the map, in pixels.
    head: the trained part, which judges without shots: `auto` is that of the package, if there is one for the
    backbone; `none`, or a file of `write_head`. judges: what lets it judge every size that is looked at, and the second
    tower beside it; `auto` is those of the package, if they belong to the head; `none`, the full size alone, or a file
    of `write_judges`. head_map: their share in the map once there are shots: spreads of normal tokens for each spread
    of their logits on the shots. judges_weight: of their score once there are shots, as far as they take the shots for
    good.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "none"
    extends_nearly: ClassVar[bool] = True
    former_defaults: ClassVar = dict.fromkeys(("head", "lighting", "network", "judges"), "none") | {"quarter": False}

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        global_tap: int | None = None,
        half: bool | Literal["auto"] = "auto",
        quarter: bool | Literal["auto"] = "auto",
        quarter_weight: float = 0.5,
        lighting: str = "auto",
        network: str = "auto",
        network_weight: float = 0.75,
        network_map: float = 0.25,
        memory: Literal["subspace", "nearest", "coreset"] = "subspace",
        explained: float = 0.95,
        coreset: float = 0.1,
        fraction: float = 0.005,
        wide_fraction: float = 0,
        floor: float = 0.3,
        global_weight: float = 0.5,
        sigma: float = 4.0,
        head: str = "auto",
        head_map: float = 1.0,
        judges: str = "auto",
        judges_weight: float = 3.0,
    ):
        super().__init__()
        check_shares(explained=explained, coreset=coreset, fraction=fraction, wide_fraction=wide_fraction or 1)
        check_weights(
            floor=floor,
            global_weight=global_weight,
            quarter_weight=quarter_weight,
            network_weight=network_weight,
            network_map=network_map,
            head_map=head_map,
            judges_weight=judges_weight,
        )
        self.trained = known_head(head, backbone)
        self.words = Words(backbone) if isinstance(backbone, PairBackbone) else None
        self.backbone = backbone
        depth = backbone.depth
        self.taps = tuple(taps) if taps is not None else tuple(sorted({-(-depth * 6 // 12), -(-depth * 8 // 12)}))
        self.global_tap = -(-depth * 9 // 12) if global_tap is None else global_tap
        if not self.taps:
            raise ConfigError("taps=[] reads nothing of the backbone: give at least one tap, or null")
        self.fractions = (fraction, wide_fraction) if wide_fraction else (fraction,)
        self.floor = floor
        self.global_weight, self.sigma = global_weight, sigma
        # No submodules: they share the backbone's weights, which are listed once.
        self.__dict__["smaller"] = smaller_towers(backbone, half, quarter)
        self.weights = (1.0, 1.0, quarter_weight)[: self.sizes]
        # A cosine to a row of a bank has no direction that could be left out.
        light = known_lighting(lighting, backbone, self.taps) if self.sizes > 1 and memory == "subspace" else None
        self.light_8, axes = (torch.empty(0), {}) if light is None else (light.id_8, light.axes)
        ignored = {len(self.taps) + place: axes[tap] for place, tap in enumerate(self.taps) if tap in axes}
        self.network_weight, self.network_map = network_weight, network_map
        beside = memory == "subspace" and (network != "auto" or backbone.image_size >= Network.LEAST_SIZE)
        self.network = known_network(network, backbone) if beside else None
        self.memory = memory_of(memory, explained=explained, coreset=coreset, ignored=ignored)
        self.opinion = self._opinion(judges, share=head_map, weight=judges_weight)

    def _opinion(self, judges: str, *, share: float, weight: float) -> Opinion | None:
        if self.trained is None:
            return None
        found = known_judges(judges, self.trained, self.backbone)
        panel = Panel(
            self.trained,
            found,
            sizes=[tower.image_size for tower in self.towers],
            weights=self.weights,
            spaces=self.spaces,
            network=self.network,
            network_weight=self.network_weight,
            network_map=self.network_map,
        )
        judges_8, weight = (None, 0.0) if found is None else (found.id_8, weight)
        return Opinion(panel, share=share, weight=weight, head_8=self.trained.id_8, judges_8=judges_8)

    def learnt_elsewhere(self, k: int) -> bool:
        return self.opinion is not None and (k == 0 or self._asked)

    @property
    def _asked(self) -> bool:
        """Whether those who judge by training are asked once there are shots."""
        return self.opinion is not None and (self.opinion.share > 0 or self.opinion.weight > 0)

    @property
    def head(self) -> StateHead | None:
        """The trained head; the package has one for the offline default."""
        return None if self.opinion is None else self.opinion.panel.head

    def _heat(self, own: Sequence[Tensor], reference: Reference) -> tuple[Tensor, Tensor]:
        """([B, V, h, w], [B, h, w]) of `heat`, from what each level of the memory says of the tokens."""
        return heat(
            [own[place] for place in range(len(self.taps))],
            [own[place] for place in self.mapped],
            reference["map_scale"][[*range(len(self.taps)), *self.mapped]],
            self.backbone.grid,
            share=self.network_map,
        )

    # ---- support

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """Of each level `mean_i` [D], `basis_i` [D, R], `variance_i` [R] and `tokens_i` (their number); `scale`
        [V + 1, 2] of the levels and the global term: mean and spread of left-out normal images; `map_scale` [V, 2] of
        single tokens; `global` [K, 2D]; `support_parts` [K, V + 1] of left-out images (the quarters of a single one,
        4 rows), raw, and `support_scores` [K], fused; `support_level`, the heat of their most unusual spots.

        Where those who judge by training have a share in the map, `logits` [3], their scale on the shots
        (`LogitScale`), and where they have one in the score, `peaks` [K], their scores of the shots, `opinion` [2], the
        mean of these and how far they are trusted, and `support_spread` [], which to expect of good images' scores.
        `head`, `judges`, `network`, `lighting` [8] each say which file that was. Without shots only the first two."""
        if tokens is None or not len(tokens.cls):
            if self.opinion is not None:
                return dict(self.opinion.files)
            if self.words is not None:
                return {"prototypes": self.words.prototypes(category)}
            raise NeedsSupportError(
                f"sowa_plus compares with normal images and was given none of '{category}': give one shot or more"
            )
        shots = len(tokens.cls)
        reference: Reference = {}
        scores, map_scales, heats = [], [], []
        for place, (level_KLD, grid) in enumerate(self._memory_levels(tokens)):
            entries, own_KL = self.memory.learn(place, level_KLD, grid)
            reference |= entries
            scores.append(
                quarter_scores(own_KL, grid, self.fractions) if shots == 1 else level_score(own_KL, self.fractions)
            )
            map_scales.append(torch.stack((own_KL.mean(), own_KL.std())))
            heats.append(own_KL)
        distances = left_out_distances(tokens.cls.float())
        reference["map_scale"] = torch.stack(map_scales)
        reference["global"] = tokens.cls.float()[:GLOBALS].clone()
        if len(self.light_8):
            reference["lighting"] = self.light_8
        if self.network is not None:
            reference["network"] = self.network.id_8
        logits = self.opinion.panel(tokens) if self._asked else []
        if logits:
            reference |= self.opinion.learn(logits, {})
        return self._scaled(reference, torch.stack((*scores, distances), dim=1), heats, logits)

    @torch.no_grad()
    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """The subspaces of old and new tokens together, the old ones by their kept directions (what lay outside them,
        1 - `explained` of the variance, is taken as lost). New images are judged before they are added; their scores
        join those of the old ones, so that scale and threshold are of images that were not seen."""
        if "global" not in reference:
            return self.fit_tokens(category, tokens)
        check_origin(reference, "lighting", self.light_8)
        self._check_origins(reference)
        new, first = dict(reference), len(reference["global"]) == 1
        fresh, heats, map_scales = [], [], []
        for place, (level_KLD, _) in enumerate(self._memory_levels(tokens)):
            own_KL = self.memory.distance(place, level_KLD, reference)
            fresh.append(level_score(own_KL, self.fractions))
            heats.append(own_KL)
            map_scales.append(torch.stack((own_KL.mean(), own_KL.std())))
            new |= self.memory.extend(place, level_KLD, reference)
        distances = described_distance(tokens.cls.float(), reference["global"])
        new["global"] = torch.cat((reference["global"], tokens.cls.float()))[:GLOBALS]
        logits = self.opinion.panel(tokens) if "head" in reference else []
        if logits:
            new |= self.opinion.learn(logits, reference)
        parts = torch.stack((*fresh, distances), dim=1)
        if first:  # the quarters of a single image were a makeshift
            new["map_scale"] = torch.stack(map_scales)
        else:
            parts = torch.cat((reference["support_parts"], parts))
        return self._scaled(new, parts, heats, logits, least=None if first else reference["support_level"])

    def _scaled(
        self,
        reference: Reference,
        parts_KV: Tensor,
        heats: list[Tensor],
        logits: list[Tensor],
        *,
        least: Tensor | None = None,
    ) -> Reference:
        """The reference with the scale that raw scores of normal images, none of which it had seen, give. logits: of
        those who judge by training, of the newest images."""
        reference |= {"support_parts": parts_KV, "scale": spread_of(parts_KV)}
        scores = self._fused(parts_KV[:, :-1], parts_KV[:, -1], reference)
        if "opinion" in reference:
            scores = scores + self.opinion.of_shots(len(parts_KV), reference)
            spread = math.hypot(self.expected_spread, self.opinion.spread(reference))
            reference["support_spread"] = torch.tensor(spread)
        reference["support_scores"] = scores
        heat_KL = self._heat(heats, reference)[1].flatten(1)
        if "logits" in reference:
            heat_KL = heat_KL + self.opinion.heat(logits, reference).flatten(1)
        level = top_mean(heat_KL, HEAT_FRACTION).mean().clamp(min=1e-3)
        reference["support_level"] = level if least is None else torch.maximum(least, level)
        return reference

    # ---- scoring

    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score in spreads of the left-out normal images, a weighted sum over sizes; map [B, H, W] from the full
        size in spreads of normal tokens; `levels` [B, V, h, w] of the full size. `parts`: `memory_map` [B, H, W], not
        smoothed where those who judge by training have a share in the map, and `global` [B].

        Without shots all are probabilities; the levels are those of the judges."""
        return self.score_each(tokens, [reference])[0]

    @torch.no_grad()
    def score_each(self, tokens: Tokens, references: Sequence[Reference]) -> list[Prediction]:
        """`score` against several references; those who judge by training are asked once."""
        for reference in references:
            self._check_origins(reference)
        logits = self.opinion.panel(tokens) if any("head" in reference for reference in references) else []
        return [
            self._score(tokens, reference, logits)
            if "global" in reference
            else self._score_without_shots(tokens, reference, logits)
            for reference in references
        ]

    def _score(self, tokens: Tokens, reference: Reference, logits: list[Tensor]) -> Prediction:
        found = enumerate(self._memory_levels(tokens))
        own = [self.memory.distance(place, level, reference) for place, (level, _) in found]
        scores_BV = torch.stack([level_score(level_BL, self.fractions) for level_BL in own], dim=1)
        distances_B = described_distance(tokens.cls.float(), reference["global"])
        levels_BVhw, heat_Bhw = self._heat(own, reference)
        if "logits" not in reference:
            memory_map = score_map = self._enlarged(heat_Bhw)
        else:
            size = (self.backbone.image_size, self.backbone.image_size)
            memory_map = enlarge(heat_Bhw, size, 0)
            score_map = self._enlarged(heat_Bhw + self.opinion.heat(logits, reference))
        score_B = self._fused(scores_BV, distances_B, reference)
        if "opinion" in reference:
            score_B = score_B + self.opinion.said(self.opinion.panel.score(logits), reference)
        return Prediction(
            score=score_B,
            score_map=score_map,
            levels=levels_BVhw,
            parts={"memory_map": memory_map, "global": distances_B},
        )

    def _score_without_shots(self, tokens: Tokens, reference: Reference, logits: list[Tensor]) -> Prediction:
        if self.words is not None and "prototypes" in reference:
            score_B, map_Bhw = self.words.judge(tokens, reference["prototypes"])
            levels_BVhw = map_Bhw[:, None]
        else:
            score_B, map_Bhw, levels_BVhw = self.opinion.panel.alone(logits)
        # Smoothed as logits: probabilities near 0 and 1 would tie.
        return Prediction(score_B, self._enlarged(map_Bhw).sigmoid(), levels_BVhw.sigmoid())

    def _check_origins(self, reference: Reference) -> None:
        if "global" in reference:
            check_origin(reference, "network", None if self.network is None else self.network.id_8)
        said = self.words is not None and "prototypes" in reference
        if "head" in reference or not ("global" in reference or said):
            if self.opinion is None:
                check_origin(reference, "head", torch.ones(1))
            else:
                self.opinion.check(reference)

    def _enlarged(self, grid_Bhw: Tensor) -> Tensor:
        size = (self.backbone.image_size, self.backbone.image_size)
        return enlarge(grid_Bhw, size, self.sigma)

    def _fused(self, scores_BV: Tensor, distances_B: Tensor, reference: Reference) -> Tensor:
        weights = self.level_weights
        terms = {"floor": self.floor, "global_weight": self.global_weight}
        return fused(scores_BV, distances_B, reference["scale"], weights, **terms)
