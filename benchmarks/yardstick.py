"""The yardstick: SOWA as a user would compose it from open_clip, plain PyTorch and SciPy, in float32, eagerly.

No token is cached, no weight is prepared: for every batch both prompts are encoded again, every block is the library's
own, logits of both states are enlarged before their softmax, each image's map is smoothed by SciPy, and the memory bank
is one product over all its rows. The weights are those of a `Sowa` detector, so both must give the same map; the
benchmark checks that before it times them.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sowa.detectors.sowa import Sowa
from sowa.nn.adapter import FrozenWeights

__all__ = ["PlainSowa"]


class PlainSowa:
    """`plain(images)` -> [B, H, W] fused map as a numpy array; images are [B, 3, H, W] uint8."""

    def __init__(self, detector: Sowa, bank_VME: Tensor):
        """detector: on `clip` or `random_tiny`, in float32; bank_VME: unit rows of the shots, level by level."""
        self.detector, self.bank_VME = detector, bank_VME
        self.backbone, self.visual = detector.backbone, detector.backbone.visual

    @torch.no_grad()
    def __call__(self, images_B3HW: Tensor) -> np.ndarray:
        levels = self._levels(images_B3HW)
        prototypes_SE = self.detector.prototypes()[0]
        text = self._text(levels, prototypes_SE).numpy()
        text = np.stack([gaussian_filter(one, sigma=self.detector.sigma) for one in text])
        share = self.detector.text_weight
        return 2 * (share * text + (1 - share) * self._memory(levels).numpy())

    def _levels(self, images_B3HW: Tensor) -> list[Tensor]:
        stream = (images_B3HW.float() / 255 - self.backbone.mean) / self.backbone.std
        stream, levels = self.visual._embeds(stream), []
        for number, block in enumerate(self.visual.transformer.resblocks, start=1):
            stream = block(stream)
            if number in self.detector.taps:
                levels.append(stream[:, 1:])
        return levels

    def _text(self, levels: list[Tensor], prototypes_SE: Tensor) -> Tensor:
        total = 0
        for tap, adapter, level in zip(self.detector.taps, self.detector.adapters, levels, strict=True):
            adapted = adapter(level, FrozenWeights(*self.backbone.block_attention(tap)[:3])) @ self.visual.proj
            logits = F.normalize(adapted, dim=-1) @ prototypes_SE.T / self.detector.pixel_temperature
            total = total + self._enlarged(logits).softmax(dim=1)[:, 1]
        return total

    def _memory(self, levels: list[Tensor]) -> Tensor:
        total = 0
        for level, bank_ME in zip(levels, self.bank_VME, strict=True):
            similar = F.normalize(level @ self.visual.proj, dim=-1) @ bank_ME.T
            total = total + self._enlarged((1 - similar.amax(dim=-1))[..., None])[:, 0]
        return total

    def _enlarged(self, values_BLC: Tensor) -> Tensor:
        maps = values_BLC.transpose(1, 2).unflatten(2, self.backbone.grid)
        size = (self.backbone.image_size, self.backbone.image_size)
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
