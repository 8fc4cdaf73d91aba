"""The frozen text tower: CLIP's tokenizer and causal transformer, open to learnt embeddings."""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sowa.errors import ConfigError

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transformer import TextTransformer

__all__ = ["VOCABULARY", "LateTextTower", "TextTower"]

VOCABULARY = 49408
"""Number of token ids of CLIP's byte-pair encoding; the two largest open and close a text."""


@lru_cache(maxsize=1)
def _tokenizer() -> "SimpleTokenizer":
    from open_clip.tokenizer import SimpleTokenizer  # slow to load, and many a prediction reads no words

    return SimpleTokenizer()


class TextTower(nn.Module):
    """open_clip's text transformer behind three calls: `tokenize`, `embed`, `encode`."""

    def __init__(self, *, transformer: "TextTransformer", fold_vocabulary: bool = False):
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


class LateTextTower(TextTower):
    """A frozen text tower whose transformer is made when a text is first embedded or encoded."""

    def __init__(self, *, make: "Callable[[], TextTransformer]", width: int, context_length: int):
        """make: the transformer, always the same; `width` and `context_length` are its own. Called once at most."""
        nn.Module.__init__(self)
        self.make, self.fold_vocabulary, self.width, self.context_length = make, False, width, context_length
        self.register_buffer("place", torch.empty(0), persistent=False)  # moves with the module and says where to

    def __getattr__(self, name: str) -> object:
        if name == "tower":
            with _MAKING:
                if "tower" not in self._modules:
                    made = self.make().to(self.place.device)
                    self._modules["tower"] = made.requires_grad_(False).eval()
                return self._modules["tower"]
        return super().__getattr__(name)


_MAKING = threading.Lock()
