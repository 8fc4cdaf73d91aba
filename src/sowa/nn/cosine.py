"""Cosines of tokens that pass a frozen projection, at two thirds of the products of the plain way.

With P = x W the cosine to t is (x . W t) / sqrt(x G x), G = W W^T: one product with a matrix that never changes gives
the length of P, and the same product is the gradient of that length. The plain way multiplies with W forward and with
its transpose backward.

B images, L tokens, D token width, E joint width, S states.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["projected_cosine"]

SMALLEST = 1e-12
"""Least length, as in `sowa.nn.bank.unit`."""


def projected_cosine(tokens_BLD: Tensor, prototypes_BSE: Tensor, matrix_DE: Tensor, square_DD: Tensor) -> Tensor:
    """[B, S, L] cosine of the projected tokens with unit prototypes; gradients reach tokens and prototypes.

    matrix_DE: the projection, without gradient; square_DD: its product with its own transpose.
    """
    return _ProjectedCosine.apply(tokens_BLD, prototypes_BSE, matrix_DE, square_DD)


class _ProjectedCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, prototypes: Tensor, matrix: Tensor, square: Tensor) -> Tensor:
        directions_BSD = (prototypes @ matrix.T).to(tokens.dtype)
        lifted_BLD = tokens @ square
        length_BL = (tokens * lifted_BLD).sum(dim=-1).clamp(min=SMALLEST**2).sqrt()
        # In the tokens' own type, also where products are made in a half: the logits are these over a temperature.
        with torch.autocast(tokens.device.type, enabled=False):
            cosine_BSL = directions_BSD @ tokens.transpose(1, 2) / length_BL[:, None]
        ctx.save_for_backward(tokens, lifted_BLD, length_BL, cosine_BSL, directions_BSD, matrix)
        return cosine_BSL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSL: Tensor) -> tuple[Tensor | None, ...]:
        tokens, lifted_BLD, length_BL, cosine_BSL, directions_BSD, matrix = ctx.saved_tensors
        by_dot_BSL = gradient_BSL / length_BL[:, None]
        by_length_BL = (by_dot_BSL * cosine_BSL).sum(dim=1) / length_BL
        by_tokens = torch.baddbmm(lifted_BLD * -by_length_BL[..., None], by_dot_BSL.transpose(1, 2), directions_BSD)
        by_prototypes = (by_dot_BSL @ tokens) @ matrix.to(tokens.dtype) if ctx.needs_input_grad[1] else None
        return by_tokens, by_prototypes, None, None
