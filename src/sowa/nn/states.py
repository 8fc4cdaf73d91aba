"""Learnt state vectors: what a token looks like where something is wrong, whatever the product.

B images, V levels, L tokens, D token width, N hidden width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["StateHead", "token_loss"]


class StateHead(nn.Module):
    """One logit for each token from its values at all levels and from how they differ from the image's mean token.

    The difference helps on products it has not seen: what is unusual in an image is unlike the rest of the same image.
    Tokens of a level are put on one scale first (mean 0, variance 1 over the D values).
    """

    def __init__(self, *, width: int, levels: int, hidden: int, dropout: float = 0.1):
        super().__init__()
        self.inner = nn.Linear(2 * levels * width, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.dropout = dropout

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """V tensors [B, L, D] -> [B, L]; above 0 more likely abnormal than normal."""
        return self.judge(self.features(levels))

    def features(self, levels: Sequence[Tensor]) -> Tensor:
        """V tensors [B, L, D] -> [B, L, 2 * V * D], float32."""
        even = [F.layer_norm(level_BLD.float(), level_BLD.shape[-1:]) for level_BLD in levels]
        parts = [part for level_BLD in even for part in (level_BLD, level_BLD - level_BLD.mean(dim=1, keepdim=True))]
        return torch.cat(parts, dim=-1)

    def judge(self, values: Tensor) -> Tensor:
        """[..., 2 * V * D] of `features` -> [...]."""
        hidden = F.gelu(self.inner(F.dropout(values, self.dropout, self.training)))
        return self.outer(F.dropout(hidden, self.dropout, self.training)).squeeze(-1)


def token_loss(logits: Tensor, share: Tensor) -> Tensor:
    """Mean cross-entropy of tokens against the share of their place that is defective, doubled up to 1: a token half of
    which is defective counts as wholly so. Both of one shape."""
    return F.binary_cross_entropy_with_logits(logits, (2 * share).clamp(max=1))
