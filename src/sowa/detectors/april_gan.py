"""April-GAN: one trained linear layer per level, fixed words and a memory bank (arXiv 2305.17382).

B images, V levels, L tokens, D token width, E joint width, S states, K shots, M bank rows, H W pixels.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.sentences import encode_sentences
from sowa.detectors.base import Detector
from sowa.errors import ConfigError, UnknownNameError
from sowa.nn.bank import leave_one_out_distance, nearest_distance, unit
from sowa.nn.ensemble import ensemble, prototypes, text_share
from sowa.nn.map_losses import map_losses
from sowa.nn.maps import to_grid, upsample
from sowa.types import ABNORMAL, NORMAL, Batch, Prediction, Reference, Tokens

__all__ = ["AprilGan"]

PROTOCOLS = ("standard", "paper")


class AprilGan(Detector):
    """Tokens of each level pass a trained linear layer and are compared with the words; with K > 0 raw tokens of each
    level are compared with those of the normal images.

    The published few-shot image score needs the whole test set: `protocol="paper"` leaves it to the evaluation, which
    makes it of `parts["probability"]` and `parts["peak"]`. `protocol="standard"` is inductive: with the weight w of the
    words, w x probability + (1 - w) x peak / (peak + support peak); the peak is the largest value of the map, the
    support's the mean over its images, each left out of the bank in turn.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "auxiliary"

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        temperature: float = 0.01,
        text_weight: float | Literal["auto"] = "auto",
        protocol: str = "standard",
        seed: int = 0,
    ):
        """
        taps: one linear layer each; the backbone's default if None.
        temperature: divides the cosines of image and pixels.
        text_weight: share 0..1 of the words in score and map once there are shots; the paper's is 0.5 (and with
            protocol="paper" always), `auto` is 0.5 on a trained text tower, 0 on a random one. At 0 the class token's
            words say nothing: without shots the image score is then the map's peak.
        seed: initial values of the layers.
        """
        super().__init__()
        if protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", got=protocol, known=PROTOCOLS)
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature} is not usable: give a number above 0")
        self.backbone = backbone
        self.taps = tuple(taps) if taps is not None else tuple(backbone.default_taps)
        if not self.taps:
            raise ConfigError("taps=[] is not usable: give at least one block number, or null for the backbone's own")
        self.temperature, self.protocol = temperature, protocol
        weight = text_share(text_weight, trained=backbone.text_trained)
        self.text_weight = 0.5 if protocol == "paper" else weight
        self._prototypes: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.ModuleList(nn.Linear(backbone.width, backbone.joint) for _ in self.taps)

    # ---- text side

    def prototypes(self, category: str) -> Tensor:
        """[S, E] unit vectors of the two states of a category, named as it is (metal_nut); encoded once."""
        if category not in self._prototypes:
            encode = partial(encode_sentences, self.backbone)
            self._prototypes[category] = prototypes(ensemble("april_gan"), category, encode)
        return self._prototypes[category].to(self.backbone.mean.device, torch.float32, copy=True)

    def probability(self, tokens: Tokens, prototypes_SE: Tensor) -> Tensor:
        """[B] abnormal probability of the class token."""
        return (unit(tokens.cls.float()) @ prototypes_SE.T / self.temperature).softmax(dim=-1)[:, ABNORMAL]

    def pixel_logits(self, tokens: Tokens, prototypes_BSE: Tensor) -> Tensor:
        """[B, V, S, h, w] cosine of the linear layers' outputs with the prototypes over the temperature."""
        outputs = [linear(level.float()) for linear, level in zip(self.linear, tokens.levels, strict=True)]
        cosines = [torch.einsum("ble,bse->bsl", unit(level_BLE), prototypes_BSE) for level_BLE in outputs]
        return to_grid(torch.stack(cosines, dim=1), tokens.grid) / self.temperature

    def pixel_probabilities(self, logits_BVShw: Tensor) -> Tensor:
        """[B, V, S, H, W] at image size: logits are upsampled first, then become probabilities."""
        size = (self.backbone.image_size, self.backbone.image_size)
        return upsample(logits_BVShw.flatten(0, 1), size).softmax(dim=1).unflatten(0, logits_BVShw.shape[:2])

    def text_map(self, logits_BVShw: Tensor) -> Tensor:
        """[B, H, W] abnormal probability summed over levels, in 0..V."""
        return self.pixel_probabilities(logits_BVShw)[:, :, ABNORMAL].sum(dim=1)

    # ---- support and scoring

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`prototypes` [S, E]; with K > 0 also `bank` [V, M, D] of unit rows, `support_peak`, the scale of the maps'
        peaks, and `support_scores` [K], what each shot would score if it were not in the bank."""
        reference = {"prototypes": self.prototypes(category)}
        return reference if tokens is None else reference | self.memorise(tokens, reference["prototypes"])

    def memorise(self, tokens: Tokens, prototypes_SE: Tensor) -> Reference:
        """The entries that K > 0 normal images add to a reference."""
        text_KHW = self.text_map(self.pixel_logits(tokens, prototypes_SE.expand(len(tokens.cls), -1, -1)))
        peaks_K = self._left_out(tokens.levels, text_KHW, tokens.grid)
        bank = torch.stack([unit(level.float()).flatten(0, 1) for level in tokens.levels])
        reference = {"bank": bank, "support_peak": peaks_K.mean()}
        own = self._image_score(self.probability(tokens, prototypes_SE), peaks_K, reference)
        return reference | {"support_scores": own}

    @torch.no_grad()
    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """As `fit_tokens` on all shots. ConfigError where words have a share: what they said of the earlier shots is
        not kept."""
        if "bank" not in reference:
            return self.fit_tokens(category, tokens)
        if self.text_weight > 0:
            raise ConfigError("april_gan with words cannot add to what it learnt: fit again, or use text_weight=0")
        old_VKLD = reference["bank"].unflatten(1, (-1, tokens.grid[0] * tokens.grid[1]))
        new = [unit(level_KLD.float()) for level_KLD in tokens.levels]
        rows = [torch.cat(pair) for pair in zip(old_VKLD, new, strict=True)]
        size = self.backbone.image_size
        peaks_K = self._left_out(rows, rows[0].new_zeros(len(rows[0]), size, size), tokens.grid)
        longer = {"bank": torch.stack([level_KLD.flatten(0, 1) for level_KLD in rows]), "support_peak": peaks_K.mean()}
        own = self._image_score(torch.zeros_like(peaks_K), peaks_K, longer)
        return {"prototypes": reference["prototypes"], **longer, "support_scores": own}

    def _left_out(self, rows: Sequence[Tensor], text_KHW: Tensor, grid: tuple[int, int]) -> Tensor:
        """[K] peaks of the maps of the shots, each left out in turn."""
        own_VKL = torch.stack([leave_one_out_distance(level_KLD, grid) for level_KLD in rows])
        return _peak(self._fused_map(text_KHW, self.memory_map(to_grid(own_VKL, grid))))

    def memory_grids(self, tokens: Tokens, bank_VMD: Tensor) -> Tensor:
        """[V, B, h, w] distance of each level's raw tokens to the bank, each in 0..2."""
        levels = zip(tokens.levels, bank_VMD, strict=True)
        return to_grid(torch.stack([nearest_distance(level, bank_MD) for level, bank_MD in levels]), tokens.grid)

    def memory_map(self, grids_VBhw: Tensor) -> Tensor:
        """[B, H, W] distances summed over levels."""
        return upsample(grids_VBhw.sum(dim=0), (self.backbone.image_size, self.backbone.image_size))

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score, map [B, H, W] (words and memory added), abnormal probability of each level on the grid.

        `parts`: `probability` [B] of the class token, `peak` [B] largest value of the map, `text_map` and, with K > 0,
        `memory_map` [B, H, W].
        """
        prototypes_SE = reference["prototypes"]
        logits = self.pixel_logits(tokens, prototypes_SE.expand(len(tokens.cls), -1, -1))
        score_map = self.text_map(logits)
        parts = {"probability": self.probability(tokens, prototypes_SE), "text_map": score_map}
        if "bank" in reference:
            parts["memory_map"] = self.memory_map(self.memory_grids(tokens, reference["bank"]))
            score_map = self._fused_map(score_map, parts["memory_map"])
        parts["peak"] = _peak(score_map)
        score = self._image_score(parts["probability"], parts["peak"], reference)
        return Prediction(score=score, score_map=score_map, levels=logits.softmax(dim=2)[:, :, ABNORMAL], parts=parts)

    def _fused_map(self, text_map: Tensor, memory_map: Tensor) -> Tensor:
        """Twice the weighted mean: with the paper's weight of 0.5 it is the paper's plain sum."""
        return 2 * (self.text_weight * text_map + (1 - self.text_weight) * memory_map)

    def _image_score(self, probability_B: Tensor, peak_B: Tensor, reference: Reference) -> Tensor:
        """[B] in 0..1."""
        if "support_peak" not in reference:
            return probability_B if self.text_weight > 0 else peak_B / len(self.taps)
        relative = peak_B / (peak_B + reference["support_peak"]).clamp(min=1e-12)
        if self.protocol == "paper":  # a stand-in on a fixed scale; the evaluation replaces it over the whole test set
            relative = peak_B / (3 * len(self.taps))
        return self.text_weight * probability_B + (1 - self.text_weight) * relative

    # ---- training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`focal` over both states and `dice` of the abnormal one, summed over levels; the image label is not used."""
        with torch.no_grad():
            tokens = self.encode(batch.images)
        prototypes_BSE = torch.stack([self.prototypes(category) for category in batch.categories])
        levels = self.level_losses(tokens, prototypes_BSE, batch.masks)
        return {name: sum(terms) for name, terms in zip(("focal", "dice"), zip(*levels, strict=True), strict=True)}

    def level_losses(self, tokens: Tokens, prototypes_BSE: Tensor, masks: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(focal, dice) of each level; masks [B, H, W] in {0, 1}."""
        logits = self.pixel_logits(tokens, prototypes_BSE)
        difference = logits[:, :, ABNORMAL] - logits[:, :, NORMAL]
        return list(zip(*map_losses(difference, masks, both_states=False), strict=True))


def _peak(maps_BHW: Tensor) -> Tensor:
    return maps_BHW.flatten(1).amax(dim=1)
