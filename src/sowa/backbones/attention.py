"""Layers of a frozen tower that stay fast in bfloat16 on processors.

B images or texts, T tokens, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FrozenLinear", "SelfAttention", "with_frozen_layers", "with_self_attention"]


class FrozenLinear(nn.Linear):
    """A linear layer that autocast on a processor need not cast at every call: what is frozen is cast once."""

    def forward(self, tokens: Tensor) -> Tensor:
        lowered = tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not self.weight.requires_grad
        return F.linear(tokens, _cast_once(self, "weight") if lowered else self.weight, self.bias)


def _cast_once(layer: nn.Module, name: str) -> Tensor:
    """The layer's frozen weight in the type of autocast; made again when it has become another one."""
    weight, dtype = getattr(layer, name), torch.get_autocast_dtype("cpu")
    if weight.is_inference():  # does not tell when it changes
        return weight.to(dtype)
    kept = layer.__dict__.setdefault("_lowered", {})  # not a buffer: it is no state of the layer
    found = kept.get(name)
    if found is None or found[0] is not weight or found[1] != weight._version or found[2].dtype != dtype:
        with torch.no_grad():
            found = kept[name] = (weight, weight._version, weight.to(dtype))
    return found[2]


class SelfAttention(nn.MultiheadAttention):
    """The same weights and values; what is computed in bfloat16 on a processor never sees a transposed view.

    torch.nn hands its products the tokens with batch and place swapped. In bfloat16 on processors torch 2.14 multiplies
    such a view some 250 times as slowly as a copy of it (docs/performance/training.md).
    """

    once = False
    """Keep the frozen weights in the type of autocast, which takes half their memory once more."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """[B, T, D] -> ([B, T, D], None), as `torch.nn.MultiheadAttention`."""
        lowered = query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        plain = query is key is value and set(options) <= {"need_weights", "attn_mask"}
        if not (query.device.type == "cpu" and lowered and plain and not options.get("need_weights", True)):
            return super().forward(query, key, value, **options)
        frozen = torch.is_autocast_enabled("cpu") and not self.in_proj_weight.requires_grad and self.once
        weight = _cast_once(self, "in_proj_weight") if frozen else self.in_proj_weight
        heads = F.linear(query, weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        mask = options.get("attn_mask")
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(queries.dtype)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def with_self_attention(tower: nn.Module) -> nn.Module:
    """The same tower, its attention of this kind."""
    for part in tower.modules():
        if type(part) is nn.MultiheadAttention and part.batch_first and part.in_proj_weight is not None:
            part.__class__ = SelfAttention
    return tower


def with_frozen_layers(tower: nn.Module) -> nn.Module:
    """The same tower, its attention and its linear layers of these kinds: for a tower that many small steps read."""
    for part in with_self_attention(tower).modules():
        if isinstance(part, SelfAttention):
            part.once = True
        elif type(part) in (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear):
            part.__class__ = FrozenLinear
    return tower
