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

    The second half is what makes it work on products it has not seen: what is unusual in an image is unlike the rest of
    the same image. Tokens of a level are put on one scale first (mean 0, variance 1 over the D values).
    """

    def __init__(self, *, width: int, levels: int, hidden: int, dropout: float = 0.1):
        super().__init__()
        self.inner = nn.Linear(2 * levels * width, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.dropout = dropout

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """V tensors [B, L, D] -> [B, L]; above 0 more likely abnormal than normal."""
        parts = []
        for level_BLD in levels:
            even_BLD = F.layer_norm(level_BLD.float(), level_BLD.shape[-1:])
            parts += [even_BLD, even_BLD - even_BLD.mean(dim=1, keepdim=True)]
        joined_BLN = F.dropout(torch.cat(parts, dim=-1), self.dropout, self.training)
        hidden_BLN = F.dropout(F.gelu(self.inner(joined_BLN)), self.dropout, self.training)
        return self.outer(hidden_BLN).squeeze(-1)


def token_loss(logits_BL: Tensor, share_BL: Tensor) -> Tensor:
    """Focal cross-entropy and dice of tokens against the share of their place that is defective, doubled up to 1: a
    token half of which is defective counts as wholly so."""
    truth_BL = (2 * share_BL).clamp(max=1)
    probability_BL = logits_BL.sigmoid()
    right_BL = probability_BL * truth_BL + (1 - probability_BL) * (1 - truth_BL)
    entropy_BL = F.binary_cross_entropy_with_logits(logits_BL, truth_BL, reduction="none")
    overlap = (probability_BL * truth_BL).sum()
    dice = 1 - (2 * overlap + 1) / (probability_BL.square().sum() + truth_BL.square().sum() + 1)
    return 4 * (entropy_BL * (1 - right_BL)).mean() + dice
