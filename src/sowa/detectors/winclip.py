"""WinCLIP and WinCLIP+: fixed words and masked windows, without training (arXiv 2303.14814).

B images, V scales, L tokens, D token width, E joint width, W windows, T crops, S states, K shots, M bank rows,
h w grid, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.backbones.clip_windows import check_windows, encode_windows
from sowa.backbones.sentences import encode_sentences
from sowa.detectors.base import Detector
from sowa.errors import ConfigError
from sowa.nn.bank import leave_one_out_distance, nearest_distance, unit
from sowa.nn.ensemble import ensemble, prototypes, spaced, text_share
from sowa.nn.maps import to_grid, upsample
from sowa.types import ABNORMAL, NORMAL, Prediction, Reference, Tokens

__all__ = ["TextMaps", "VisualMaps", "WinClip", "WinClipTokens", "crop_starts", "harmonic_map"]

CROP_STEP = 0.8
"""Distance of two crops of a long image as a share of their side."""


@dataclass(frozen=True, slots=True)
class WinClipTokens(Tokens):
    """`levels` is empty: the windows take the place of taps."""

    patches: Tensor
    """[B, L, D] tokens of the last block after the final norm, not projected."""
    windows: tuple[Tensor, ...]
    """One [B, W, E] per scale."""
    crops: Tensor
    """[B, T, E] class tokens of the crops that make the image score; rows of NaN fill up images with fewer crops."""

    def rows(self, rows: slice) -> "WinClipTokens":
        """Tokens of some of the images."""
        windows = tuple(scale[rows] for scale in self.windows)
        return WinClipTokens(self.cls[rows], (), self.grid, self.patches[rows], windows, self.crops[rows])

    @staticmethod
    def join(parts: "Sequence[WinClipTokens]") -> "WinClipTokens":
        """Tokens of several batches as one batch."""
        most = max(part.crops.shape[1] for part in parts)
        crops = [F.pad(part.crops, (0, 0, 0, most - part.crops.shape[1]), value=torch.nan) for part in parts]
        windows = tuple(torch.cat(same) for same in zip(*(part.windows for part in parts), strict=True))
        cls, patches = torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts])
        return WinClipTokens(cls, (), parts[0].grid, patches, windows, torch.cat(crops))


class TextMaps(NamedTuple):
    """What the words say; all in 0..1."""

    score: Tensor
    """[B] abnormal probability of the whole image, the mean over its crops."""
    windows: tuple[Tensor, ...]
    """[B, W] per scale: abnormal probability of each window."""
    scales: tuple[Tensor, ...]
    """[B, h, w] per scale: the windows spread over their patches."""
    grid: Tensor
    """[B, h, w] harmonic mean of the image's own probability and of all scales."""


class VisualMaps(NamedTuple):
    """What the normal images say; all in 0..1."""

    patches: Tensor
    """[B, h, w] distance of each patch token."""
    windows: tuple[Tensor, ...]
    """[B, W] per scale: distance of each window."""
    scales: tuple[Tensor, ...]
    """[B, h, w] per scale: the windows spread over their patches."""
    grid: Tensor
    """[B, h, w] mean of the patches and of all scales."""


class WinClip(Detector):
    """Class tokens of small windows, compared with words and, with K > 0, with the windows of the normal images.

    Every score is inductive and in 0..1, whatever the protocol of an evaluation.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        scales: Sequence[int] = (2, 3),
        temperature: float = 0.07,
        multi_crop: bool = False,
        anomalib: bool = False,
        norm_each: bool | None = None,
        text_weight: float | Literal["auto"] = "auto",
    ):
        """
        scales: sides of the windows in patches. temperature: divides the cosines with the words.
        multi_crop: the score of an image that is not square is the mean over square crops along its longer side, as in
            the paper; `encode` then takes [B, 3, H, W] of any size. Square images have one crop, and so have those of
            the data sets here, which arrive squashed.
        anomalib: the words as that library has them: 21 templates of which one stands twice, the category unchanged
            (metal_nut), features not normalised before their mean. Otherwise 22 templates and "metal nut".
        norm_each: overrides how features are pooled (`pool_prompts`).
        text_weight: share 0..1 of the words once there are shots (the paper's is 0.5); `auto` is 0.5 on a trained
            text tower, 0 on a random one. At 0 words are looked at without shots only.
        """
        super().__init__()
        if isinstance(scales, str) or not len(scales):
            raise ConfigError(f"scales={scales!r} is not usable: give a list of window sides such as [2, 3]")
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature} is not usable: give a number above 0")
        check_windows(backbone, scales)
        self.backbone, self.taps, self.scales = backbone, (), tuple(scales)
        self.temperature, self.multi_crop, self.anomalib = temperature, multi_crop, anomalib
        self.text_weight = text_share(text_weight, trained=backbone.text_trained)
        self.norm_each = not anomalib if norm_each is None else norm_each
        self._prototypes: dict[str, Tensor] = {}

    # ---- image side

    def encode(self, images_B3HW: Tensor) -> WinClipTokens:
        """The full pass, the windows of each scale and the crops; 13 times the cost of the full pass alone."""
        size = (self.backbone.image_size, self.backbone.image_size)
        long = self.multi_crop and images_B3HW.ndim == 4 and images_B3HW.shape[-2] != images_B3HW.shape[-1]
        whole_B3HW = _resized(images_B3HW, size) if long else images_B3HW
        seen = encode_windows(self.backbone, whole_B3HW, self.scales)
        crops = self._crops(images_B3HW, size) if long else seen.cls.unsqueeze(1)
        return WinClipTokens(seen.cls, (), self.backbone.grid, seen.patches, seen.windows, crops)

    def _crops(self, images_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = images_B3HW.shape[-2:]
        side, along = min(height, width), -1 if width > height else -2
        crops = [images_B3HW.narrow(along, start, side) for start in crop_starts(max(height, width), side)]
        return torch.stack([self.backbone.encode_image(_resized(crop, size), ()).cls for crop in crops], dim=1)

    # ---- words

    def prototypes(self, category: str) -> Tensor:
        """[S, E] unit vectors of the two states of a category; encoded once."""
        if category not in self._prototypes:
            name, word = ("anomalib", category) if self.anomalib else ("winclip", spaced(category))
            encode = partial(encode_sentences, self.backbone)
            self._prototypes[category] = prototypes(ensemble(name), word, encode, norm_each=self.norm_each)
        return unit(self._prototypes[category].to(self.backbone.mean.device).float())

    def probability(self, embeddings: Tensor, prototypes_SE: Tensor) -> Tensor:
        """[..., E] -> [...]: abnormal probability; neither side needs unit length."""
        cosine = unit(embeddings.float()) @ unit(prototypes_SE.float()).T
        return ((cosine[..., ABNORMAL] - cosine[..., NORMAL]) / self.temperature).sigmoid()

    def text_maps(self, tokens: WinClipTokens, prototypes_SE: Tensor) -> TextMaps:
        """Probabilities of image and windows, spread over the patches."""
        windows = tuple(self.probability(scale_BWE, prototypes_SE) for scale_BWE in tokens.windows)
        scales = self._spread(windows, tokens.grid)
        own_B11 = self.probability(tokens.cls, prototypes_SE)[:, None, None]
        parts = [own_B11.expand_as(scales[0]), *scales]
        grid = len(parts) / sum(1 / part for part in parts)
        return TextMaps(self.probability(tokens.crops, prototypes_SE).nanmean(dim=1), windows, scales, grid)

    # ---- support

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: WinClipTokens | None) -> Reference:
        """`prototypes` [S, E]; with K > 0 also `bank_patches` [M, D] and `bank_windows_<side>` [M, E], rows of unit
        length, and `support_scores` [K], what each shot would score if it were not in the banks."""
        needed = tokens is None or self.text_weight > 0
        reference = {"prototypes": self.prototypes(category)} if needed else {}
        return reference if tokens is None else reference | self.memorise(tokens, reference)

    def memorise(self, tokens: WinClipTokens, reference: Reference) -> Reference:
        """The entries that K > 0 images add to a reference with or without `prototypes`."""
        rows, columns = tokens.grid
        own = [leave_one_out_distance(tokens.patches, tokens.grid)]
        for side, scale_KWE in zip(self.scales, tokens.windows, strict=True):
            own.append(leave_one_out_distance(scale_KWE, (rows - side + 1, columns - side + 1)))
        score = self._visual(own, tokens.grid).grid.flatten(1).amax(dim=1)
        if "prototypes" in reference:
            score = self._fused(self.text_maps(tokens, reference["prototypes"]).score, score)
        names = ("bank_patches", *(f"bank_windows_{side}" for side in self.scales))
        banks = [unit(values.float()).flatten(0, 1) for values in (tokens.patches, *tokens.windows)]
        return dict(zip(names, banks, strict=True)) | {"support_scores": score}

    def visual_maps(self, tokens: WinClipTokens, reference: Reference) -> VisualMaps:
        """Distances to the banks, spread over the patches."""
        distances = [nearest_distance(tokens.patches, reference["bank_patches"])]
        for side, scale_BWE in zip(self.scales, tokens.windows, strict=True):
            distances.append(nearest_distance(scale_BWE, reference[f"bank_windows_{side}"]))
        return self._visual(distances, tokens.grid)

    def _visual(self, distances: Sequence[Tensor], grid: tuple[int, int]) -> VisualMaps:
        # A distance of zero may come out as -1e-7, whose reciprocal would outweigh all others.
        patches, *windows = ((distance / 2).clamp(min=0) for distance in distances)
        patches, scales = to_grid(patches, grid), self._spread(windows, grid)
        return VisualMaps(patches, tuple(windows), scales, (patches + sum(scales)) / (1 + len(scales)))

    def _spread(self, windows: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, ...]:
        return tuple(harmonic_map(scale_BW, grid, side) for side, scale_BW in zip(self.scales, windows, strict=True))

    # ---- scoring

    @torch.no_grad()
    def score(self, tokens: WinClipTokens, reference: Reference) -> Prediction:
        """Image score and map in 0..1: of the words (K = 0), of the support, or of both (`text_weight`).

        `levels` [B, V, h, w]: the words' map of each scale, the support's where there are no words. `parts`:
        `text_score`, `memory_score` [B], `text_map`, `memory_map` [B, H, W], as far as they exist.
        """
        scores, maps = {}, {}
        if "bank_patches" in reference:
            visual = self.visual_maps(tokens, reference)
            scores["memory"], maps["memory"], levels = visual.grid.flatten(1).amax(dim=1), visual.grid, visual.scales
        if "prototypes" in reference:
            text = self.text_maps(tokens, reference["prototypes"])
            scores["text"], maps["text"], levels = text.score, text.grid, text.scales
        size = (self.backbone.image_size, self.backbone.image_size)
        maps = {name: upsample(grid, size, align_corners=False) for name, grid in maps.items()}
        score, score_map = (self._fused(values.get("text"), values.get("memory")) for values in (scores, maps))
        parts = {f"{name}_score": value for name, value in scores.items()}
        parts |= {f"{name}_map": value for name, value in maps.items()}
        return Prediction(score=score, score_map=score_map, levels=torch.stack(levels, dim=1), parts=parts)

    def _fused(self, text: Tensor | None, memory: Tensor | None) -> Tensor:
        if text is None or memory is None:
            return memory if text is None else text
        return self.text_weight * text + (1 - self.text_weight) * memory


def harmonic_map(values_BW: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """[B, W] -> [B, h, w]: harmonic mean of all windows that hold a patch; 0 where any of them is 0."""
    rows, columns = grid[0] - side + 1, grid[1] - side + 1
    inverse = (1 / values_BW).unflatten(-1, (rows, columns))
    total, count = inverse.new_zeros(len(inverse), *grid), inverse.new_zeros(grid)
    for dy in range(side):
        for dx in range(side):
            total[:, dy : dy + rows, dx : dx + columns] += inverse
            count[dy : dy + rows, dx : dx + columns] += 1
    return count / total


def crop_starts(length: int, side: int) -> list[int]:
    """Where the crops of `side` pixels begin along `length` pixels; the last one ends with the image."""
    return [*range(0, length - side, max(1, int(CROP_STEP * side))), length - side]


def _resized(images_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Float images of the given size, resampled as the data sets' images are (bicubic, antialias)."""
    pixels = images_B3HW.float() / 255 if images_B3HW.dtype == torch.uint8 else images_B3HW
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
