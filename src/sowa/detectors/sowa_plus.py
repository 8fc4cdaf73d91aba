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
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.pair import PairBackbone
from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.base import Detector
from sowa.detectors.plus_head import LogitScale, known_head
from sowa.detectors.plus_heat import HEAT_FRACTION, heat
from sowa.detectors.plus_lighting import known_lighting
from sowa.detectors.plus_looks import description, shrunk, smaller_towers, tapped
from sowa.detectors.plus_memory import described_distance, left_out_distances, memory_of, quarters
from sowa.detectors.plus_network import MAPPED, Network, known_network
from sowa.detectors.plus_options import check_origin, check_shares, check_weights
from sowa.detectors.plus_words import Words
from sowa.errors import ConfigError, NeedsSupportError
from sowa.nn.maps import enlarge, to_grid, top_mean
from sowa.types import Prediction, Reference, Tokens

__all__ = ["SowaPlus"]

GLOBALS, SPREAD = 64, 0.8
"""Normal images kept for the global term; the spread of a score, see `SowaPlus.expected_spread`."""


class SowaPlus(Detector):
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
    backbone; `none`, or a file of `write_head`. head_map: its share in the map once there are shots: spreads of
    normal tokens for each spread of its logits on the shots.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "none"
    extends_nearly: ClassVar[bool] = True
    former_defaults: ClassVar = {"head": "none", "quarter": False, "lighting": "none", "network": "none"}

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
        )
        self.trained = known_head(head, backbone)
        self.head, self.head_map = (self.trained.module, head_map) if self.trained is not None else (None, 0.0)
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

    def _apply(self, *words: Any, **options: Any) -> "SowaPlus":
        """Moved or cast: the smaller towers, no submodules, are made again of the weights where they are now."""
        super()._apply(*words, **options)
        self.__dict__["smaller"] = tuple(self.backbone.at_size(tower.image_size) for tower in self.smaller)
        return self

    def _on(self, backbone: Backbone) -> "SowaPlus":
        twin = super()._on(backbone)
        twin.__dict__["smaller"] = tuple(backbone.at_size(tower.image_size) for tower in self.smaller)
        return twin

    def learnt_elsewhere(self, k: int) -> bool:
        return self.head is not None and (k == 0 or self.head_map > 0)

    # ---- tokens

    def encoding(self) -> Hashable:
        seen = None if self.network is None else bytes(self.network.id_8.tolist())
        return (type(self), id(self.backbone), self.taps, self.global_tap, self.sizes, self._head_taps, seen)

    @property
    def _head_taps(self) -> tuple[int, ...]:
        return () if self.trained is None else self.trained.taps

    @property
    def sizes(self) -> int:
        """How many image sizes are looked at."""
        return 1 + len(self.smaller)

    @property
    def towers(self) -> tuple[Backbone, ...]:
        """The backbone at its own size, then the smaller ones."""
        return (self.backbone, *self.smaller)

    @property
    def described(self) -> int:
        """Which of `towers` the global term is of: the half size where there is one."""
        return min(1, len(self.smaller))

    def encode(self, images_B3HW: Tensor) -> PyramidTokens:
        """Levels of the full size in the order of the taps, those of the smaller sizes, those of the network, and those
        of the head at full size.
        `cls` [B, 2D] is the global description, at half size where there is one: mean patch token and class token of
        the global tap, each of unit length."""
        images = images_B3HW if images_B3HW.is_floating_point() else images_B3HW.float() / 255
        levels, grids, described, heads = [], [], images.new_empty(0), []
        for number, tower in enumerate(self.towers):
            more = self._head_taps if number == 0 else ()
            found = tapped(tower, images, (*self.taps, *more, *([self.global_tap] if number == self.described else [])))
            levels += [found[tap][1] for tap in self.taps]
            grids += [tower.grid] * len(self.taps)
            heads += [found[tap][1] for tap in more]
            if number == self.described:
                described = description(*found[self.global_tap])
        if self.network is not None:
            seen = self.network.encode(shrunk(images, Network.size_beside(self.backbone.image_size)))
            levels, grids = [*levels, *(level for level, _ in seen)], [*grids, *(grid for _, grid in seen)]
        grids += [self.backbone.grid] * len(heads)
        if self.words is not None:
            said, of = self.words.encode(images)
            heads, grids = [*heads, *said], [*grids, *of]
        return PyramidTokens(described, (*levels, *heads), self.backbone.grid, tuple(grids))

    @property
    def level_weights(self) -> list[float]:
        """Of each level of the memory in the score."""
        own = [weight / len(self.taps) for weight in self.weights for _ in self.taps]
        return own if self.network is None else own + [self.network_weight / self.network.levels] * self.network.levels

    @property
    def expected_spread(self) -> float:
        """Of good images' scores: `SPREAD` for one look; looks are summed as if each erred by itself."""
        return SPREAD * math.hypot(*self.weights, *([] if self.network is None else [self.network_weight]))

    @property
    def spaces(self) -> int:
        """How many levels the memory is of."""
        return self.sizes * len(self.taps) + (0 if self.network is None else self.network.levels)

    @property
    def mapped(self) -> list[int]:
        """Places of the network's levels that have a share in the map."""
        first = self.sizes * len(self.taps)
        return [first + place for place in MAPPED] if self.network is not None and self.network_map else []

    def _heat(self, own: Sequence[Tensor], reference: Reference) -> tuple[Tensor, Tensor]:
        """([B, V, h, w], [B, h, w]) of `heat`, from what each level of the memory says of the tokens."""
        return heat(
            [own[place] for place in range(len(self.taps))],
            [own[place] for place in self.mapped],
            reference["map_scale"][[*range(len(self.taps)), *self.mapped]],
            self.backbone.grid,
            share=self.network_map,
        )

    def _memory_levels(self, tokens: Tokens) -> list[tuple[Tensor, tuple[int, int]]]:
        """Levels and grids that the memory is of."""
        return list(zip(tokens.levels[: self.spaces], tokens.grids[: self.spaces], strict=True))

    def _logits(self, tokens: Tokens) -> Tensor:
        """[B, L] of the head at the full size."""
        return self.head(tokens.levels[self.spaces : self.spaces + len(self._head_taps)])

    # ---- support

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """Of each level `mean_i` [D], `basis_i` [D, R], `variance_i` [R] and `tokens_i` (their number); `scale`
        [V + 1, 2] of the levels and the global term: mean and spread of left-out normal images; `map_scale` [V, 2] of
        single tokens; `global` [K, 2D]; `support_parts` [K, V + 1] of left-out images (the quarters of a single one,
        4 rows), raw, and `support_scores` [K], fused; `support_level`, the heat of their most unusual
        spots; where the head has a share in the map, `logits` [3], its scale on the shots (`LogitScale`), and `head`
        [8], which says whose logits are meant; `lighting` [8] says which directions were left out at half size,
        `network` [8] which network the last levels are of. Without shots only `head`."""
        if tokens is None or not len(tokens.cls):
            if self.trained is not None:
                return {"head": self.trained.id_8}
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
            scores.append(self._quarter_scores(own_KL, grid) if shots == 1 else self.level_score(own_KL))
            map_scales.append(torch.stack((own_KL.mean(), own_KL.std())))
            heats.append(own_KL)
        distances = left_out_distances(tokens.cls.float())
        reference["map_scale"] = torch.stack(map_scales)
        reference["global"] = tokens.cls.float()[:GLOBALS].clone()
        if len(self.light_8):
            reference["lighting"] = self.light_8
        if self.network is not None:
            reference["network"] = self.network.id_8
        if self.head_map:
            reference |= {"logits": LogitScale.of(self._logits(tokens)), "head": self.trained.id_8}
        return self._scaled(reference, torch.stack((*scores, distances), dim=1), heats, tokens)

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
            fresh.append(self.level_score(own_KL))
            heats.append(own_KL)
            map_scales.append(torch.stack((own_KL.mean(), own_KL.std())))
            new |= self.memory.extend(place, level_KLD, reference)
        distances = described_distance(tokens.cls.float(), reference["global"])
        new["global"] = torch.cat((reference["global"], tokens.cls.float()))[:GLOBALS]
        if "logits" in reference:
            new["logits"] = LogitScale.of(self._logits(tokens), reference["logits"])
        parts = torch.stack((*fresh, distances), dim=1)
        if first:  # the quarters of a single image were a makeshift
            new["map_scale"] = torch.stack(map_scales)
        else:
            parts = torch.cat((reference["support_parts"], parts))
        return self._scaled(new, parts, heats, tokens, least=None if first else reference["support_level"])

    def _scaled(
        self,
        reference: Reference,
        parts_KV: Tensor,
        heats: list[Tensor],
        tokens: Tokens,
        *,
        least: Tensor | None = None,
    ) -> Reference:
        """The reference with the scale that raw scores of normal images, none of which it had seen, give."""
        spread = parts_KV.std(dim=0) if len(parts_KV) > 1 else torch.zeros_like(parts_KV[0])
        reference["support_parts"] = parts_KV
        reference["scale"] = torch.stack((parts_KV.mean(dim=0), spread), dim=1)
        reference["support_scores"] = self._fused(parts_KV[:, :-1], parts_KV[:, -1], reference)
        heat_KL = self._heat(heats, reference)[1].flatten(1)
        if "logits" in reference:
            heat_KL = heat_KL + self.head_map * LogitScale.standard(self._logits(tokens), reference["logits"])
        level = top_mean(heat_KL, HEAT_FRACTION).mean().clamp(min=1e-3)
        reference["support_level"] = level if least is None else torch.maximum(least, level)
        return reference

    def _quarter_scores(self, own_1L: Tensor, grid: tuple[int, int]) -> Tensor:
        """[4] scores of the quarters of a single image, as if each were one: its only hint of a spread."""
        parts = quarters(grid, own_1L.device)
        return torch.stack([self.level_score(own_1L[:, quarter_L], parts=4)[0] for quarter_L in parts])

    def level_score(self, distance_BL: Tensor, *, parts: int = 1) -> Tensor:
        """[B] of one level; of a part of an image as many tokens as of a whole one."""
        means = [top_mean(distance_BL, min(1.0, parts * fraction)) for fraction in self.fractions]
        return torch.stack(means).mean(dim=0)

    # ---- scoring

    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score in spreads of the left-out normal images, a weighted sum over sizes; map [B, H, W] from the full
        size in spreads of normal tokens; `levels` [B, V, h, w] of the full size. `parts`: `memory_map` [B, H, W], not
        smoothed where the head has a share in the map, and `global` [B].

        Without shots score, map and the only level are probabilities of the head."""
        return self.score_each(tokens, [reference])[0]

    @torch.no_grad()
    def score_each(self, tokens: Tokens, references: Sequence[Reference]) -> list[Prediction]:
        """`score` against several references; the head is asked once."""
        for reference in references:
            self._check_origins(reference)
        asked = any("logits" in reference or "global" not in reference for reference in references)
        logits_Bhw = to_grid(self._logits(tokens), tokens.grid) if self.head is not None and asked else None
        return [
            self._score(tokens, reference, logits_Bhw)
            if "global" in reference
            else self._score_without_shots(tokens, reference, logits_Bhw)
            for reference in references
        ]

    def _score(self, tokens: Tokens, reference: Reference, logits_Bhw: Tensor | None) -> Prediction:
        found = enumerate(self._memory_levels(tokens))
        own = [self.memory.distance(place, level, reference) for place, (level, _) in found]
        scores_BV = torch.stack([self.level_score(level_BL) for level_BL in own], dim=1)
        distances_B = described_distance(tokens.cls.float(), reference["global"])
        levels_BVhw, heat_Bhw = self._heat(own, reference)
        if "logits" not in reference:
            memory_map = score_map = self._enlarged(heat_Bhw)
        else:
            size = (self.backbone.image_size, self.backbone.image_size)
            memory_map = enlarge(heat_Bhw, size, 0)
            share_Bhw = self.head_map * LogitScale.standard(logits_Bhw, reference["logits"])
            score_map = self._enlarged(heat_Bhw + share_Bhw)
        return Prediction(
            score=self._fused(scores_BV, distances_B, reference),
            score_map=score_map,
            levels=levels_BVhw,
            parts={"memory_map": memory_map, "global": distances_B},
        )

    def _score_without_shots(self, tokens: Tokens, reference: Reference, logits_Bhw: Tensor | None) -> Prediction:
        if self.words is not None and "prototypes" in reference:
            score_B, logits_Bhw = self.words.judge(tokens, reference["prototypes"])
        else:
            score_B = self.trained.score(logits_Bhw)
        # Smoothed as logits: probabilities near 0 and 1 would tie.
        return Prediction(score_B, self._enlarged(logits_Bhw).sigmoid(), logits_Bhw.sigmoid()[:, None])

    def _check_origins(self, reference: Reference) -> None:
        if "global" in reference:
            check_origin(reference, "network", None if self.network is None else self.network.id_8)
        if "head" in reference or not ("global" in reference or "prototypes" in reference):
            check_origin(reference, "head", torch.ones(1) if self.trained is None else self.trained.id_8)

    def _enlarged(self, grid_Bhw: Tensor) -> Tensor:
        size = (self.backbone.image_size, self.backbone.image_size)
        return enlarge(grid_Bhw, size, self.sigma)

    def _fused(self, scores_BV: Tensor, distances_B: Tensor, reference: Reference) -> Tensor:
        """[B]: mean over the levels of a size, weighted sum over sizes, plus the global term where it has a scale."""
        scale = reference["scale"]
        standard_BV = (scores_BV - scale[:-1, 0]) / (scale[:-1, 1] + self.floor * scale[:-1, 0]).clamp(min=1e-12)
        fused = (standard_BV * standard_BV.new_tensor(self.level_weights)).sum(dim=1)
        middle, spread = scale[-1]
        if self.global_weight and middle > 0:
            fused = fused + self.global_weight * (distances_B - middle) / (spread + self.floor * middle)
        return fused
