"""Every space can be built, and its bodies and their matrix products are one function."""

from __future__ import annotations

from random import Random

import pytest
import torch

from edgemeta.nets.build import build, fold
from edgemeta.space.presets import SPACES

SMALL = {"seq": (2, 1, 21), "nb201": (1, 9, 9), "fbnet": (2, 8, 8), "macro": (2, 8, 8)}


@pytest.fixture(params=sorted(SPACES))
def space(request):
    return SPACES[request.param](SMALL.get(request.param, (2, 11, 9)))


def test_bodies_and_products_agree(space):
    """Values, and the gradient by every parameter, in float64."""
    rng = Random(0)
    for seed in range(3):
        net = build(space.ops(space.sample(rng=rng)))
        params = {name: value.double() for name, value in net.init(rng=torch.Generator().manual_seed(seed)).items()}
        moving = [value.requires_grad_() for name, value in params.items() if not name.startswith("stat.")]
        x = torch.randn((2, *net.in_shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        results = []
        for body in (net.body, net.products):
            z = body(params, x)
            assert z.shape == (2, net.dim)
            results.append([z, *torch.autograd.grad(z.tanh().sum(), moving)])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_batch_trains_and_folds(space):
    net = build(space.ops(space.sample(rng=Random(1))))
    params = net.init(rng=torch.Generator().manual_seed(0))
    x = torch.randn((4, *net.in_shape), generator=torch.Generator().manual_seed(1))
    assert net.body(params, x, train=True).isfinite().all()
    assert sum(value.nbytes for value in fold(net.ops, params).values()) == sum(op.weight_bytes for op in net.ops)
