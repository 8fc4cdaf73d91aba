"""Losses from grids: the values and gradients of the definition, and nothing large kept."""

import pytest
import torch

from sowa.nn.losses import dice, focal, pixel_losses
from sowa.nn.map_losses import map_losses
from sowa.nn.maps import upsample


def by_definition(logits_BVShw, mask_BHW, both_states):
    size = tuple(mask_BHW.shape[1:])
    enlarged = upsample(logits_BVShw.flatten(0, 1), size).softmax(dim=1).unflatten(0, logits_BVShw.shape[:2])
    pairs = []
    for level in enlarged.unbind(dim=1):
        pairs.append(
            pixel_losses(level, mask_BHW) if both_states else (focal(level, mask_BHW), dice(level[:, 1], mask_BHW))
        )
    return [torch.stack(column) for column in zip(*pairs, strict=True)]


def drawn(scale=3.0, dtype=torch.float64, images=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, 2, 2, 3, 4, generator=generator, dtype=dtype) * scale
    masks = (torch.rand(images, 13, 17, generator=generator) > 0.8).to(torch.uint8)
    masks[0] = 0
    return logits.requires_grad_(), masks


@pytest.mark.parametrize("both_states", [True, False])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_values_and_gradients_are_those_of_the_definition(both_states, scale):
    logits, masks = drawn(scale)
    weights = torch.tensor([[1.0, 0.3], [-2.0, 0.7]], dtype=torch.float64)  # of focal and dice, level by level
    results = []
    for losses in (
        by_definition(logits, masks, both_states),
        map_losses(logits[:, :, 1] - logits[:, :, 0], masks, both_states=both_states),
    ):
        total = sum((weight * loss).sum() for weight, loss in zip(weights, losses, strict=True))
        results.append((*(loss.detach() for loss in losses), *torch.autograd.grad(total, logits)))
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_in_float32_it_is_as_exact_as_the_definition():
    exact, masks = drawn()
    logits = exact.detach().float().requires_grad_()
    for got, want in zip(
        map_losses(logits[:, :, 1] - logits[:, :, 0], masks), by_definition(exact, masks, True), strict=True
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)


def test_half_precision_grids_are_enlarged_in_float32():
    logits, masks = drawn(dtype=torch.float32)
    difference = (logits[:, :, 1] - logits[:, :, 0]).detach().to(torch.bfloat16).requires_grad_()
    focal_V, _ = map_losses(difference, masks)
    assert focal_V.dtype == torch.float32
    focal_V.sum().backward()
    assert difference.grad.dtype == torch.bfloat16


def test_no_map_is_kept_for_the_backward_pass():
    logits, masks = drawn(images=2)
    kept = []

    def noted(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        map_losses(
            logits[:, :, 1] - logits[:, :, 0], torch.nn.functional.interpolate(masks[None].float(), size=(170, 170))[0]
        )
    assert max(kept) < 170 * 170
