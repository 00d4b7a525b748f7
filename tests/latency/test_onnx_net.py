from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from edgemeta.latency.measure import session
from edgemeta.latency.onnx_net import _POOL, _normals, random_weights, to_onnx
from edgemeta.nets.build import build, fold


@pytest.mark.parametrize("seed", range(4))
def test_the_timed_graph_is_the_torch_net(tiny, seed):
    ops = tiny.ops(tiny.sample(rng=Random(seed)))
    net = build(ops)
    params = net.init(rng=torch.Generator().manual_seed(seed))
    x = torch.randn(2, *tiny.in_shape, generator=torch.Generator().manual_seed(9))
    (z,) = session(to_onnx(ops, fold(ops, params)).SerializeToString()).run(None, {"x": x.numpy()})
    assert np.allclose(z, net.body(params, x).detach().numpy(), atol=1e-4)


def test_random_weights_are_repeatable_and_of_the_right_scale(tiny):
    ops = tiny.ops(tiny.arch([{"kind": "mb6", "depth": 2}, {"kind": "mb6", "depth": 2}]))
    first, again = random_weights(ops), random_weights(ops)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    kernels = [first[f"{i}.weight"] for i, op in enumerate(ops) if op.kind == "conv" and op.weight_bytes > 600]
    assert all(0.5 < kernel.std() / np.sqrt(2 / kernel[0].size) < 1.5 for kernel in kernels)
    assert not np.array_equal(kernels[0].ravel()[:8], kernels[-1].ravel()[:8])


def test_the_pool_wraps_around():
    wrapped = _normals(_POOL - 2, 5)
    assert np.array_equal(wrapped, np.concatenate([_normals(_POOL - 2, 2), _normals(0, 3)]))
    assert _normals(3, 2 * _POOL).shape == (2 * _POOL,)
