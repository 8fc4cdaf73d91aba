"""Small heads that turn a vector into one probability, and their loss. B images."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Head", "binary_focal"]


class Head(nn.Module):
    """Linear, ReLU and batch normalisation, twice; a last linear map and a sigmoid."""

    def __init__(self, *, width: int, hidden: Sequence[int]):
        super().__init__()
        sizes = [width, *hidden]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in hidden)
        self.last = nn.Linear(sizes[-1], 1)

    def forward(self, values_BN: Tensor, *, learn: bool = False) -> Tensor:
        """[B, width] -> [B] in 0..1. `learn` takes the statistics of the batch, unless it is a single image, and moves
        the running ones; otherwise the running ones serve, so that no image knows of another."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values_BN = F.batch_norm(
                F.relu(layer(values_BN)),
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                training=learn and len(values_BN) > 1,
                momentum=norm.momentum,
                eps=norm.eps,
            )
        return self.last(values_BN).squeeze(-1).sigmoid()


def binary_focal(probability_B: Tensor, labels_B: Tensor, *, gamma: float, sigmoid_twice: bool) -> Tensor:
    """Mean of -(1 - p)^gamma ln p, with p the probability of the true label.

    `sigmoid_twice` takes the probabilities for logits, as the published code does.
    """
    labels_B = labels_B.to(probability_B.dtype)
    entropy = F.binary_cross_entropy_with_logits if sigmoid_twice else F.binary_cross_entropy
    surprise_B = entropy(probability_B, labels_B, reduction="none")
    return ((1 - torch.exp(-surprise_B)) ** gamma * surprise_B).mean()
