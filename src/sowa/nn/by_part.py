"""A loss that is a sum over parts, with its gradient worked out part by part on the way forward.

What a part keeps for its backward pass lives until the next part begins, and no longer: the memory of a step is that of
its largest part, and what a part reads again is still in the processor's cache. The sum and its gradient are those of
all parts at once, up to the order of additions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["sum_by_part"]

Parts = Callable[[Sequence[Tensor]], "Sequence[Callable[[], Tensor]]"]


def sum_by_part(parts: Parts, leaves: Sequence[Tensor]) -> Tensor:
    """[T] terms, summed over the parts.

    parts: given the leaves in their order, the work to be done one after the other; each answers with its share of the
        terms [T] and may draw random numbers. It must read nothing else that requires a gradient, but for parameters
        among the leaves, which it may read where they are.
    leaves: tensors to which gradients flow.
    """
    if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)):
        return torch.stack([part() for part in parts(leaves)]).sum(dim=0)
    return _SumByPart.apply(parts, *leaves)


class _SumByPart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Parts, *leaves: Tensor) -> Tensor:
        ctx.parts, ctx.wanted = parts, [leaf.requires_grad for leaf in leaves]
        ctx.random = _random(leaves[0].device)
        ctx.context = _autocast(leaves[0].device.type)
        terms_T, gradients = _run(parts, leaves, ctx.wanted, None)
        # Not saved_tensors: these are no inputs or outputs, and the leaves themselves must not be held twice.
        ctx.save_for_backward(*leaves, *gradients)
        return terms_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights_T: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.wanted)
        leaves, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if bool((weights_T == weights_T[0]).all()):
            gradients = [gradient * weights_T[0] for gradient in gradients]
        else:  # terms that count differently: once more, with the same random numbers
            device = leaves[0].device
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ctx.context:
                _set_random(device, ctx.random)
                _, gradients = _run(ctx.parts, leaves, ctx.wanted, weights_T)
        flow = iter(gradients)
        return None, *(next(flow) if wanted else None for wanted in ctx.wanted)


def _run(
    parts: Parts, leaves: Sequence[Tensor], wanted: Sequence[bool], weights_T: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """(terms [T], gradients of their weighted sum with respect to the wanted leaves)."""
    with torch.enable_grad():
        # What a module holds is used as it is; what was computed before gets a beginning of its own.
        own = [leaf if leaf.is_leaf else leaf.detach().requires_grad_(leaf.requires_grad) for leaf in leaves]
        asked = [leaf for leaf, want in zip(own, wanted, strict=True) if want]
        total: Tensor | None = None
        sums: list[Tensor | None] = [None] * len(asked)
        for part in parts(own):
            terms_T = part()
            loss = terms_T.sum() if weights_T is None else (terms_T * weights_T).sum()
            with torch.autocast(loss.device.type, enabled=False):  # as of a step that goes backward after its forward
                found = torch.autograd.grad(loss, asked, allow_unused=True)
            sums = [_added(old, new) for old, new in zip(sums, found, strict=True)]
            total = terms_T.detach() if total is None else total + terms_T.detach()
    return total, [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(sums, asked, strict=True)]


def _added(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    return new if old is None else old if new is None else old + new


def _random(device: torch.device) -> tuple[Tensor, ...]:
    """State of the generators that parts draw from."""
    own = torch.get_rng_state()
    return (own, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (own,)


def _set_random(device: torch.device, states: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _autocast(device: str) -> torch.autocast:
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))
