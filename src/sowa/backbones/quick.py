"""A vision transformer's blocks in fewer operations and in the precision of one's choice.

Beside the libraries' own forward: weights are cast and laid out for the processor once, each residual scale
(LayerScale) is multiplied into the weights before it, QuickGELU becomes SiLU between rescaled weights, activations are
computed inside the products where oneDNN can, attention in bfloat16 is two products of matrices around a softmax, and
no block after the last one wanted is run. The residual stream, norms and what comes out are float32. In float32 the
results are the libraries' up to rounding.

B images, T tokens with the class token first, D token width.
"""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "Norm",
    "Parts",
    "Products",
    "QuickTower",
    "attended",
    "cast_copy",
    "folded",
    "library_parts",
    "linear_of",
    "norm_of",
    "quick_tower",
    "stem_of",
]

QUICK_GELU = 1.702
"""x * sigmoid(1.702 x) = silu(1.702 x) / 1.702."""
ROWS_HINT = 2048
"""Rows of a typical product, by which oneDNN chooses how to lay weights out; any number of rows is right."""
MOST_LOGITS = 3 * 2**19
"""Attention logits that are held at once, of a few heads or at least of one: they stay in the processor's cache."""


class Norm(NamedTuple):
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
    norm_attention: Norm
    qkv: _Linear
    out: _Linear
    norm_mlp: Norm
    widen: _Linear
    narrow: _Linear
    heads: int

    def __call__(self, stream: Tensor) -> Tensor:
        dtype = self.qkv.bias.dtype
        stream.add_(self.out(attended(self.qkv(self.norm_attention(stream).to(dtype)), self.heads)))
        return stream.add_(self.narrow(self.widen(self.norm_mlp(stream).to(dtype))))


class QuickTower(NamedTuple):
    """`run` is all there is; made by `quick_tower`, or by `sowa.backbones.quick_int8.int8_tower`."""

    embed: Callable[[Tensor], Tensor]
    blocks: tuple[Callable[[Tensor], Tensor], ...]
    """Each writes into the float32 stream [B, T, D] it is given, and returns it."""
    norm: Norm
    dtype: torch.dtype
    """Of what `embed` takes."""

    def run(self, pixels_B3HW: Tensor, indices: Sequence[int], *, to_end: bool) -> tuple[Tensor, list[Tensor]]:
        """(stream [B, T, D] after the last block that was run, that after each of `indices`), all float32.

        indices: ascending 0-based block numbers. to_end: run all blocks, else none after the last of `indices`.
        """
        wanted, taken = set(indices), []
        count = len(self.blocks) if to_end else max(wanted, default=-1) + 1
        stream = self.embed(pixels_B3HW.to(self.dtype)).float()
        for number, block in enumerate(self.blocks[:count]):
            stream = block(stream)
            if number in wanted:
                taken.append(stream if number + 1 == count else stream.clone())
        return stream, taken

    def embedded_by(self, visual: nn.Module) -> "QuickTower":
        """The same blocks behind the stem of another copy, such as one for another image size."""
        return self._replace(embed=stem_of(visual))


def attended(qkv_BTC: Tensor, heads: int) -> Tensor:
    """[B, T, D] values gathered by attention; qkv [B, T, 3D], its queries divided by the root of a head's width.

    Torch's own attention on a processor multiplies bfloat16 at a fraction of the rate of oneDNN's products. There the
    logits are made as a matrix, in bfloat16: the mean key is taken off first, which shifts all logits of a query by
    one number, leaves the softmax what it is, and keeps them small enough for eight bits.
    """
    if qkv_BTC.dtype != torch.bfloat16 or not _packs(qkv_BTC.dtype) or qkv_BTC.device.type != "cpu":
        query, key, value = _by_head(qkv_BTC, heads)
        return F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2).flatten(2)
    images, tokens, width = len(qkv_BTC), qkv_BTC.shape[1], qkv_BTC.shape[2] // 3
    held = max(1, MOST_LOGITS // tokens**2)
    group = max(1, min(images, held // heads))
    logits = qkv_BTC.new_empty(min(held, group * heads), tokens, tokens)
    out = qkv_BTC.new_empty(images, tokens, heads, width // heads)
    for start in range(0, images, group):
        stacked = torch.stack(_by_head(qkv_BTC[start : start + group], heads))
        query, key, value = stacked.flatten(1, 2)  # [images * heads, T, D / heads], each in one piece
        key -= key.mean(dim=1, keepdim=True)
        gathered = torch.empty_like(query)
        for first in range(0, len(query), len(logits)):
            own = slice(first, first + len(logits))
            weights = logits[: len(query[own])]
            torch.bmm(query[own], key[own].transpose(1, 2), out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            torch.bmm(weights, value[own], out=gathered[own])
        out[start : start + group] = gathered.unflatten(0, (-1, heads)).transpose(1, 2)
    return out.flatten(2)


def _by_head(qkv_BTC: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key, value, each [B, heads, T, D / heads]."""
    query, key, value = qkv_BTC.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def quick_tower(visual: nn.Module, dtype: torch.dtype, *, embedded_by: nn.Module) -> QuickTower | None:
    """The blocks of open_clip's or timm's vision transformer; None where one has a part that is not known here.

    visual: in float32, nothing of it is changed. embedded_by: a copy in `dtype` whose stem turns pixels into tokens.
    """
    found = library_parts(visual)
    if found is None:
        return None
    parts, norm = found
    return QuickTower(stem_of(embedded_by), tuple(_packed_block(part, dtype) for part in parts), norm, dtype)


def library_parts(visual: nn.Module) -> "tuple[list[Parts], Norm] | None":
    """The blocks and the final norm of open_clip's or timm's vision transformer; None where a part is not known."""
    if hasattr(visual, "transformer"):
        parts, norm = [_open_clip_parts(block) for block in visual.transformer.resblocks], visual.ln_post
    else:
        parts, norm = [_timm_parts(block) for block in visual.blocks], visual.norm
    known = [part for part in parts if part is not None]
    return (known, norm_of(norm)) if len(known) == len(parts) and isinstance(norm, nn.LayerNorm) else None


def stem_of(visual: nn.Module) -> Callable[[Tensor], Tensor]:
    """Normalised pixels to the stream before the first block."""
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


class Parts(NamedTuple):
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


def _open_clip_parts(block: nn.Module) -> Parts | None:
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    if not isinstance(attention, nn.MultiheadAttention) or attention.in_proj_weight is None:
        return None
    if not isinstance(mlp, nn.Sequential) or [name for name, _ in mlp.named_children()] != ["c_fc", "gelu", "c_proj"]:
        return None
    return _known(
        Parts(
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


def _timm_parts(block: nn.Module) -> Parts | None:
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    plain = (("q_norm", attention), ("k_norm", attention), ("norm", attention), ("norm", mlp))
    if any(not isinstance(getattr(owner, name, nn.Identity()), nn.Identity) for name, owner in plain):
        return None
    if getattr(attention, "gate", None) is not None or not all(hasattr(mlp, name) for name in ("fc1", "act", "fc2")):
        return None
    if not hasattr(attention, "qkv"):
        return None
    return _known(
        Parts(
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


def _known(parts: Parts) -> Parts | None:
    norms = all(isinstance(norm, nn.LayerNorm) for norm in (parts.norm_attention, parts.norm_mlp))
    scales = all(
        isinstance(scale, nn.Identity) or hasattr(scale, "gamma") for scale in (parts.attention_scale, parts.mlp_scale)
    )
    exact = isinstance(parts.activation, nn.GELU) and parts.activation.approximate == "none"
    return parts if norms and scales and (exact or type(parts.activation).__name__ == "QuickGELU") else None


class Products(NamedTuple):
    """Weight and bias of a block's four products in float32, with all that need not be computed multiplied in."""

    qkv: tuple[Tensor, Tensor]
    """Queries are divided by the root of a head's width."""
    out: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    activation: str
    """After `widen`: silu or gelu."""


def folded(parts: Parts) -> Products:
    """The same block in fewer operations: residual scales and QuickGELU's factor become part of the weights."""
    quick = type(parts.activation).__name__ == "QuickGELU"
    gain = QUICK_GELU if quick else 1.0
    width = len(parts.norm_attention.weight)
    ones = parts.norm_attention.weight.new_ones(width, dtype=torch.float32)
    first, second = (
        getattr(scale, "gamma", ones).detach().float() for scale in (parts.attention_scale, parts.mlp_scale)
    )
    root = torch.cat((ones * (width // parts.heads) ** -0.5, ones, ones))
    narrow, narrow_bias = _plain(parts.narrow.weight, parts.narrow.bias, second)
    widen, widen_bias = _plain(parts.widen.weight, parts.widen.bias)
    return Products(
        qkv=_plain(*parts.qkv, root),
        out=_plain(parts.out.weight, parts.out.bias, first),
        widen=(widen * gain, widen_bias * gain),
        narrow=(narrow / gain, narrow_bias),
        activation="silu" if quick else "gelu",
    )


def _plain(weight: Tensor, bias: Tensor | None, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both in float32, each output times its entry of `rows`."""
    weight = weight.detach().float()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
    return (weight, bias) if rows is None else (weight * rows[:, None], bias * rows)


def _packed_block(parts: Parts, dtype: torch.dtype) -> _Block:
    products = folded(parts)
    return _Block(
        norm_attention=norm_of(parts.norm_attention),
        qkv=linear_of(*products.qkv, dtype),
        out=linear_of(*products.out, dtype),
        norm_mlp=norm_of(parts.norm_mlp),
        widen=linear_of(*products.widen, dtype, then=products.activation),
        narrow=linear_of(*products.narrow, dtype),
        heads=parts.heads,
    )


def norm_of(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)


def linear_of(weight: Tensor, bias: Tensor, dtype: torch.dtype, *, then: str = "none") -> _Linear:
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
