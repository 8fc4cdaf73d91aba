"""The short way to a cosine behind a projection gives the values and gradients of the plain one."""

import pytest
import torch

from sowa.nn.bank import unit
from sowa.nn.cosine import projected_cosine


def plainly(tokens, prototypes, matrix, square):
    return torch.einsum("ble,bse->bsl", unit(tokens @ matrix), prototypes)


def drawn(dtype):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 7, 12, generator=generator, dtype=dtype).requires_grad_()
    prototypes = unit(torch.randn(3, 2, 5, generator=generator, dtype=dtype)).requires_grad_()
    matrix = torch.randn(12, 5, generator=generator, dtype=dtype)
    return tokens, prototypes, matrix, matrix @ matrix.T


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_values_and_gradients(dtype, close):
    given = drawn(dtype)
    found = []
    for way in (plainly, projected_cosine):
        cosine = way(*given)
        slope = torch.linspace(-1, 1, cosine.numel(), dtype=dtype).view_as(cosine)
        found.append((cosine.detach(), *torch.autograd.grad((cosine * slope).sum(), given[:2])))
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=close, atol=close)


def test_a_token_that_is_projected_to_nothing_counts_nothing():
    tokens, prototypes, matrix, square = drawn(torch.float64)
    with torch.no_grad():
        tokens[0, 0] = 0
    cosine = projected_cosine(tokens, prototypes, matrix, square)
    assert (cosine[0, :, 0] == 0).all()
    cosine.sum().backward()
    assert tokens.grad.isfinite().all()


def test_halves_for_the_products_alone():
    given = [one.detach().float() for one in drawn(torch.float32)]
    given[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosine = projected_cosine(*given)
    torch.testing.assert_close(cosine, plainly(*given), rtol=0.05, atol=0.05)
    cosine.sum().backward()
    assert given[0].grad.dtype == torch.float32
