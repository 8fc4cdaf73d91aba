"""The frozen text tower: CLIP's tokenizer and causal transformer, open to learnt embeddings."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from sowa.errors import ConfigError

__all__ = ["VOCABULARY", "TextTower"]

VOCABULARY = 49408
"""Number of token ids of CLIP's byte-pair encoding; the two largest open and close a text."""


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


class TextTower(nn.Module):
    """open_clip's text transformer behind three calls: `tokenize`, `embed`, `encode`."""

    def __init__(self, *, transformer: TextTransformer, fold_vocabulary: bool = False):
        """fold_vocabulary: a table with fewer rows than there are ids is read at `id % rows` (random towers only)."""
        super().__init__()
        self.tower, self.fold_vocabulary = transformer, fold_vocabulary
        self.width, self.context_length = transformer.width, transformer.context_length

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """[P, context_length] int64: start, tokens, end, zeros. ConfigError if a text does not fit."""
        if isinstance(texts, str):
            raise ConfigError(f"tokenize was given one string '{texts[:40]}': give a list of texts")
        words = _tokenizer()
        ids_PT = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(ids_PT, texts, strict=True):
            ids = [words.sot_token_id, *words.encode(text), words.eot_token_id]
            if len(ids) > self.context_length:
                raise ConfigError(
                    f"prompt '{text[:40]}...' has {len(ids)} tokens, at most {self.context_length} fit: shorten it"
                )
            row[: len(ids)] = torch.tensor(ids)
        return ids_PT

    def embed(self, token_ids: Tensor) -> Tensor:
        """[P, T] -> [P, T, W], without positions."""
        table = self.tower.token_embedding
        ids = token_ids.to(table.weight.device, torch.int64)
        return table(ids % table.num_embeddings if self.fold_vocabulary else ids)

    def encode(self, embeddings_PTW: Tensor, token_ids_PT: Tensor) -> Tensor:
        """[P, E], not normalised: positions, causal blocks, final norm, the row's largest id, text projection.

        Nobody looks ahead in a causal tower, so what lies behind the end of the longest row is left out: a short prompt
        costs a quarter of the 77 tokens of CLIP.
        """
        tower, count = self.tower, embeddings_PTW.shape[1]
        if count > self.context_length:
            raise ConfigError(f"prompts of {count} tokens were given, at most {self.context_length} fit")
        if len(token_ids_PT):
            count = int(token_ids_PT.argmax(dim=-1).max()) + 1
        hidden_PTW = embeddings_PTW[:, :count] + tower.positional_embedding[:count]
        hidden_PTW = tower.ln_final(tower.transformer(hidden_PTW, attn_mask=tower.attn_mask[:count, :count]))
        ends_P = token_ids_PT.to(hidden_PTW.device).argmax(dim=-1)
        rows_P = torch.arange(len(ends_P), device=hidden_PTW.device)
        return hidden_PTW[rows_P, ends_P] @ tower.text_projection
