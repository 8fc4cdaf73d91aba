"""CachedBackbone: the same call as a backbone, tokens from disk where they were computed before.

An entry belongs to one image's pixels as they reach the tower, so mosaics and other changed pictures are entries of
their own and nothing has to be said about them. It also belongs to the taps, the weights, the preprocessing, and to the
very bits with which this tower, on this processor, in this precision, answers a fixed picture: whatever changes the
answer makes another key.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.token_store import PRECISIONS, TokenStore
from sowa.errors import ConfigError
from sowa.types import Tokens

__all__ = ["CachedBackbone"]

FORMAT = "1"


class CachedBackbone(nn.Module):
    """A backbone whose `encode_image` remembers; everything else is the tower's own.

    Images that are not in the store pass the tower one at a time: what is kept depends on the image alone and never on
    its neighbours in a batch (matrix products may round differently for other batch sizes), so that a run gives the
    same bits whether the store was empty, full or half full. With `store.precision` float16 fresh tokens are rounded as
    those from the disk are, for the same reason.
    """

    inner: Backbone

    def __init__(self, *, inner: Backbone, store: TokenStore):
        super().__init__()
        self.inner, self.store = inner, store
        self.hits, self.misses = 0, 0
        self._answers: dict[tuple[Any, ...], str] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def encode_image(self, images: Tensor, taps: Sequence[int], **options: Any) -> Tokens:
        """As `Backbone.encode_image`, whose own `options` are passed on."""
        taps = tuple(taps)
        plain = images.ndim == 4 and len(images) > 0 and not images.requires_grad
        if not plain or self.inner.mean.dtype != torch.float32:
            return self.inner.encode_image(images, taps, **options)
        own = self._own_key(images, taps, options)
        known: dict[str, Tokens] = {}
        order = []
        for row, pixels in enumerate(images.detach().cpu().contiguous()):
            key = hashlib.sha256(own + pixels.numpy().tobytes()).hexdigest()
            order.append(key)
            if key not in known:
                known[key] = self._tokens(key, images[row : row + 1], taps, options)
        joined = Tokens.join([known[key] for key in order])
        return Tokens(
            joined.cls.to(images.device), tuple(level.to(images.device) for level in joined.levels), joined.grid
        )

    def bytes_per_image(self, taps: Sequence[int]) -> int:
        """Bytes that the entry of one image takes on the disk, but for some hundreds."""
        numbers = self.inner.joint + len(tuple(taps)) * self.inner.grid[0] * self.inner.grid[1] * self.inner.width
        return numbers * PRECISIONS[self.store.precision].itemsize

    def at_size(self, image_size: int) -> "CachedBackbone":
        """The same tower for another image size, with the same store."""
        return CachedBackbone(inner=self.inner.at_size(image_size), store=self.store)

    def at_precision(self, precision: str) -> "CachedBackbone":
        """The same tower computing in other numbers, with the same store; itself where that changes nothing."""
        inner = self.inner.at_precision(precision)
        return self if inner is self.inner else CachedBackbone(inner=inner, store=self.store)

    def _tokens(self, key: str, image: Tensor, taps: tuple[int, ...], options: dict[str, Any]) -> Tokens:
        found = self.store.read(key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        fresh = self.inner.encode_image(image, taps, **options)
        self.store.write(key, fresh)
        return self.store.rounded(fresh)

    def _own_key(self, images: Tensor, taps: tuple[int, ...], options: dict[str, Any]) -> bytes:
        """What all images of this call share."""
        inner = self.inner
        one = torch.ones(1, 1, device=images.device)
        place = (images.device.type, (one @ one).dtype, *options.items())  # the type tells whether autocast is on
        if place not in self._answers:
            self._answers[place] = self._answer(images.device, options)
        about = {
            "format": FORMAT,
            "answer": self._answers[place],
            "weights": inner.weights_id,
            "name": inner.name,
            "image_size": inner.image_size,
            "mean": inner.mean.flatten().tolist(),
            "std": inner.std.flatten().tolist(),
            "taps": taps,
            "precision": self.store.precision,
            "pixels": str(images.dtype),
            "shape": list(images.shape[1:]),
            "options": options,
        }
        return json.dumps(about, sort_keys=True).encode()

    @torch.no_grad()
    def _answer(self, device: torch.device, options: dict[str, Any]) -> str:
        """Hash of the tower's tokens of a fixed picture."""
        side = self.inner.image_size
        picture = (torch.arange(3 * side * side) * 37 % 251).to(torch.uint8).view(1, 3, side, side)
        tokens = self.inner.encode_image(picture.to(device), (self.inner.depth,), **options)
        if type(tokens) is not Tokens:
            raise ConfigError(
                f"backbone '{self.inner.name}' has levels of several grids, which the token cache cannot hold: set"
                " token_cache.enabled=false"
            )
        digest = hashlib.sha256()
        for tensor in (tokens.cls, *tokens.levels):
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
