"""The body as matrix products is the body: values, first and second derivatives, and over many weights at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from edgemeta.contracts import Net, Params
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.types import Op

LAYERS = [
    pytest.param(kind, down, kernel, id=f"{kind}-{down}-{kernel}")
    for kind in ("conv", "sep", "mb3", "mb6")
    for down in ("pool", "stride")
    for kernel in (3, 5)
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net_of(kind: str, down: str, kernel: int) -> Net:
    """Odd sizes, so that pools and strides leave something over; the second layer of a stage adds its input."""
    space = tiny((2, 11, 9))
    last = {"kind": kind, "down": down, "kernel": kernel, "depth": 2}
    return build(space.ops(space.arch([{"down": down, "kernel": kernel}, last])))


def params_of(net: Net, *, running: bool, seed: int = 0) -> Params:
    """In float64, everything away from its first value; without running statistics each batch has its own."""
    rng = seeded(seed)
    params = {}
    for name, value in net.init(rng=rng).items():
        noise = torch.rand(value.shape, generator=rng, dtype=torch.float64)
        params[name] = value.double() + noise - (0.0 if name.endswith(".var") else 0.5)
    return {name: value for name, value in params.items() if running or not name.startswith("stat.")}


def images(net: Net, n: int = 3, seed: int = 1) -> Tensor:
    return torch.rand((n, *net.in_shape), generator=seeded(seed), dtype=torch.float64)


def moving(params: Params) -> list[Tensor]:
    return [value.requires_grad_() for name, value in params.items() if not name.startswith("stat.")]


def derivatives(function, params: Params, x: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """First ones of a random mix of the features, and second ones along a random direction."""
    leaves = moving(params) + ([x.requires_grad_()] if x is not None else [])
    z = function()
    rng = seeded(5)
    mix = torch.randn(z.shape, generator=rng, dtype=z.dtype)
    first = torch.autograd.grad((z.tanh() * mix).sum(), leaves, create_graph=True)
    along = sum((g * torch.randn(g.shape, generator=rng, dtype=g.dtype)).sum() for g in first)
    return list(first), list(torch.autograd.grad(along, leaves))


def equal(got: list[Tensor], want: list[Tensor], digits: float = 1e-10) -> None:
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=digits, atol=digits * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("running", [True, False], ids=["running", "batch"])
@pytest.mark.parametrize(("kind", "down", "kernel"), LAYERS)
def test_same_values_and_derivatives(kind, down, kernel, running):
    net = net_of(kind, down, kernel)
    params, x = params_of(net, running=running), images(net)
    torch.testing.assert_close(net.products(params, x), net.body(params, x), rtol=1e-12, atol=1e-12)
    first, second = derivatives(lambda: net.products(params, x), params, x)
    first_of_body, second_of_body = derivatives(lambda: net.body(params, x), params, x)
    equal(first, first_of_body)
    equal(second, second_of_body)
    assert min(value.abs().max() for value in second) > 0


@pytest.mark.parametrize("running", [True, False], ids=["running", "batch"])
def test_blank_paper_has_the_same_derivatives(running):
    """Patches alike tie in a pool: torch follows the first of them, `products` all, and weights cannot tell."""
    net = net_of("conv", "pool", 3)
    params, x = params_of(net, running=running), images(net)
    params["0.beta"] = params["0.beta"] + 1.0  # above the ReLU, where ties count
    x[:, :, :, 3:] = 0.0
    tied = torch.nn.functional.unfold(x, 3, padding=1).movedim(1, 2).flatten(0, 1).unique(dim=0)
    assert len(tied) < 0.7 * 3 * 11 * 9
    results = [derivatives(lambda body=body: body(params, x), params, None) for body in (net.products, net.body)]
    for got, want in zip(*results, strict=True):
        equal(got, want)


@pytest.mark.parametrize("running", [True, False], ids=["running", "batch"])
@pytest.mark.parametrize("kind", ["conv", "mb3"])
def test_many_weights_at_once_as_one_by_one(kind, running):
    net = net_of(kind, "stride", 3)
    each = [params_of(net, running=running, seed=seed) for seed in range(3)]
    x = torch.stack([images(net, seed=seed) for seed in range(3)])
    stacked = {name: torch.stack([params[name] for params in each]) for name in each[0]}

    def loss(params: Params, x: Tensor) -> Tensor:
        return net.products(params, x).tanh().square().sum()

    def curvature(params: Params, x: Tensor) -> Params:
        return grad(lambda params: sum(value.square().sum() for value in grad(loss)(params, x).values()))(params)

    for function in (net.products, grad(loss), curvature):
        together = vmap(function)(stacked, x)
        alone = [function(params, own) for params, own in zip(each, x, strict=True)]
        if isinstance(together, Tensor):
            equal([together], [torch.stack(alone)])
        else:
            equal(list(together.values()), [torch.stack([found[name] for found in alone]) for name in together])


def test_one_batch_under_many_weights_and_the_other_way_round():
    net = net_of("sep", "pool", 3)
    each = [params_of(net, running=True, seed=seed) for seed in range(2)]
    stacked = {name: torch.stack([params[name] for params in each]) for name in each[0]}
    x = images(net)
    equal([vmap(net.products, (0, None))(stacked, x)], [torch.stack([net.body(params, x) for params in each])])
    parts = torch.stack([x, x.flip(0)])
    equal([vmap(net.products, (None, 0))(each[0], parts)], [torch.stack([net.body(each[0], part) for part in parts])])


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2},
        {"stride": 2, "groups": 4},
        {"groups": 4},
        {"kernel": 5, "stride": 2, "groups": 4},
        {"kernel": 3, "groups": 2},
        {"kernel": 3, "stride": 2, "dilation": 2},
        {"kernel": 5, "groups": 4, "dilation": 2},
        {"kernel": 5, "stride": 2, "flat": True},
    ],
    ids=str,
)
def test_other_convolutions(settings):
    """Shapes that few spaces have: pointwise with a stride, a depthwise stem, groups, dilation, series."""
    side = -(-5 // settings.get("stride", 1))
    op = Op("conv", (4, 5, 5), (4, 5 if settings.get("flat") else side, side), **settings)
    net = build((op,))
    params, x = params_of(net, running=True), images(net)
    results = [derivatives(lambda body=body: body(params, x), params, x) for body in (net.products, net.body)]
    for got, want in zip(*results, strict=True):
        equal(got, want)


def test_single_precision_stays_single():
    net = net_of("mb3", "pool", 3)
    params = {name: value.float() for name, value in params_of(net, running=True).items()}
    x = images(net).float()
    z = net.products(params, x)
    assert z.dtype == torch.float32 and z.shape == (3, math.prod(net.ops[-1].out_shape))
    torch.testing.assert_close(z, net.body(params, x), rtol=1e-4, atol=1e-5)


def test_what_has_no_products_is_named():
    with pytest.raises(ValueError, match="'warp'"):
        build((Op("warp", (1, 4, 4), (1, 4, 4)),)).products({}, torch.zeros(1, 1, 4, 4))
