"""Learnable prompts: a few free token vectors before the fixed words of a normal and of a damaged object.

Source: SOWA section 4.3 (dual learnable prompts), after CoOp.
C categories, T templates of a state, P = C * T prompts of a state, n context tokens, W width of the text tower.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["LearntPrompts", "pool_states", "prompt_sentences"]

PLACEHOLDER = "X"  # one token in CLIP's vocabulary; its place is taken by a context vector


def prompt_sentences(categories: Sequence[str], templates: Sequence[str], context_length: int) -> list[str]:
    """Sentences of one state, category-major: n placeholders, the template with the category, a full stop."""
    prefix = " ".join([PLACEHOLDER] * context_length)
    return [f"{prefix} {template.format(category)}.".lstrip() for category in categories for template in templates]


class LearntPrompts(nn.Module):
    """Context vectors of one state, set between the start token and the words.

    `context` [C, T, n, W] is trained; the start token and the words keep the backbone's frozen embeddings.
    """

    def __init__(self, *, token_ids_CTN: Tensor, embeddings_CTNW: Tensor, context_length: int):
        super().__init__()
        width = embeddings_CTNW.shape[-1]
        self.context = nn.Parameter(torch.empty(*token_ids_CTN.shape[:2], context_length, width))
        nn.init.normal_(self.context, std=0.02)
        self.register_buffer("token_ids", token_ids_CTN, persistent=False)
        self.register_buffer("start", embeddings_CTNW[:, :, :1].detach().clone(), persistent=False)
        self.register_buffer("words", embeddings_CTNW[:, :, 1 + context_length :].detach().clone(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """([P, N, W] prompt embeddings, [P, N] token ids), category-major."""
        prompts = torch.cat((self.start, self.context, self.words), dim=2)
        return prompts.flatten(0, 1), self.token_ids.flatten(0, 1)


def pool_states(features_by_state: Sequence[Tensor], categories: int) -> Tensor:
    """[P_s, E] per state -> [C, S, E]: mean over a state's templates; states may have different numbers of them."""
    return torch.stack([features.unflatten(0, (categories, -1)).mean(dim=1) for features in features_by_state], dim=1)
