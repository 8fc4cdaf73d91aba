"""DINOv2's plain vision transformers: timm's names, arithmetic and results, without timm.

Importing timm takes longer than all the rest of a first prediction (it brings torchvision and torch's compiler); the
offline default needs none of what it offers. Other architectures are timm's own (`sowa.backbones.vit`).

B images, T tokens with the class token first, D token width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PLAIN", "PlainVit", "Shape"]


class Shape(NamedTuple):
    width: int
    depth: int
    heads: int
    patch: int = 14
    trained_size: int = 518


PLAIN = {
    "vit_small_patch14_dinov2": Shape(width=384, depth=12, heads=6),
    "vit_base_patch14_dinov2": Shape(width=768, depth=12, heads=12),
    "vit_large_patch14_dinov2": Shape(width=1024, depth=24, heads=16),
}
"""timm's names of the architectures that are plain."""
EPSILON = 1e-6


class _PatchEmbed(nn.Module):
    def __init__(self, size: int, patch: int, width: int):
        super().__init__()
        self.img_size, self.patch_size = (size, size), (patch, patch)
        self.grid_size = (size // patch, size // patch)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        parts = self.qkv(tokens_BTD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(*parts.unbind(0))
        return self.proj(gathered.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(tokens_BTD)))


class _Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        return tokens_BTD * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, EPSILON), _Attention(width, heads), _Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, EPSILON), _Mlp(width), _Scale(width)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.ls1(self.attn(self.norm1(stream)))
        return stream + self.ls2(self.mlp(self.norm2(stream)))


class PlainVit(nn.Module):
    """What `VitBackbone` asks of timm's `VisionTransformer`, and no more; without weights until a state is loaded."""

    def __init__(self, shape: Shape, image_size: int):
        super().__init__()
        self.embed_dim = shape.width
        self.patch_embed = _PatchEmbed(image_size, shape.patch, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, shape.width))
        self.norm_pre = nn.Identity()
        self.blocks = nn.Sequential(*(_Block(shape.width, shape.heads) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width, EPSILON)

    def _pos_embed(self, patches_BLD: Tensor) -> Tensor:
        cls_B1D = self.cls_token.expand(patches_BLD.shape[0], -1, -1)
        return torch.cat((cls_B1D, patches_BLD), dim=1) + self.pos_embed

    def forward_intermediates(
        self,
        pixels: Tensor,
        *,
        indices: Sequence[int],
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NLC",
        return_prefix_tokens: bool = False,
        intermediates_only: bool = False,
    ):
        """As timm's, for ascending 0-based `indices` and tokens as [B, L, D] (`NLC`, the one format there is)."""
        stream, taken = self.norm_pre(self._pos_embed(self.patch_embed(pixels))), []
        blocks = self.blocks[: max(indices) + 1] if stop_early else self.blocks
        for number, block in enumerate(blocks):
            stream = block(stream)
            if number in indices:
                taken.append(self.norm(stream) if norm else stream)
        levels = [one[:, 1:] for one in taken]
        if return_prefix_tokens:
            levels = [(level, one[:, :1]) for level, one in zip(levels, taken, strict=True)]
        return levels if intermediates_only else (self.norm(stream), levels)
