"""Parts one after the other give the sum and the gradients of all at once, and leave nothing behind."""

import pytest
import torch
from torch import nn

from sowa.nn.by_part import sum_by_part


def parts_of(layers, images, dropped=0.0):
    """Two terms of each layer on what the first leaf scales; as parts, and all at once."""

    def parts(own):
        def one(layer):
            values = nn.functional.dropout(layer(images * own[0]), dropped).tanh()
            return torch.stack((values.square().sum(), values.abs().sum()))

        return [lambda layer=layer: one(layer) for layer in layers]

    return parts


def drawn():
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(5, 4) for _ in range(3)).double()
    source = torch.rand(5, dtype=torch.float64, requires_grad=True)
    return layers, torch.randn(6, 5, dtype=torch.float64), source


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 2.0), (1.0, -0.5), (0.0, 3.0)])
@pytest.mark.parametrize("dropped", [0.0, 0.5])
def test_sum_and_gradients(weights, dropped):
    layers, images, source = drawn()
    weights = torch.tensor(weights, dtype=torch.float64)
    parts, wanted = parts_of(layers, images, dropped), [source, *layers.parameters()]
    results = []
    for at_once in (True, False):
        torch.manual_seed(1)
        scaled = source.sin()  # no leaf: a gradient has to go on from it
        leaves = [scaled, *layers.parameters()]
        terms = torch.stack([part() for part in parts(leaves)]).sum(dim=0) if at_once else sum_by_part(parts, leaves)
        after = torch.rand(3)  # random numbers are used up as if nothing were special
        results.append((terms.detach(), after, *torch.autograd.grad((terms * weights).sum(), wanted)))
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_nothing_is_left_behind_and_frozen_leaves_get_none():
    layers, images, source = drawn()
    layers[1].requires_grad_(False)
    terms = sum_by_part(parts_of(layers, images), [source, *layers.parameters()])
    assert all(one.grad is None for one in (source, *layers.parameters()))
    terms.sum().backward()
    assert [one.grad is None for one in layers.parameters()] == [False, False, True, True, False, False]


def test_without_gradients_it_is_a_sum():
    layers, images, source = drawn()
    with torch.no_grad():
        terms = sum_by_part(parts_of(layers, images), [source, *layers.parameters()])
    assert not terms.requires_grad and terms.shape == (2,)


def test_what_a_part_keeps_is_gone_before_the_next(monkeypatch):
    """The first part's tensors are freed while the second one runs."""
    import weakref

    kept = []

    def parts(own):
        def one():
            assert all(old() is None for old in kept)
            values = own[0].exp()
            kept.append(weakref.ref(values))
            return (values * values).sum()[None]

        return [one, one, one]

    weight = nn.Parameter(torch.ones(4))
    sum_by_part(parts, [weight]).sum().backward()
    assert len(kept) == 3 and weight.grad is not None


def test_halves_are_those_of_an_ordinary_step():
    """Forward under autocast, backward outside of it: the same bits as all at once."""
    layers, images, source = drawn()
    layers.float()
    images, source = images.float(), source.detach().float().requires_grad_()
    parts, found = parts_of(layers, images), []
    for at_once in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            leaves = [source.sin(), *layers.parameters()]
            terms = (
                torch.stack([part() for part in parts(leaves)]).sum(dim=0) if at_once else sum_by_part(parts, leaves)
            )
        found.append((terms.detach(), *torch.autograd.grad(terms.sum(), [source, *layers.parameters()])))
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-3)
    assert all(torch.equal(got, want) for got, want in zip(found[1][2:], found[0][2:], strict=True))
