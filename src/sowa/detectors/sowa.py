"""SOWA: hierarchical frozen window self-attention, two learnt prompts and a memory bank (arXiv 2407.03634).

B images, V levels, L tokens, D token width, E joint width, S states, C categories, K shots, M bank rows, H W pixels.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.precision import working_dtype
from sowa.detectors.base import Detector
from sowa.detectors.sowa_losses import LevelLosses
from sowa.detectors.sowa_options import check_options, check_texts
from sowa.errors import ConfigError, UnknownNameError
from sowa.nn.adapter import FrozenWeights, LinearAdapter, WindowAdapter
from sowa.nn.bank import leave_one_out_distance, nearest_distance, unit
from sowa.nn.coreset import thinned
from sowa.nn.ensemble import text_share
from sowa.nn.losses import image_cross_entropy
from sowa.nn.maps import gaussian_smooth, to_grid, top_mean, upsample
from sowa.nn.prompts import LearntPrompts, pool_states, prompt_sentences
from sowa.nn.search import approximate_or_none
from sowa.types import ABNORMAL, NORMAL, Batch, Prediction, Reference, Tokens

__all__ = ["Sowa"]

ANY_CATEGORY = "object"

TOP_FRACTION = 0.01
"""Share of the grid whose largest memory distances make the peak of an image."""


class _Text(NamedTuple):
    """What the text branch says of a batch: the part of a prediction that does not depend on the shots."""

    score_B: Tensor
    probability_B: Tensor
    map_BHW: Tensor
    levels_BVhw: Tensor


class Sowa(Detector):
    """The paper's detector on any backbone with a text tower.

    Text branch: tokens of each level pass a trained adapter and are compared with a normal and an abnormal prototype.
    Memory branch (K > 0): raw projected tokens of each level are compared with those of the normal images.

    `protocol="paper"` repeats the arithmetic of the published code, quirk by quirk (docs/PROTOCOLS.md): double softmax
    in the image loss, first category for an unknown one. Its few-shot image score needs the whole test set and is
    therefore finished by the evaluation from `parts["probability"]` and `parts["peak"]`.
    `protocol="standard"` is inductive: the support alone sets the scale of the memory branch.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "auxiliary"

    halves: "Sequence[nn.Module] | None" = None
    """Copies of the adapters for a backbone of lower precision; trained and stored are those in float32."""

    words_spared = False
    """Whether the text branch is left out where there are shots: see `without_parts`."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        adapter: str = "window",
        window: int | Literal["auto"] = "auto",
        depth: int = 1,
        heads: int = 8,
        value_only: bool = True,
        cpb_dim: int = 64,
        hidden: Sequence[int] | None = None,
        attention_dropout: float = 0.1,
        share_adapter: bool = False,
        text_linear: bool = True,
        categories: Sequence[str] = (ANY_CATEGORY,),
        normal_templates: Sequence[str] = ("{}",),
        abnormal_templates: Sequence[str] = ("damaged {}",),
        prompt_length: int = 12,
        temperature: float = 0.07,
        pixel_temperature: float | Literal["auto"] = "auto",
        sigma: float = 4.0,
        text_weight: float | Literal["auto"] = "auto",
        protocol: str = "standard",
        search: Literal["exact", "approximate"] = "exact",
        coreset: float | None = None,
        seed: int = 0,
    ):
        """A detector with untrained adapters and prompts.

        `window`: tokens of a window's side, `auto` = half the grid's shorter side; `hidden`: hidden widths of the
        adapters' linear part; `temperature`, `pixel_temperature`: divide the cosines of image and pixels, the latter
        `auto` = 1 in the paper protocol and the image's in the standard one; `sigma`: smoothing of the text map in
        pixels; `text_weight`: share 0..1 of the text branch once there are shots (the paper's is 0.5), `auto` = 0.5 on
        a trained text tower and 0 on a random one; `search`: of the memory bank, `approximate` (needs faiss) is for
        banks of thousands of images; `coreset`: share of the bank that is kept, None keeps all; `seed`: initial values.
        """
        super().__init__()
        if pixel_temperature == "auto":
            pixel_temperature = 1.0 if protocol == "paper" else temperature
        check_options(adapter, protocol, temperature, pixel_temperature, coreset)
        check_texts(categories=categories, normal_templates=normal_templates, abnormal_templates=abnormal_templates)
        self.backbone = backbone
        self.taps = tuple(taps) if taps is not None else tuple(backbone.default_taps)
        self.search, self.level_losses, self.coreset = approximate_or_none(search), LevelLosses(), coreset
        self.protocol, self.categories = protocol, tuple(categories)
        self.temperature, self.pixel_temperature, self.sigma = temperature, pixel_temperature, sigma
        share = text_share(text_weight, trained=backbone.text_trained)
        self.text_weight = 0.5 if protocol == "paper" else share
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = self._build_adapters(
                adapter, share_adapter, window, depth, heads, value_only, cpb_dim, attention_dropout, hidden
            )
            self.prompts = nn.ModuleList(
                self._build_prompts(templates, prompt_length) for templates in (normal_templates, abnormal_templates)
            )
            self.text_linear = nn.Linear(backbone.joint, backbone.joint) if text_linear else nn.Identity()

    def _build_adapters(
        self,
        kind: str,
        share: bool,
        window: int | Literal["auto"],
        depth: int,
        heads: int,
        value_only: bool,
        cpb_dim: int,
        dropout: float,
        hidden: Sequence[int] | None,
    ) -> nn.ModuleList:
        width, grid = self.backbone.width, self.backbone.grid
        if kind == "linear":
            count = 1 if share else len(self.taps)
            return nn.ModuleList(LinearAdapter(width=width, hidden=hidden) for _ in range(count))
        side = max(1, min(grid) // 2) if window == "auto" else window
        return nn.ModuleList(
            WindowAdapter(
                width=width,
                grid=grid,
                window=side,
                depth=depth,
                heads=heads,
                value_only=value_only,
                cpb_dim=cpb_dim,
                dropout=dropout,
                hidden=hidden,
            )
            for _ in self.taps
        )

    def _build_prompts(self, templates: Sequence[str], length: int) -> LearntPrompts:
        sentences = prompt_sentences(self.categories, templates, length)
        ids = self.backbone.tokenize(sentences)
        embeddings = self.backbone.embed_tokens(ids)
        shape = (len(self.categories), len(templates))
        return LearntPrompts(
            token_ids_CTN=ids.unflatten(0, shape), embeddings_CTNW=embeddings.unflatten(0, shape), context_length=length
        )

    def _on(self, backbone: Backbone) -> "Sowa":
        twin = super()._on(backbone)
        # Not submodules: they are no tensors of their own.
        twin.__dict__["halves"] = [one.with_halves(working_dtype(backbone.precision)) for one in self.adapters]
        return twin

    def without_parts(self) -> "Sowa":
        """Where the words have no share beside the shots, they are not asked."""
        if self.text_weight != 0 or self.protocol == "paper":
            return self
        twin = self._twin()
        twin.words_spared = True
        return twin

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_trained_state(state)
        if self.halves is not None:
            self.__dict__["halves"] = [one.with_halves(working_dtype(self.backbone.precision)) for one in self.adapters]

    # ---- text side

    def prototypes(self) -> Tensor:
        """[C, S, E] unit vectors of the states (0 normal, 1 abnormal) of each category; gradients reach the prompts."""
        given = [prompts() for prompts in self.prompts]
        embeddings, ids = (torch.cat(parts) for parts in zip(*given, strict=True))  # the weights are read once
        features = self.text_linear(self.backbone.encode_text(embeddings, ids))
        return unit(pool_states(features.split([len(own) for _, own in given]), len(self.categories)))

    def category_index(self, category: str) -> int:
        """Row of `prototypes` for a category: its own, else that of "object", else (paper) the first."""
        for name in (category, ANY_CATEGORY):
            if name in self.categories:
                return self.categories.index(name)
        if self.protocol == "paper":
            return 0
        raise UnknownNameError("category in the prompts", got=category, known=(*self.categories, ANY_CATEGORY))

    def image_logits(self, tokens: Tokens, prototypes_BSE: Tensor) -> Tensor:
        """[B, S] cosine of the class token with the prototypes over the temperature."""
        return torch.einsum("be,bse->bs", unit(tokens.cls), prototypes_BSE) / self.temperature

    def pixel_logits(self, tokens: Tokens, prototypes_BSE: Tensor) -> Tensor:
        """[B, V, S, h, w] cosine of the adapted, projected tokens with the prototypes over the pixel temperature."""
        adapted = [self.backbone.project(level_BLD) for level_BLD in self.adapt(tokens)]
        logits = [torch.einsum("ble,bse->bsl", unit(level_BLE), prototypes_BSE) for level_BLE in adapted]
        return to_grid(torch.stack(logits, dim=1), tokens.grid) / self.pixel_temperature

    def adapt(self, tokens: Tokens) -> list[Tensor]:
        """Adapted tokens [B, L, D] of every level, not yet projected."""
        return [self.adapt_level(level, level_BLD) for level, level_BLD in enumerate(tokens.levels)]

    def adapt_level(self, level: int, level_BLD: Tensor) -> Tensor:
        """`adapt` of one level."""
        adapters = self.adapters if self.halves is None else self.halves
        adapter = adapters[0 if len(adapters) == 1 else level]
        return adapter(level_BLD, FrozenWeights(*self.backbone.block_attention(self.taps[level])[:3]))

    def text_map(self, logits_BVShw: Tensor) -> Tensor:
        """[B, H, W] abnormal probability summed over levels, smoothed.

        The sigmoid of the upsampled difference is the softmax of the upsampled pair, at half the work.
        """
        difference = logits_BVShw[:, :, ABNORMAL] - logits_BVShw[:, :, NORMAL]
        return gaussian_smooth(self._enlarge(difference).sigmoid().sum(dim=1), self.sigma)

    def pixel_probabilities(self, logits_BVShw: Tensor) -> Tensor:
        """[B, V, S, H, W] at image size: logits are upsampled first, then become probabilities."""
        return self._enlarge(logits_BVShw.flatten(0, 1)).softmax(dim=1).unflatten(0, logits_BVShw.shape[:2])

    def _enlarge(self, maps: Tensor) -> Tensor:
        return upsample(maps, (self.backbone.image_size, self.backbone.image_size))

    # ---- support and scoring

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`prototypes` [S, E]; with K > 0 also `bank` [V, M, E] of unit rows, `support_peak`, the scale of the memory
        branch, and what the shots would get if they were not in the bank: `support_scores` [K] and `support_level`, the
        mean of the largest 1 % of their fused maps."""
        reference = {"prototypes": self.prototypes()[self.category_index(category)]}
        if tokens is None:
            return reference
        text = self._text(tokens, reference["prototypes"])
        peaks_K, memory_KHW, bank = self._left_out(self._rows(tokens), tokens.grid)
        kept = bank if self.coreset is None else torch.stack([thinned(level, self.coreset) for level in bank])
        reference |= {"bank": kept, "support_peak": peaks_K.mean()}
        reference["support_scores"] = self._fused_score(text.score_B, peaks_K, reference["support_peak"])
        reference["support_level"] = top_mean(self._fused_map(text.map_BHW, memory_KHW), TOP_FRACTION).mean()
        return reference

    @torch.no_grad()
    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """As `fit_tokens` on all shots. The words' maps of the earlier shots are not known any more: where words have a
        share, `support_level` joins that of the earlier shots with that of the new ones."""
        if "bank" not in reference:
            return self.fit_tokens(category, tokens)
        if self.coreset is not None:
            raise ConfigError("sowa with a coreset cannot add to what it learnt: fit again with all normal images")
        old_VKLE = reference["bank"].unflatten(1, (-1, tokens.grid[0] * tokens.grid[1]))
        old = old_VKLE.shape[1]
        text = self._text(tokens, reference["prototypes"])
        rows = [torch.cat((before, new)) for before, new in zip(old_VKLE, self._rows(tokens), strict=True)]
        peaks_K, memory_KHW, bank = self._left_out(rows, tokens.grid)
        scores_K = torch.cat((self._words_of(reference, old_VKLE, tokens.grid), text.score_B))
        level = top_mean(self._fused_map(text.map_BHW, memory_KHW[old:]), TOP_FRACTION)
        earlier = reference["support_level"].expand(old)
        if self.text_weight == 0:
            earlier = top_mean(2 * memory_KHW[:old], TOP_FRACTION)
        return {
            "prototypes": reference["prototypes"],
            "bank": bank,
            "support_peak": peaks_K.mean(),
            "support_scores": self._fused_score(scores_K, peaks_K, peaks_K.mean()),
            "support_level": torch.cat((earlier, level)).mean(),
        }

    def _rows(self, tokens: Tokens) -> list[Tensor]:
        """[K, L, E] unit rows of every level."""
        return [unit(self.backbone.project(level).float()) for level in tokens.levels]

    def _left_out(self, rows: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """([K] peaks, [K, H, W] memory maps, [V, M, E] bank) of the shots, peaks and maps of each left out in turn."""
        own_KL = torch.stack([leave_one_out_distance(level_KLE, grid, own_places=True) for level_KLE in rows]).sum(
            dim=0
        )
        bank = torch.stack([level_KLE.flatten(0, 1) for level_KLE in rows])
        return top_mean(own_KL, TOP_FRACTION), self._enlarge(to_grid(own_KL, grid)), bank

    def _words_of(self, reference: Reference, bank_VKLE: Tensor, grid: tuple[int, int]) -> Tensor:
        """[K] what the words said of the shots of a reference: their scores without the share of the memory."""
        scores_K = reference["support_scores"]
        if self.text_weight == 0:
            return torch.zeros_like(scores_K)
        peaks_K, _, _ = self._left_out(list(bank_VKLE), grid)
        memory_K = self._fused_score(torch.zeros_like(scores_K), peaks_K, reference["support_peak"])
        return (scores_K - memory_K) / self.text_weight

    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score, fused map [B, H, W], abnormal probability of each level on the grid [B, V, h, w].

        `parts`: `probability` [B] of the class token, `peak` [B] largest value of the fused map, `text_map` and, with
        K > 0, `memory_map` [B, H, W].
        """
        return self.score_each(tokens, [reference])[0]

    @torch.no_grad()
    def score_each(self, tokens: Tokens, references: Sequence[Reference]) -> list[Prediction]:
        """`score` against several references; the text branch runs once for all that share their prototypes."""
        texts: list[tuple[Tensor, _Text]] = []
        predictions = []
        for reference in references:
            if self.words_spared and "bank" in reference:
                found = self._predict(tokens, reference, _Text(*[tokens.cls.new_zeros(())] * 4))
                predictions.append(Prediction(score=found.score, score_map=found.score_map))
                continue
            prototypes_SE = reference["prototypes"]
            text = next((text for known, text in texts if torch.equal(known, prototypes_SE)), None)
            if text is None:
                text = self._text(tokens, prototypes_SE)
                texts.append((prototypes_SE, text))
            predictions.append(self._predict(tokens, reference, text))
        return predictions

    def _text(self, tokens: Tokens, prototypes_SE: Tensor) -> "_Text":
        prototypes_BSE = prototypes_SE.expand(tokens.cls.shape[0], -1, -1)
        logits = self.pixel_logits(tokens, prototypes_BSE)
        probability = self.image_logits(tokens, prototypes_BSE).softmax(dim=-1)[:, ABNORMAL]
        levels_BVhw = logits.softmax(dim=2)[:, :, ABNORMAL]
        if self.protocol == "paper":
            return _Text(probability, probability, self.text_map(logits), levels_BVhw)
        score = 0.5 * (probability + top_mean(levels_BVhw.mean(dim=1), TOP_FRACTION))
        return _Text(score, probability, self.text_map(logits), levels_BVhw)

    def _predict(self, tokens: Tokens, reference: Reference, text: "_Text") -> Prediction:
        score, fused = text.score_B, text.map_BHW
        parts = {"probability": text.probability_B, "text_map": fused}
        if "bank" in reference:
            memory = self.memory_grid(tokens, reference["bank"])
            parts["memory_map"] = self._enlarge(memory)
            fused = self._fused_map(fused, parts["memory_map"])
            score = self._few_shot_score(score, memory, fused, reference)
        parts["peak"] = fused.flatten(1).amax(dim=1)
        return Prediction(score=score, score_map=fused, levels=text.levels_BVhw, parts=parts)

    def memory_grid(self, tokens: Tokens, bank_VME: Tensor) -> Tensor:
        """[B, h, w] distance to the memory bank summed over levels, each level in 0..2."""
        banks = None if self.search is None else self.search.of(bank_VME)
        projected = map(self.backbone.project, tokens.levels)
        if banks is None:
            nearest = partial(nearest_distance, compared_in=working_dtype(self.backbone.precision))
            distance_BL = sum(map(nearest, projected, bank_VME))
        else:
            distance_BL = sum(bank.nearest_distance(level) for bank, level in zip(banks, projected, strict=True))
        return to_grid(distance_BL, tokens.grid)

    def _few_shot_score(self, text_score: Tensor, memory: Tensor, fused: Tensor, reference: Reference) -> Tensor:
        if self.protocol == "paper":  # a stand-in on a fixed scale; the evaluation replaces it over the whole test set
            return 0.5 * (text_score + fused.flatten(1).amax(dim=1) / (3 * len(self.taps)))
        return self._fused_score(text_score, top_mean(memory, TOP_FRACTION), reference["support_peak"])

    def _fused_map(self, text_map: Tensor, memory_map: Tensor) -> Tensor:
        """Twice the weighted mean: with the paper's weight of 0.5 it is the paper's plain sum."""
        return 2 * (self.text_weight * text_map + (1 - self.text_weight) * memory_map)

    def _fused_score(self, text_B: Tensor, peak_B: Tensor, support_peak: Tensor) -> Tensor:
        """[B] in 0..1: weighted mean of the text branch's score and of peak / (peak + support peak).

        A peak like those of the support counts 0.5, a much larger one 1; 0 where even the support has no distance.
        """
        raised = peak_B / (peak_B + support_peak).clamp(min=1e-12)
        return self.text_weight * text_B + (1 - self.text_weight) * raised

    # ---- training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`cross_entropy`, `focal`, `dice`, summed over levels with weight one (SOWA equation 5 as coded)."""
        with torch.no_grad():
            tokens = self.encode(batch.images)
        index = torch.tensor([self.category_index(name) for name in batch.categories], device=tokens.cls.device)
        return self.token_losses(tokens, self.prototypes()[index], batch.labels, batch.masks)

    def token_losses(self, tokens: Tokens, prototypes_BSE: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """`losses` on encoded tokens; `prototypes_BSE` [B, S, E], labels [B], masks [B, H, W] in {0, 1}."""
        focal, dice = self.level_losses(self, tokens, prototypes_BSE, masks)
        image = self.image_logits(tokens, prototypes_BSE)
        return {
            "cross_entropy": image_cross_entropy(image, labels, on_probabilities=self.protocol == "paper"),
            "focal": focal,
            "dice": dice,
        }
