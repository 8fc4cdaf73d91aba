import math

import pytest
import torch
import torch.nn.functional as F

from sowa.nn.losses import dice, focal, image_cross_entropy, pixel_losses


def certain(mask):
    return torch.stack((1.0 - mask, mask.float()), dim=1)


MASK = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 0]]])


def test_a_perfect_map_costs_almost_nothing():
    assert focal(certain(MASK), MASK).abs() < 1e-6
    assert dice(MASK.float(), MASK) == 0


def test_focal_of_a_known_pixel():
    p = 0.3
    want = -((1 - p) ** 2) * math.log(p)
    got = focal(torch.tensor([1 - p, p]).reshape(1, 2, 1, 1), torch.ones(1, 1, 1))
    assert got.item() == pytest.approx(want, rel=1e-3)


def test_floor_of_focal_at_the_papers_largest_probability():
    p = 1 / (1 + math.exp(-2))
    got = focal(torch.tensor([1 - p, p]).reshape(1, 2, 1, 1), torch.ones(1, 1, 1))
    assert got.item() == pytest.approx(0.0018, abs=1e-4)


def test_dice_is_per_image():
    maps = torch.stack((MASK[0].float(), torch.ones(2, 2)))
    assert dice(maps, MASK).item() == pytest.approx((0 + 1 - 1 / 5) / 2)


def test_both_states_count():
    probability = certain(MASK) * 0.6 + 0.2
    _, both = pixel_losses(probability, MASK)
    want = dice(probability[:, 1], MASK) + dice(probability[:, 0], 1 - MASK)
    assert both == want


def test_softmax_twice_cannot_go_below_its_floor():
    logits = torch.tensor([[-50.0, 50.0]])
    assert image_cross_entropy(logits, torch.tensor([1]), on_probabilities=True).item() == pytest.approx(
        0.3133, abs=1e-4
    )
    assert image_cross_entropy(logits, torch.tensor([1]), on_probabilities=False) == 0


def test_standard_cross_entropy_is_on_logits():
    logits, label = torch.tensor([[0.3, -1.0]]), torch.tensor([0])
    assert image_cross_entropy(logits, label, on_probabilities=False) == F.cross_entropy(logits, label)
