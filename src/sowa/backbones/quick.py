"""A vision transformer's blocks in fewer operations and in the precision of one's choice.

Beside the libraries' own forward: weights are cast and laid out for the processor once, each residual scale
(LayerScale) is multiplied into the weights before it, QuickGELU becomes SiLU between rescaled weights, activations are
computed inside the products where oneDNN can, and no block after the last one wanted is run. The residual stream, norms
and what comes out are float32. In float32 the results are the libraries' up to rounding.

B images, T tokens with the class token first, D token width.
"""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["QuickTower", "cast_copy", "quick_tower"]

QUICK_GELU = 1.702
"""x * sigmoid(1.702 x) = silu(1.702 x) / 1.702."""
ROWS_HINT = 2048
"""Rows of a typical product, by which oneDNN chooses how to lay weights out; any number of rows is right."""


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, stream: Tensor) -> Tensor:
        return F.layer_norm(stream, self.weight.shape, self.weight, self.bias, self.eps)


class _Linear(NamedTuple):
    """A product with its bias and activation; `weight` is oneDNN's own layout where `packed`."""

    weight: Tensor
    bias: Tensor
    activation: str
    packed: bool

    def __call__(self, values: Tensor) -> Tensor:
        if self.packed:
            word = {"silu": "swish"}.get(self.activation, self.activation)
            return torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, word, [], "none")
        out = F.linear(values, self.weight, self.bias)
        return ACTIVATIONS[self.activation](out)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "silu": lambda values: F.silu(values, inplace=True),
    "gelu": F.gelu,
}


class _Block(NamedTuple):
    norm_attention: _Norm
    qkv: _Linear
    out: _Linear
    norm_mlp: _Norm
    widen: _Linear
    narrow: _Linear
    heads: int


class QuickTower(NamedTuple):
    """`run` is all there is; made by `quick_tower`."""

    embed: Callable[[Tensor], Tensor]
    blocks: tuple[_Block, ...]
    norm: _Norm
    dtype: torch.dtype

    def run(self, pixels_B3HW: Tensor, indices: Sequence[int], *, to_end: bool) -> tuple[Tensor, list[Tensor]]:
        """(stream [B, T, D] after the last block that was run, that after each of `indices`), all float32.

        indices: ascending 0-based block numbers. to_end: run all blocks, else none after the last of `indices`.
        """
        wanted, taken = set(indices), []
        count = len(self.blocks) if to_end else max(wanted, default=-1) + 1
        stream = self.embed(pixels_B3HW.to(self.dtype)).float()
        for number, block in enumerate(self.blocks[:count]):
            stream = self._step(block, stream)
            if number in wanted:
                taken.append(stream)
        return stream, taken

    def embedded_by(self, visual: nn.Module) -> "QuickTower":
        """The same blocks behind the stem of another copy, such as one for another image size."""
        return self._replace(embed=_stem(visual))

    def _step(self, block: _Block, stream: Tensor) -> Tensor:
        qkv = block.qkv(block.norm_attention(stream).to(self.dtype))
        query, key, value = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        stream = stream + block.out(gathered)
        # In place: nobody holds this intermediate, and levels are taken after it.
        return stream.add_(block.narrow(block.widen(block.norm_mlp(stream).to(self.dtype))))


def quick_tower(visual: nn.Module, dtype: torch.dtype, *, embedded_by: nn.Module) -> QuickTower | None:
    """The blocks of open_clip's or timm's vision transformer; None where one has a part that is not known here.

    visual: in float32, nothing of it is changed. embedded_by: a copy in `dtype` whose stem turns pixels into tokens.
    """
    if hasattr(visual, "transformer"):
        parts, norm = [_open_clip_parts(block) for block in visual.transformer.resblocks], visual.ln_post
    else:
        parts, norm = [_timm_parts(block) for block in visual.blocks], visual.norm
    if any(part is None for part in parts) or not isinstance(norm, nn.LayerNorm):
        return None
    blocks = tuple(_packed_block(part, dtype) for part in parts)
    return QuickTower(_stem(embedded_by), blocks, _norm(norm), dtype)


def _stem(visual: nn.Module) -> Callable[[Tensor], Tensor]:
    if hasattr(visual, "transformer"):
        return visual._embeds
    return lambda pixels: visual.norm_pre(visual._pos_embed(visual.patch_embed(pixels)))


def cast_copy(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with all floating tensors in `dtype`; the module itself is not touched and never copied as a whole."""
    cast = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            values = tensor.detach().to(dtype)
            cast[id(tensor)] = nn.Parameter(values, requires_grad=False) if isinstance(tensor, nn.Parameter) else values
    return copy.deepcopy(module, cast)


class _Parts(NamedTuple):
    """A block as it is in its library."""

    norm_attention: nn.LayerNorm
    qkv: tuple[Tensor, Tensor | None]
    out: nn.Linear
    attention_scale: nn.Module
    norm_mlp: nn.LayerNorm
    widen: nn.Linear
    activation: nn.Module
    narrow: nn.Linear
    mlp_scale: nn.Module
    heads: int


def _open_clip_parts(block: nn.Module) -> _Parts | None:
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    if not isinstance(attention, nn.MultiheadAttention) or attention.in_proj_weight is None:
        return None
    if not isinstance(mlp, nn.Sequential) or [name for name, _ in mlp.named_children()] != ["c_fc", "gelu", "c_proj"]:
        return None
    return _known(
        _Parts(
            block.ln_1,
            (attention.in_proj_weight, attention.in_proj_bias),
            attention.out_proj,
            block.ls_1,
            block.ln_2,
            mlp.c_fc,
            mlp.gelu,
            mlp.c_proj,
            block.ls_2,
            attention.num_heads,
        )
    )


def _timm_parts(block: nn.Module) -> _Parts | None:
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    plain = (("q_norm", attention), ("k_norm", attention), ("norm", attention), ("norm", mlp))
    if any(not isinstance(getattr(owner, name, nn.Identity()), nn.Identity) for name, owner in plain):
        return None
    if getattr(attention, "gate", None) is not None or not all(hasattr(mlp, name) for name in ("fc1", "act", "fc2")):
        return None
    if not hasattr(attention, "qkv"):
        return None
    return _known(
        _Parts(
            block.norm1,
            (attention.qkv.weight, attention.qkv.bias),
            attention.proj,
            block.ls1,
            block.norm2,
            mlp.fc1,
            mlp.act,
            mlp.fc2,
            block.ls2,
            attention.num_heads,
        )
    )


def _known(parts: _Parts) -> _Parts | None:
    norms = all(isinstance(norm, nn.LayerNorm) for norm in (parts.norm_attention, parts.norm_mlp))
    scales = all(
        isinstance(scale, nn.Identity) or hasattr(scale, "gamma") for scale in (parts.attention_scale, parts.mlp_scale)
    )
    exact = isinstance(parts.activation, nn.GELU) and parts.activation.approximate == "none"
    return parts if norms and scales and (exact or type(parts.activation).__name__ == "QuickGELU") else None


def _packed_block(parts: _Parts, dtype: torch.dtype) -> _Block:
    quick = type(parts.activation).__name__ == "QuickGELU"
    gain = QUICK_GELU if quick else 1.0
    width = len(parts.norm_attention.weight)
    first, second = _scale(parts.attention_scale, width), _scale(parts.mlp_scale, width)
    return _Block(
        norm_attention=_norm(parts.norm_attention),
        qkv=_linear(*parts.qkv, dtype=dtype),
        out=_linear(parts.out.weight, parts.out.bias, rows=first, dtype=dtype),
        norm_mlp=_norm(parts.norm_mlp),
        widen=_linear(parts.widen.weight, parts.widen.bias, gain=gain, dtype=dtype, then="silu" if quick else "gelu"),
        narrow=_linear(parts.narrow.weight, parts.narrow.bias, rows=second, gain=1 / gain, bias_gain=1.0, dtype=dtype),
        heads=parts.heads,
    )


def _scale(module: nn.Module, width: int) -> Tensor | None:
    return module.gamma.detach().float() if hasattr(module, "gamma") else None


def _norm(norm: nn.LayerNorm) -> _Norm:
    return _Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)


def _linear(
    weight: Tensor,
    bias: Tensor | None,
    *,
    dtype: torch.dtype,
    rows: Tensor | None = None,
    gain: float = 1.0,
    bias_gain: float | None = None,
    then: str = "none",
) -> _Linear:
    """rows: factor of each output; gain: of all weights, and of the bias unless `bias_gain` says otherwise."""
    weight = weight.detach().float()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
    weight, bias = weight * gain, bias * (gain if bias_gain is None else bias_gain)
    if rows is not None:
        weight, bias = weight * rows[:, None], bias * rows
    weight, bias = weight.to(dtype), bias.to(dtype)
    if weight.device.type == "cpu" and _packs(dtype):
        return _Linear(torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT), bias, then, True)
    return _Linear(weight, bias, then, False)


@lru_cache(maxsize=4)
def _packs(dtype: torch.dtype) -> bool:
    """Whether this torch on this processor has products on weights laid out beforehand, and they are right.

    These operations are torch's own for its compiler and not a public promise: they are tried before they are used.
    """
    if dtype == torch.float16 or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    values, weight = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((32, 64), (48, 64)))
    bias = torch.zeros(48, dtype=dtype)
    try:
        with torch.no_grad():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
            for word, activation in (("none", "none"), ("swish", "silu"), ("gelu", "gelu")):
                found = torch.ops.mkldnn._linear_pointwise(values, packed, bias, word, [], "none")
                wanted = ACTIVATIONS[activation](F.linear(values.float(), weight.float(), bias.float()))
                if not torch.allclose(found.float(), wanted, rtol=0.02, atol=0.05):
                    return False
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return True
