"""Two towers under one name: a self-supervised one, whose tokens are remembered, and one that knows words."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sowa.backbones.base import Backbone, FrozenAttention
from sowa.types import Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from sowa.backbones.zoo import BackboneSpec

__all__ = ["MEMORY_MODEL", "PairBackbone", "build_pair"]

MEMORY_MODEL, MEMORY_HUB = "vit_large_patch14_dinov2", "timm/vit_large_patch14_dinov2.lvd142m"
MEMORY_SIZE = 448


class PairBackbone(Backbone):
    """To every method it is its memory tower, without text; a method that knows of the roles asks `language`.

    The language tower sees the same images, resized to its own size.
    """

    def __init__(self, *, name: str, memory: Backbone, language: Backbone):
        super().__init__(
            name=name,
            image_size=memory.image_size,
            patch=memory.patch,
            width=memory.width,
            joint=memory.joint,
            depth=memory.depth,
            mean=memory.mean.flatten().tolist(),
            std=memory.std.flatten().tolist(),
            text=None,
            text_trained=language.text_trained,
            weights_id=f"{memory.weights_id.partition(';')[0]};language={language.weights_id}",
            default_taps=memory.default_taps,
        )
        self.memory, self.language = memory, language
        self.freeze()

    def encode_language(self, images_B3HW: Tensor) -> Tokens:
        """What the language tower says of [B, 3, H, W] images (uint8 0..255 or float 0..1): its class token and the
        tokens of its last block, [B, L, D] after its final norm."""
        images = images_B3HW if images_B3HW.is_floating_point() else images_B3HW.float() / 255
        side = self.language.image_size
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
        images = images.clamp(0, 1)
        cls_BE = self.language.encode_image(images, ()).cls
        ((_, patches_BLD),) = self.language.encode_normed(images, (self.language.depth,))
        return Tokens(cls_BE, (patches_BLD,), self.language.grid)

    def at_size(self, image_size: int) -> "PairBackbone":
        other = PairBackbone(name=self.name, memory=self.memory.at_size(image_size), language=self.language)
        other.precision = self.precision
        return other

    def _lowered(self, precision: str) -> "PairBackbone":
        """The tower of the memory; the language's, which few images go through, stays in float32."""
        other = PairBackbone(name=self.name, memory=self.memory.at_precision(precision), language=self.language)
        other.precision = precision
        return other

    def project(self, tokens: Tensor) -> Tensor:
        return self.memory.project(tokens)

    def joint_matrix(self) -> Tensor | None:
        return self.memory.joint_matrix()

    def block_attention(self, tap: int) -> FrozenAttention:
        return self.memory.block_attention(tap)

    def _run_blocks(self, pixels: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
        return self.memory._run_blocks(pixels, indices)

    def _run_normed(self, pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return self.memory._run_normed(pixels, indices)


def build_pair(
    *,
    spec: "BackboneSpec",
    language: Backbone,
    image_size: int | None,
    drawn: bool,
    seed: int,
    cache_dir: "Path | None",
    offline: bool,
) -> PairBackbone:
    """DINOv2 ViT-L/14 beside a language tower that is built already; `drawn`: random weights, for dry runs."""
    from sowa.backbones.state import draw_state, read_weights
    from sowa.backbones.vit import empty_vit, vit_from_state
    from sowa.backbones.weights import find_published

    if drawn:
        empty = empty_vit(MEMORY_MODEL, spec.image_size or MEMORY_SIZE)
        state = draw_state({name: tuple(value.shape) for name, value in empty.state_dict().items()}, seed=seed)
        source = f"random:seed={seed}"
    else:
        path = find_published(
            name=MEMORY_MODEL,
            repository=MEMORY_HUB,
            files=("model.safetensors", "pytorch_model.bin"),
            cache_dir=cache_dir,
            offline=offline,
        )
        state, source = read_weights(path), str(path)
    memory = vit_from_state(
        state,
        model=MEMORY_MODEL,
        image_size=image_size or spec.image_size or MEMORY_SIZE,
        mean=spec.mean,
        std=spec.std,
        seed=seed,
        name=spec.model,
        source=source,
    )
    return PairBackbone(name="clip_dinov2", memory=memory, language=language)
