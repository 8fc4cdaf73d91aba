"""Text features of plain sentences, in bounded memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sowa.backbones.base import Backbone

__all__ = ["encode_sentences"]

SENTENCES_AT_ONCE = 128


@torch.no_grad()
def encode_sentences(backbone: Backbone, sentences: Sequence[str]) -> Tensor:
    """[P, E] text features of P sentences, not normalised; no gradient, and usable in a later training step.

    The tower is causal and read at the end of the text, so what follows the longest text is not computed.
    """
    with torch.inference_mode(False):  # a caller in inference mode may keep the result for training
        ids_PT = backbone.tokenize(sentences)
        longest = int(ids_PT.argmax(dim=-1).max()) + 1 if len(ids_PT) else 1
        parts = ids_PT[:, :longest].split(SENTENCES_AT_ONCE)
        return torch.cat([backbone.encode_text(backbone.embed_tokens(ids), ids) for ids in parts])
