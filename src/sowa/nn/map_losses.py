"""Focal and dice of maps at image size, from grids, without keeping a map.

The same losses as `sowa.nn.losses.pixel_losses` on the upsampled, soft-maxed logits, and the same gradients up to
rounding. Two facts make them cheap. A softmax of two states depends on their difference alone, and upsampling is
linear, so one channel is enlarged instead of two, by one matrix along each side. And a loss is a number: its gradient
with respect to the grid can be worked out on the way forward, image by image, while the enlarged map is at hand. What
stays for the backward pass is two grids per level, some hundred times less than the maps.

Shapes: B images, V levels, h w grid, H W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sowa.nn.losses import FOCAL_SMOOTH
from sowa.nn.maps import aligned_matrix

__all__ = ["map_losses"]


def map_losses(difference_BVhw: Tensor, mask_BHW: Tensor, *, both_states: bool = True) -> tuple[Tensor, Tensor]:
    """(focal [V], dice [V]) of every level at the size of the masks, as `sowa.nn.losses` defines them.

    difference_BVhw: abnormal minus normal logit; enlarged with aligned corners. mask_BHW: defect where > 0.
    both_states: dice of the abnormal state plus that of the normal one (SOWA), else of the abnormal one (April-GAN).
    """
    kind = torch.promote_types(difference_BVhw.dtype, torch.float32)
    return _MapLosses.apply(difference_BVhw.to(kind), mask_BHW, both_states)


class _MapLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, difference_BVhw: Tensor, mask_BHW: Tensor, both_states: bool) -> tuple[Tensor, Tensor]:
        pairs = zip(difference_BVhw.detach(), mask_BHW, strict=True)
        with torch.autocast(difference_BVhw.device.type, enabled=False):
            parts = [_one_image(grid_Vhw, mask_HW > 0, both_states) for grid_Vhw, mask_HW in pairs]
        focal_BV, dice_BV, by_focal, by_dice = (torch.stack(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(by_focal / len(parts), by_dice / len(parts))
        return focal_BV.mean(dim=0), dice_BV.mean(dim=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, focal_V: Tensor, dice_V: Tensor) -> tuple[Tensor, None, None]:
        by_focal, by_dice = ctx.saved_tensors
        return by_focal * focal_V[:, None, None] + by_dice * dice_V[:, None, None], None, None


def _one_image(grid_Vhw: Tensor, defect_HW: Tensor, both_states: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(focal [V], dice [V]) of one image and what they grow by with its grids, [V, h, w] each."""
    sides = zip(grid_Vhw.shape[-2:], defect_HW.shape, strict=True)
    rows_Hh, columns_Ww = (aligned_matrix(*side).to(grid_Vhw) for side in sides)
    difference_VHW = rows_Hh @ grid_Vhw @ columns_Ww.T
    probability = difference_VHW.sigmoid()
    slope = probability * (1 - probability)
    focal_V, focal_slope = _focal(difference_VHW, defect_HW, slope)
    mask = defect_HW.to(probability.dtype)
    dice_V, by_probability = _dice(probability, mask)
    if both_states:
        normal_V, by_normal = _dice(1 - probability, 1 - mask)
        dice_V, by_probability = dice_V + normal_V, by_probability - by_normal
    by_focal, by_dice = (rows_Hh.T @ by_pixel @ columns_Ww for by_pixel in (focal_slope, by_probability * slope))
    return focal_V, dice_V, by_focal, by_dice


def _focal(difference_VHW: Tensor, defect_HW: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of -(1 - p)^2 ln p over pixels, and its derivative by the difference."""
    sure = 1 - 2 * FOCAL_SMOOTH
    side = torch.where(defect_HW, 1.0, -1.0).to(slope.dtype)
    hit = (difference_VHW * side).sigmoid().mul_(sure).add_(2 * FOCAL_SMOOTH)  # softened target, then 1e-5 more
    miss, log = 1 - hit, hit.log()
    value_V = -(miss * miss * log).flatten(1).mean(dim=1)
    by_difference = miss.mul(log).mul_(2).sub_(miss * miss / hit).mul_(slope).mul_(side * (sure / side.numel()))
    return value_V, by_difference


def _dice(probability_VHW: Tensor, mask_HW: Tensor) -> tuple[Tensor, Tensor]:
    """1 - (2 sum(p m) + 1) / (sum p + sum m + 1), and its derivative by p."""
    above_V = 2 * (probability_VHW * mask_HW).flatten(1).sum(dim=1) + 1
    below_V = probability_VHW.flatten(1).sum(dim=1) + mask_HW.sum() + 1
    by_probability = (above_V / below_V**2)[:, None, None] - (2 / below_V)[:, None, None] * mask_HW
    return 1 - above_V / below_V, by_probability
