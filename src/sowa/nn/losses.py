"""Losses of the auxiliary training. Shapes: B images, S states (0 normal, 1 abnormal), H W pixels.

Each takes probabilities over the two states, as the paper's code does; logits become probabilities once, in the
detector. Source: SOWA section 4.2 and its code (methods: cross-entropy, focal, dice).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.types import ABNORMAL, NORMAL

__all__ = ["dice", "focal", "image_cross_entropy", "pixel_losses"]

FOCAL_SMOOTH = 1e-5


def focal(probability_BSHW: Tensor, mask_BHW: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Mean over pixels of -(1 - p)^gamma ln p, with p the probability of the pixel's true state.

    The one-hot target is softened to [1e-5, 1 - 1e-5] and 1e-5 is added to p, as in the reference.
    """
    mask = mask_BHW.to(probability_BSHW.dtype)
    certain, doubt = 1 - FOCAL_SMOOTH, FOCAL_SMOOTH
    normal, abnormal = probability_BSHW[:, NORMAL], probability_BSHW[:, ABNORMAL]
    states = torch.where(mask > 0, doubt * normal + certain * abnormal, certain * normal + doubt * abnormal)
    hit = states + FOCAL_SMOOTH
    return -((1 - hit) ** gamma * hit.log()).mean()


def dice(probability_BHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """1 - mean over images of (2 sum(p m) + 1) / (sum p + sum m + 1); 0 for a perfect map."""
    probability, mask = probability_BHW.flatten(1), mask_BHW.to(probability_BHW.dtype).flatten(1)
    overlap = (probability * mask).sum(dim=1)
    return 1 - ((2 * overlap + 1) / (probability.sum(dim=1) + mask.sum(dim=1) + 1)).mean()


def pixel_losses(probability_BSHW: Tensor, mask_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """(focal, dice) of one level; dice counts both states, the normal one against the inverted mask."""
    mask = mask_BHW.to(probability_BSHW.dtype)
    both = dice(probability_BSHW[:, ABNORMAL], mask) + dice(probability_BSHW[:, NORMAL], 1 - mask)
    return focal(probability_BSHW, mask), both


def image_cross_entropy(logits_BS: Tensor, label_B: Tensor, *, on_probabilities: bool) -> Tensor:
    """Cross-entropy of the image label.

    `on_probabilities` reproduces the paper's code, which hands soft-maxed values to a loss that applies softmax again;
    its floor is 0.3133 instead of 0.
    """
    values = logits_BS.softmax(dim=-1) if on_probabilities else logits_BS
    return F.cross_entropy(values, label_B)
