"""PromptAD: prompts learnt from the normal images of one category, and a memory of their tokens (CVPR 2024).

B images, V levels, L tokens, D token width, E joint width, S states, K shots, M bank rows, h w grid, H W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.clip_value import ValueTokens, encode_values
from sowa.detectors.base import Detector
from sowa.detectors.promptad_words import GENERIC_TEMPLATES, category_name, published_templates
from sowa.errors import ConfigError, NeedsSupportError
from sowa.nn.bank import leave_one_out_distance, unit
from sowa.nn.contexts import GroupFeatures, SharedContexts, prompt_losses, sentence_groups
from sowa.nn.maps import gaussian_smooth, to_grid, upsample
from sowa.nn.scores import abnormal_probability, level_distances, parallel
from sowa.types import Prediction, Reference, Tokens

__all__ = ["PromptAd", "PromptTokens"]

LN_100 = math.log(100.0)


@dataclass(frozen=True, slots=True)
class PromptTokens(ValueTokens):
    """Tokens of images and, where the published code's mistake is repeated, of the same images with B for R."""

    swapped: ValueTokens | None = None
    """What scoring reads instead."""

    def rows(self, rows: slice) -> "PromptTokens":
        """Tokens of some of the images."""
        return _with_swapped(ValueTokens.rows(self, rows), self.swapped.rows(rows) if self.swapped else None)

    @staticmethod
    def join(parts: "Sequence[PromptTokens]") -> "PromptTokens":
        """Tokens of several batches as one batch."""
        swapped = [part.swapped for part in parts if part.swapped is not None]
        return _with_swapped(ValueTokens.join(parts), ValueTokens.join(swapped) if swapped else None)


class PromptAd(Detector):
    """Two sets of learnt prompts per category, one for images and one for pixels, beside a memory of two levels.

    `fit` trains the prompts on the shots with plain gradient descent for a fixed number of epochs and keeps the last
    ones: no test image has a say. The published code keeps the epoch that does best on the test set, and lists of the
    test set's defects are among its words (`published_words`); neither is the default.

    Image score: class token against the image prompts and largest distance to the memory, in parallel. Map: tokens of
    the value-value path against the pixel prompts and distance to the memory, in parallel, smoothed.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "target"

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        abnormal_templates: Sequence[str] = GENERIC_TEMPLATES,
        published_words: bool = False,
        image_contexts: int = 3,
        pixel_contexts: int = 1,
        abnormal_contexts: int = 4,
        context_length: int = 4,
        abnormal_length: int = 1,
        scale: float = LN_100,
        align_weight: float = 0.001,
        epochs: int = 100,
        lr: float = 0.002,
        last_lr: float = 1e-5,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        canvas: int = 400,
        sigma: float = 4.0,
        next_attention: bool = False,
        margin_over_tokens: bool = False,
        test_bgr: bool = False,
        use_text: bool = True,
        seed: int = 0,
    ):
        """
        taps: levels of the memory; a quarter and two thirds of the tower if None (3 and 8 of 12).
        published_words: add the category's published defect words (MVTec AD and VisA only).
        scale: of the cosines. The paper's is ln 100, as its code does not exponentiate what CLIP stores; CLIP's is 100.
        epochs .. weight_decay: gradient descent on the contexts, the rate falling from lr to last_lr on a cosine.
        canvas: side in pixels of the map that is smoothed by `sigma` and searched for its peak.
        next_attention, margin_over_tokens, test_bgr: slips of the published code (levels include the next block's
            attention; the margin of pixels sums over tokens; images to be scored have red and blue exchanged).
        use_text: False leaves the prompts out, for a backbone whose text tower is not trained.
        seed: of the initial contexts.
        """
        super().__init__()
        self.backbone = backbone
        self.taps = tuple(taps) if taps is not None else default_taps(backbone.depth)
        self.abnormal_templates, self.published_words = tuple(abnormal_templates), published_words
        self.counts = {"image_contexts": image_contexts, "pixel_contexts": pixel_contexts}
        self.sizes = {"abnormal": abnormal_contexts, "length": context_length, "abnormal_length": abnormal_length}
        self.scale, self.align_weight = scale, align_weight
        self.epochs, self.lr, self.last_lr = epochs, lr, last_lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.canvas, self.sigma, self.use_text, self.seed = canvas, sigma, use_text, seed
        self.next_attention, self.margin_over_tokens, self.test_bgr = next_attention, margin_over_tokens, test_bgr
        _check(self.counts | self.sizes | {"canvas": canvas}, abnormal_templates, epochs, scale, lr)

    @torch.no_grad()
    def encode(self, images_B3HW: Tensor) -> PromptTokens:
        """Frozen tokens with those of the value-value path; twice the work where `test_bgr` is set."""

        def encoded(images: Tensor) -> ValueTokens:
            return encode_values(self.backbone, images, self.taps, next_attention=self.next_attention)

        return _with_swapped(encoded(images_B3HW), encoded(images_B3HW.flip(1)) if self.test_bgr else None)

    # ---- prompts

    def templates(self, category: str) -> tuple[str, ...]:
        """Templates of the manual abnormal prompts of a category."""
        return self.abnormal_templates + (published_templates(category) if self.published_words else ())

    def contexts(self, category: str, count: int) -> SharedContexts:
        """Untrained contexts, `count` of them normal, in the category's sentences; the same for the same seed."""
        sizes = self.sizes | {"normal": count}
        groups = sentence_groups(category_name(category), self.templates(category), **sizes)
        ids = [self.backbone.tokenize(sentences) for sentences in groups]
        longest = max(int(group.argmax(dim=-1).max()) for group in ids) + 1
        ids = [group[:, :longest] for group in ids]  # the tower is causal: nothing after the end of a text is read
        return SharedContexts(
            token_ids=ids,
            embeddings=[self.backbone.embed_tokens(group) for group in ids],
            generator=torch.Generator().manual_seed(self.seed),
            **sizes,
        )

    def text_features(self, contexts: SharedContexts) -> GroupFeatures:
        """Features of all sentences; gradients reach the contexts."""
        return contexts.split(self.backbone.encode_text(*contexts()))

    def learn(self, contexts: SharedContexts, features: Tensor, *, epochs: int | None = None) -> None:
        """Train contexts on unit features [K, E] or [K, L, E]: all at once in every epoch, no augmentation.

        `epochs`: stop earlier than the schedule, whose length is that of the constructor.
        """
        features = features.detach().clone()
        with torch.enable_grad():
            optimiser = torch.optim.SGD(
                contexts.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimiser, T_max=max(1, self.epochs), eta_min=min(self.lr, self.last_lr)
            )
            for _ in range(self.epochs if epochs is None else epochs):
                optimiser.zero_grad()
                self.loss(contexts, features).backward()
                optimiser.step()
                schedule.step()

    def loss(self, contexts: SharedContexts, features: Tensor) -> Tensor:
        """What `learn` minimises: contrast + margin + `align_weight` * align."""
        over_tokens = self.margin_over_tokens and features.dim() == 3
        text = self.text_features(contexts)
        terms = prompt_losses(features, text, scale=self.scale, over_tokens=over_tokens)
        return terms["contrast"] + terms["margin"] + self.align_weight * terms["align"]

    # ---- support and scoring

    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`bank` [V, M, D] of unit rows, `image_prototypes` and `pixel_prototypes` [S, E] of the trained prompts, and
        `support_scores` [K], what each shot would score if it were not in the bank (its prompts have seen it)."""
        if tokens is None:
            raise NeedsSupportError(
                f"promptad learns from normal images and was given none of '{category}': give shots of 1 or more"
            )
        with torch.inference_mode(False), torch.no_grad():  # what it makes must serve in training, whoever calls
            reference = {"bank": self.bank(tokens)}
            if self.use_text:
                for name, features in (("image", tokens.cls), ("pixel", tokens.values)):
                    contexts = self.contexts(category, self.counts[f"{name}_contexts"])
                    self.learn(contexts, unit(features.float()))
                    reference[f"{name}_prototypes"] = self.text_features(contexts).prototypes()
            own = [leave_one_out_distance(level.float(), tokens.grid).clamp(min=0) / 2 for level in tokens.levels]
            return reference | {"support_scores": self._fuse(tokens, sum(own) / len(own), reference)[0]}

    def bank(self, tokens: Tokens) -> Tensor:
        """[V, M, D] unit rows, all tokens of all shots."""
        return torch.stack([unit(level.float()).flatten(0, 1) for level in tokens.levels])

    @torch.no_grad()
    def score(self, tokens: PromptTokens, reference: Reference) -> Prediction:
        """Image score in 0..1, map [B, H, W] in 0..1, distance of each level on the grid [B, V, h, w].

        `parts`: `memory_score` [B] is the largest distance on the canvas, `memory_map` [B, h, w] all; with the words
        also `text_score` [B] of the class token and `text_map` [B, h, w] of the local tokens; `grid_map` [B, h, w] is
        what both give, `canvas_map` [B, canvas, canvas] the same upsampled and smoothed, not yet resized to the image.
        """
        tokens = tokens.swapped or tokens
        levels_BVL = level_distances(tokens.levels, reference["bank"])
        score, grid, parts = self._fuse(tokens, levels_BVL.mean(dim=1), reference)
        canvas = gaussian_smooth(self.on_canvas(grid), self.sigma)
        size = (self.backbone.image_size, self.backbone.image_size)
        return Prediction(
            score=score,
            score_map=canvas if canvas.shape[-2:] == size else upsample(canvas, size, align_corners=False),
            levels=to_grid(levels_BVL, tokens.grid),
            parts=parts | {"grid_map": grid, "canvas_map": canvas},
        )

    def _fuse(self, tokens: ValueTokens, distance_BL: Tensor, reference: Reference) -> tuple[Tensor, Tensor, dict]:
        """(score [B], map [B, h, w], parts) of images at a given distance to the memory."""
        memory = to_grid(distance_BL, tokens.grid)
        peak = self.on_canvas(memory).flatten(1).amax(dim=1)
        parts = {"memory_score": peak, "memory_map": memory}
        if not self.use_text:
            return peak, memory, parts
        score = abnormal_probability(tokens.cls, reference["image_prototypes"], self.scale)
        text = to_grid(abnormal_probability(tokens.values, reference["pixel_prototypes"], self.scale), tokens.grid)
        return parallel(score, peak), parallel(text, memory), parts | {"text_score": score, "text_map": text}

    def on_canvas(self, grid_Bhw: Tensor) -> Tensor:
        """[B, h, w] -> [B, canvas, canvas], bilinear."""
        return upsample(grid_Bhw, (self.canvas, self.canvas), align_corners=False)


def default_taps(depth: int) -> tuple[int, ...]:
    """Blocks 3 and 8 of 12, and the like of other depths."""
    return tuple(sorted({math.ceil(depth * 3 / 12), math.ceil(depth * 8 / 12)}))


def _with_swapped(plain: ValueTokens, swapped: ValueTokens | None) -> PromptTokens:
    return PromptTokens(plain.cls, plain.levels, plain.grid, plain.values, swapped)


def _check(counts: dict[str, int], templates: Sequence[str], epochs: int, scale: float, lr: float) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name}={value} is not usable: give a whole number of at least 1")
    if isinstance(templates, str) or not len(templates) or not all("{}" in template for template in templates):
        raise ConfigError(
            f"abnormal_templates={templates!r} is not usable: give a list with {{}} in each for the category"
        )
    if epochs < 0 or not scale > 0 or not lr > 0:
        raise ConfigError(f"epochs={epochs}, scale={scale}, lr={lr}: epochs must be 0 or more, the others above 0")
