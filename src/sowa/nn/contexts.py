"""Learnt contexts that many sentences share, and the losses that fit them to normal images alone.

Source: PromptAD (CVPR 2024), equations 4 to 9, in the token order of its code. N sentences of a group, T tokens of a
sentence, W width of the text tower, E joint width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sowa.nn.bank import unit

__all__ = ["GroupFeatures", "SentenceGroups", "SharedContexts", "prompt_losses", "sentence_groups"]

NORMAL_PLACEHOLDER, ABNORMAL_PLACEHOLDER = "N", "A"
"""One token each in CLIP's vocabulary; context vectors take their places."""


class SentenceGroups(NamedTuple):
    """Sentences with placeholders, one list per group."""

    normal: list[str]
    """One per normal context: context, name."""
    manual: list[str]
    """One per template and normal context, template-major: context, template with the name."""
    learnt: list[str]
    """One per pair of contexts: normal context, abnormal context, name."""


class GroupFeatures(NamedTuple):
    """Text features [N, E] of the sentences of each group, not normalised."""

    normal: Tensor
    manual: Tensor
    learnt: Tensor

    def prototypes(self) -> Tensor:
        """[S, E] unit vectors: mean of the normal features; mean of all abnormal ones, manual and learnt."""
        abnormal = torch.cat((self.manual, self.learnt))
        return torch.stack((unit(self.normal.mean(dim=0)), unit(abnormal.mean(dim=0))))


def sentence_groups(
    name: str, templates: Sequence[str], *, normal: int, abnormal: int, length: int, abnormal_length: int
) -> SentenceGroups:
    """Sentences of a category for `normal` contexts of `length` tokens and `abnormal` ones of `abnormal_length`."""
    context = " ".join([NORMAL_PLACEHOLDER] * length)
    anomaly = " ".join([ABNORMAL_PLACEHOLDER] * abnormal_length)
    phrases = [template.replace("{}", name) for template in templates]
    return SentenceGroups(
        normal=[f"{context} {name}."] * normal,
        manual=[f"{context} {phrase}." for phrase in phrases for _ in range(normal)],
        learnt=[f"{context} {anomaly} {name}."] * (normal * abnormal),
    )


class SharedContexts(nn.Module):
    """Normal contexts [n, length, W] and abnormal ones [m, abnormal length, W] set into the sentences of three groups.

    Sentence i of a group takes normal context i mod n; in the learnt group also abnormal context i mod m, which makes
    all pairs where n and m have no common divisor. Nothing else is trained.
    """

    def __init__(
        self,
        *,
        token_ids: Sequence[Tensor],
        embeddings: Sequence[Tensor],
        normal: int,
        abnormal: int,
        length: int,
        abnormal_length: int,
        generator: torch.Generator,
        spread: float = 0.02,
    ):
        """
        token_ids, embeddings: [N, T] and [N, T, W] of each group in the order of `SentenceGroups`.
        generator (of the CPU), spread: draw the initial contexts.
        """
        super().__init__()
        width, device = embeddings[0].shape[-1], embeddings[0].device
        sizes = (normal, length, width), (abnormal, abnormal_length, width)
        drawn = (torch.randn(size, generator=generator) * spread for size in sizes)
        self.normal, self.abnormal = (nn.Parameter(contexts.to(device)) for contexts in drawn)
        self.counts = [len(ids) for ids in token_ids]
        self.register_buffer("token_ids", torch.cat(list(token_ids)), persistent=False)
        self.register_buffer("embeddings", torch.cat(list(embeddings)).detach().clone(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """([P, T, W] embeddings, [P, T] token ids) of all sentences, one group after the other."""
        groups = self.embeddings.split(self.counts)
        filled = [self._fill(group, with_abnormal=number == 2) for number, group in enumerate(groups)]
        return torch.cat(filled), self.token_ids

    def split(self, features_PE: Tensor) -> GroupFeatures:
        """Features of all sentences, in the order of `forward`, by group."""
        return GroupFeatures(*features_PE.split(self.counts))

    def _fill(self, sentences_NTW: Tensor, *, with_abnormal: bool) -> Tensor:
        place = torch.arange(len(sentences_NTW), device=sentences_NTW.device)
        parts = [sentences_NTW[:, :1], self.normal[place % len(self.normal)]]
        if with_abnormal:
            parts.append(self.abnormal[place % len(self.abnormal)])
        return torch.cat([*parts, sentences_NTW[:, sum(part.shape[1] for part in parts) :]], dim=1)


def prompt_losses(
    features: Tensor, text: GroupFeatures, *, scale: float, margin: float = 0.0, over_tokens: bool = False
) -> dict[str, Tensor]:
    """`contrast`, `margin` and `align` of unit features [K, E] of normal images or [K, L, E] of their tokens.

    contrast: cross-entropy of scale * cosine, the normal prototype against every single abnormal prompt.
    margin: mean relu(|f - normal|^2 - |f - abnormal|^2 + margin) against the two prototypes. `over_tokens` sums the
    squares of [K, L, E] over L instead of E, as the published code does.
    align: squared distance of the mean unit manual prompt and the mean unit learnt one.
    """
    normal_E, abnormal_E = text.prototypes()
    single_PE = unit(torch.cat((text.manual, text.learnt)))
    logits = scale * features.flatten(0, -2) @ torch.cat((normal_E[None], single_PE)).T
    axis = 1 if over_tokens else -1
    near, far = (((features - prototype_E) ** 2).sum(dim=axis) for prototype_E in (normal_E, abnormal_E))
    return {
        "contrast": F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long)),
        "margin": F.relu(near - far + margin).mean(),
        "align": ((unit(text.manual).mean(dim=0) - unit(text.learnt).mean(dim=0)) ** 2).sum(),
    }
