"""Fixed prompt ensembles: states x templates of a category, pooled to one prototype per state; what words weigh.

The lists are data of the papers; their order is that of the papers' code, since parity of token ids depends on it.
P prompts of a state, S states (0 normal, 1 abnormal), E joint width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sowa.errors import ConfigError, UnknownNameError
from sowa.nn.bank import unit

__all__ = ["ENSEMBLES", "SEMANTIC_WORDS", "Ensemble", "ensemble", "pool_prompts", "prototypes", "spaced", "text_share"]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Prompts of the two states: each state's phrases, with `{}` for the category, set into each template."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]

    def sentences(self, word: str) -> tuple[list[str], list[str]]:
        """(normal, abnormal) sentences of a category's word; state-major, then in the order of the templates."""
        return self._filled(self.normal, word), self._filled(self.abnormal, word)

    def _filled(self, states: Sequence[str], word: str) -> list[str]:
        # Replaced, not formatted: a category may hold braces of its own.
        phrases = [state.replace("{}", word) for state in states]
        return [template.replace("{}", phrase) for phrase in phrases for template in self.templates]


FLAWLESS = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)

ENSEMBLES: dict[str, Ensemble] = {
    # WinCLIP's paper; InCTRL uses the same.
    "winclip": Ensemble(
        normal=FLAWLESS,
        abnormal=("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
        templates=(
            "a cropped photo of the {}.",
            "a cropped photo of a {}.",
            "a close-up photo of a {}.",
            "a close-up photo of the {}.",
            "a bright photo of a {}.",
            "a bright photo of the {}.",
            "a dark photo of a {}.",
            "a dark photo of the {}.",
            "a jpeg corrupted photo of a {}.",
            "a jpeg corrupted photo of the {}.",
            "a blurry photo of the {}.",
            "a blurry photo of a {}.",
            "a photo of the {}.",
            "a photo of a {}.",
            "a photo of a small {}.",
            "a photo of the small {}.",
            "a photo of a large {}.",
            "a photo of the large {}.",
            "a photo of a {} for visual inspection.",
            "a photo of the {} for visual inspection.",
            "a photo of a {} for anomaly detection.",
            "a photo of the {} for anomaly detection.",
        ),
    ),
    # anomalib's WinCLIP: one template less, one twice.
    "anomalib": Ensemble(
        normal=FLAWLESS,
        abnormal=("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
        templates=(
            "a cropped photo of the {}.",
            "a close-up photo of a {}.",
            "a close-up photo of the {}.",
            "a bright photo of a {}.",
            "a bright photo of the {}.",
            "a dark photo of the {}.",
            "a dark photo of a {}.",
            "a jpeg corrupted photo of the {}.",
            "a jpeg corrupted photo of the {}.",
            "a blurry photo of the {}.",
            "a blurry photo of a {}.",
            "a photo of a {}.",
            "a photo of the {}.",
            "a photo of a small {}.",
            "a photo of the small {}.",
            "a photo of a large {}.",
            "a photo of the large {}.",
            "a photo of the {} for visual inspection.",
            "a photo of a {} for visual inspection.",
            "a photo of the {} for anomaly detection.",
            "a photo of a {} for anomaly detection.",
        ),
    ),
    "april_gan": Ensemble(
        normal=FLAWLESS,
        abnormal=("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
        templates=(
            "a bad photo of a {}.",
            "a low resolution photo of the {}.",
            "a bad photo of the {}.",
            "a cropped photo of the {}.",
            "a bright photo of a {}.",
            "a dark photo of the {}.",
            "a photo of my {}.",
            "a photo of the cool {}.",
            "a close-up photo of a {}.",
            "a black and white photo of the {}.",
            "a bright photo of the {}.",
            "a cropped photo of a {}.",
            "a jpeg corrupted photo of a {}.",
            "a blurry photo of the {}.",
            "a photo of the {}.",
            "a good photo of the {}.",
            "a photo of one {}.",
            "a close-up photo of the {}.",
            "a photo of a {}.",
            "a low resolution photo of a {}.",
            "a photo of a large {}.",
            "a blurry photo of a {}.",
            "a jpeg corrupted photo of the {}.",
            "a good photo of a {}.",
            "a photo of the small {}.",
            "a photo of the large {}.",
            "a black and white photo of a {}.",
            "a dark photo of a {}.",
            "a photo of a cool {}.",
            "a photo of a small {}.",
            "there is a {} in the scene.",
            "there is the {} in the scene.",
            "this is a {} in the scene.",
            "this is the {} in the scene.",
            "this is one {} in the scene.",
        ),
    ),
    # InCTRL's single pair for the categories in SEMANTIC_WORDS.
    "inctrl_semantic": Ensemble(
        normal=("of {}",), abnormal=("without {}",), templates=("a photo {} for anomaly detection.",)
    ),
}

SEMANTIC_WORDS = frozenset(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "animal")
)
"""Categories that are kinds of things rather than products: InCTRL words them with `inctrl_semantic`."""


def ensemble(name: str) -> Ensemble:
    """The ensemble of that name; `UnknownNameError` lists the names."""
    if name not in ENSEMBLES:
        raise UnknownNameError("prompt ensemble", got=name, known=ENSEMBLES)
    return ENSEMBLES[name]


def spaced(category: str) -> str:
    """The category as words: metal_nut -> metal nut."""
    return category.replace("_", " ")


def pool_prompts(features_PE: Tensor, *, norm_each: bool) -> Tensor:
    """[E] prototype of one state.

    norm_each: True: unit features, their mean at unit length (April-GAN, InCTRL). False: the plain mean, not of unit
    length, in which a prompt of larger norm weighs more (anomalib's WinCLIP).
    """
    return unit(unit(features_PE).mean(dim=0)) if norm_each else features_PE.mean(dim=0)


def prototypes(
    prompts: Ensemble, word: str, encode_text: Callable[[list[str]], Tensor], *, norm_each: bool = True
) -> Tensor:
    """[S, E]: row 0 normal, row 1 abnormal. `encode_text` turns P sentences into [P, E] features."""
    return torch.stack(
        [pool_prompts(encode_text(sentences), norm_each=norm_each) for sentences in prompts.sentences(word)]
    )


def text_share(weight: float | Literal["auto"], *, trained: bool) -> float:
    """Share 0..1 of the words where they are fused with a memory: as given, `auto` = 0.5, or 0 for untrained words."""
    if weight == "auto":
        return 0.5 if trained else 0.0
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
        raise ConfigError(f"text_weight={weight} cannot be used: give a share from 0 to 1, or auto")
    return float(weight)
