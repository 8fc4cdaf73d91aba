"""The contract of every frozen tower: images in, tokens of chosen blocks out; prompts in, text features out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sowa.backbones.precision import resolve_precision
from sowa.errors import ConfigError, DataError
from sowa.types import Tokens

if TYPE_CHECKING:
    from sowa.backbones.quick_int8 import Ranges
    from sowa.backbones.text import TextTower

__all__ = ["Backbone", "FrozenAttention", "spread_taps", "square_grid"]


class FrozenAttention(NamedTuple):
    """The attention weights of one block, shared with the backbone (not copied) and never trained."""

    in_weight: Tensor
    """[3D, D] query, key and value projections stacked in this order; their bias is not offered."""
    out_weight: Tensor
    """[D, D]"""
    out_bias: Tensor
    """[D]"""
    heads: int


def spread_taps(depth: int) -> tuple[int, ...]:
    """Four taps at the quarters of a tower, 1-based: 24 blocks -> (6, 12, 18, 24); fewer if there are fewer blocks."""
    return tuple(sorted({-(-depth * quarter // 4) for quarter in (1, 2, 3, 4)}))


def square_grid(image_size: int, patch: int) -> tuple[int, int]:
    """(rows, columns) of patches in a square image; ConfigError if they do not fill it."""
    if image_size < patch or image_size % patch:
        low = max(image_size // patch, 1) * patch
        raise ConfigError(
            f"image_size {image_size} cannot be cut into patches of {patch} pixels: use {low} or {low + patch}"
        )
    return image_size // patch, image_size // patch


class Backbone(nn.Module):
    """A frozen image tower with an optional text tower.

    Nothing in it requires a gradient and it is always in evaluation mode: `train()` does nothing here, so a detector
    may switch its own modes freely. Gradients do flow through it, to prompt embeddings for instance.

    A subclass implements `_run_blocks`, `project` and `block_attention`, and calls `freeze()` when it is complete.
    """

    mean: Tensor
    std: Tensor
    precision: str = "fp32"
    """What the image tower computes in: fp32, bf16, fp16 or int8. Its tokens are float32 in any case."""

    def __init__(
        self,
        *,
        name: str,
        image_size: int,
        patch: int,
        width: int,
        joint: int,
        depth: int,
        mean: Sequence[float],
        std: Sequence[float],
        text: "TextTower | None",
        text_trained: bool,
        weights_id: str,
        default_taps: Sequence[int] | None = None,
    ):
        """
        image_size: side of the square input in pixels, a multiple of `patch`.
        width, joint: D and E; depth: number of blocks; default_taps: 1-based, the quarters of the tower if None.
        mean, std: of the channels R, G, B on the scale 0..1, as the weights were trained.
        text_trained: False says that text features are those of random weights: zero-shot text scores mean nothing.
        weights_id: "sha256:..." of the weights, or "random:seed=...".
        """
        super().__init__()
        self.name, self.image_size, self.patch = name, image_size, patch
        self.grid = square_grid(image_size, patch)
        self.width, self.joint, self.depth = width, joint, depth
        self.default_taps = self._checked_taps(spread_taps(depth) if default_taps is None else default_taps)
        self.text = text
        self.text_width = text.width if text is not None else 0
        self.context_length = text.context_length if text is not None else 0
        self.text_trained, self.weights_id = text_trained, weights_id
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def freeze(self) -> None:
        """Stop all gradients into parameters and enter evaluation mode for good."""
        self.requires_grad_(False)
        nn.Module.train(self, False)

    def train(self, mode: bool = True) -> "Backbone":
        """Do nothing: a frozen tower has one mode."""
        return self

    def encode_image(self, images: Tensor, taps: Sequence[int], *, cls: bool = True) -> Tokens:
        """Tokens of the tapped blocks and the projected class token.

        images: [B, 3, image_size, image_size], uint8 in 0..255 or float in 0..1, RGB, not normalised; B may be 0.
        taps: 1-based block numbers, any order; levels come in the order given.
        cls: False leaves the class token out (`Tokens.cls` is [B, 0]), so that blocks after the last tap need not run.
        Levels are the raw residual stream after the block: class token dropped, no final norm, no projection.
        Raises ConfigError for a tap the tower does not have, DataError for images of another size or type.
        """
        taps = self._checked_taps(taps)
        pixels = self._normalised(images)
        if pixels.shape[0] == 0:  # the libraries' reshapes are ambiguous without a single image
            none_BLD = pixels.new_empty(0, self.grid[0] * self.grid[1], self.width)
            none_BE = pixels.new_empty(0, self.joint if cls else 0)
            return Tokens(cls=none_BE, levels=(none_BLD,) * len(taps), grid=self.grid)
        wanted = sorted(set(taps)) or [self.depth]
        if cls:
            cls_BE, levels = self._run_blocks(pixels, [tap - 1 for tap in wanted])
        else:
            cls_BE, levels = pixels.new_empty(pixels.shape[0], 0), self._run_levels(pixels, [tap - 1 for tap in wanted])
        found = dict(zip(wanted, levels, strict=True))
        return Tokens(cls=cls_BE, levels=tuple(found[tap] for tap in taps), grid=self.grid)

    def encode_normed(self, images: Tensor, taps: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """(class token [B, D], patch tokens [B, L, D]) of each tapped block after the tower's final norm.

        As `encode_image`, but nothing is projected, and blocks after the last tap are not run.
        """
        taps = self._checked_taps(taps)
        pixels = self._normalised(images)
        if pixels.shape[0] == 0:
            none = pixels.new_empty(0, self.width), pixels.new_empty(0, self.grid[0] * self.grid[1], self.width)
            return [none] * len(taps)
        wanted = sorted(set(taps))
        found = dict(zip(wanted, self._run_normed(pixels, [tap - 1 for tap in wanted]), strict=True))
        return [found[tap] for tap in taps]

    def at_size(self, image_size: int) -> "Backbone":
        """The same tower for another image size: weights are shared, trained positions are resampled."""
        raise ConfigError(f"backbone '{self.name}' has one image size: choose another backbone")

    def at_precision(self, precision: str) -> "Backbone":
        """The same image tower computing in `auto`, `fp32`, `bf16`, `fp16` or `int8` (`sowa.backbones.precision`):
        itself where that is what it does already, else another one beside it. Text, norms, the residual stream and all
        results stay float32. ConfigError for what the device cannot do, for int8 on a tower whose channels were not
        measured, or for making a lowered tower float32 again.
        """
        wanted = resolve_precision(precision, width=self._products, device=self.mean.device)
        if wanted == self.precision:
            return self
        if self.precision != "fp32":
            raise ConfigError(f"backbone '{self.name}' computes in {self.precision} already: take the original one")
        return self._in_bytes(self._byte_ranges()) if wanted == "int8" else self._lowered(wanted)

    @property
    def _products(self) -> int:
        """Width of the matrix products that decide whether halves pay; 0: they do not."""
        return self.width

    def _lowered(self, precision: str) -> "Backbone":
        raise ConfigError(f"backbone '{self.name}' computes in fp32 alone: choose precision=fp32")

    def _byte_ranges(self) -> "Ranges":
        if self.byte_tower is None:
            raise ConfigError(f"backbone '{self.name}' has no products of bytes: choose precision=auto or fp32")
        from sowa.backbones.ranges import known_ranges  # read where it is asked for, once

        ranges = known_ranges(self.byte_tower, self.weights_id)
        if ranges is None:
            raise ConfigError(
                f"precision=int8: the channels of backbone '{self.name}' were not measured; run sowa measure-int8"
                f" --backbone {self.name} once, or choose auto or bf16"
            )
        return ranges

    @property
    def byte_tower(self) -> nn.Module | None:
        """The library's transformer that int8 may be had on; None where there is none."""
        return None

    def _in_bytes(self, ranges: "Ranges") -> "Backbone":
        raise ConfigError(f"backbone '{self.name}' has no products of bytes: choose precision=auto or fp32")

    def project(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., E]: the tower's own projection into the joint space, without its final norm."""
        raise NotImplementedError

    def joint_matrix(self) -> Tensor | None:
        """[D, E] that `project` multiplies with; None where it does not multiply."""
        return None

    def block_attention(self, tap: int) -> FrozenAttention:
        """The attention weights of the block whose output `tap` reads."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """[P, context_length] int64 token ids of CLIP's byte-pair encoding; ConfigError if a text is too long."""
        return self._text_tower().tokenize(texts)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """[P, T] -> [P, T, text_width]: token embeddings alone, without positions."""
        return self._text_tower().embed(token_ids)

    def encode_text(self, embeddings_PTW: Tensor, token_ids_PT: Tensor) -> Tensor:
        """[P, E] text features, not normalised, read at the largest id of each row (the end of the text).

        Gradients flow to the embeddings, so learnt contexts may stand in for some of them.
        """
        return self._text_tower().encode(embeddings_PTW, token_ids_PT)

    def _run_blocks(self, pixels: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Normalised pixels, ascending 0-based block numbers -> cls [B, E], one [B, L, D] per block number."""
        raise NotImplementedError

    def _run_levels(self, pixels: Tensor, indices: list[int]) -> list[Tensor]:
        """As `_run_blocks` without cls; a tower that can stops after the last block."""
        return self._run_blocks(pixels, indices)[1]

    def _run_normed(self, pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Normalised pixels, ascending 0-based block numbers -> (cls, patches) of each after the final norm."""
        raise ConfigError(f"backbone '{self.name}' has no final norm for tokens: choose a transformer such as compact")

    def _text_tower(self) -> "TextTower":
        if self.text is None:
            raise ConfigError(f"backbone '{self.name}' was built without a text tower: prompts cannot be encoded")
        return self.text

    def _checked_taps(self, taps: Sequence[int]) -> tuple[int, ...]:
        taps = tuple(taps)
        for tap in taps:
            if isinstance(tap, bool) or not isinstance(tap, int) or not 1 <= tap <= self.depth:
                raise ConfigError(f"tap {tap!r} is not a block of backbone '{self.name}': choose from 1..{self.depth}")
        return taps

    def _normalised(self, images: Tensor) -> Tensor:
        size = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != size:
            raise DataError(
                f"backbone '{self.name}' was given images of shape {list(images.shape)}, "
                f"it takes [B, 3, {self.image_size}, {self.image_size}]: resize the images or set image_size"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise DataError(f"images are {images.dtype}: give uint8 in 0..255 or float in 0..1")
        # Divided, not multiplied by 1/255: then uint8 and the caller's own float pixels are the same numbers.
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.to(self.mean.dtype)
        return (pixels - self.mean) / self.std
