"""Gradients of convolutions and pools, as they are written for ONNX, against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.func import grad

from edgemeta.contracts import Learner, Support
from edgemeta.errors import BadBundle
from edgemeta.lowering import check, gradients, planes, to_onnx
from edgemeta.lowering.trace import trace
from edgemeta.nets.build import build
from edgemeta.types import Op

aten = torch.ops.aten
SHAPE = (4, 9, 7)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    channels=st.sampled_from([(4, 6, 1), (6, 6, 6), (4, 8, 2), (6, 12, 6), (3, 5, 1)]),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3, 5])),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    plane=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    small=st.sampled_from([0, planes.SMALL]),
)
def test_convolution(channels, kernel, stride, padding, dilation, plane, small):
    """Those of each channel alone are a product on small planes, and in rows on others: `small` is the bound."""
    cin, cout, groups = channels
    assume(all(p + 2 * pad >= d * (k - 1) + 1 for p, pad, d, k in zip(plane, padding, dilation, kernel, strict=True)))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, cin, *plane, dtype=torch.double, generator=rng)
    weight = torch.randn(cout, cin // groups, *kernel, dtype=torch.double, generator=rng)
    result = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    gradient = torch.randn(result.shape, dtype=torch.double, generator=rng)
    given = (gradient, x, weight, [cout], stride, padding, dilation, False, [0, 0], groups, [True] * 3)
    bias = torch.randn(cout, dtype=torch.double, generator=rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "SMALL", small)
        found = gradients.convolution_backward(*given)
        forward = gradients.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)
    for ours, theirs in zip(found, aten.convolution_backward(*given), strict=True):
        torch.testing.assert_close(ours, theirs)
    if forward is not NotImplemented:
        torch.testing.assert_close(forward, result + bias[:, None, None])


@given(
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    counted=st.booleans(),
)
def test_average_pool(kernel, stride, padding, counted):
    assume(all(2 * pad <= k for pad, k in zip(padding, kernel, strict=True)))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, *SHAPE, dtype=torch.double, generator=rng)
    result = F.avg_pool2d(x, kernel, stride, padding, count_include_pad=counted)
    given = (
        torch.randn(result.shape, dtype=torch.double, generator=rng),
        x,
        kernel,
        stride,
        padding,
        False,
        counted,
        None,
    )
    torch.testing.assert_close(gradients.avg_pool2d_backward(*given), aten.avg_pool2d_backward(*given))


@pytest.mark.parametrize("given", ["transposed", "ceil_mode", "divisor"])
def test_what_is_not_written_is_refused(given):
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 1, 1)
    with pytest.raises(BadBundle, match="no ONNX for"):
        if given == "transposed":
            gradients.convolution_backward(x, x, weight, None, [1], [0], [1], True, [0], 1, [True] * 3)
        else:
            ceil_mode, divisor = given == "ceil_mode", 3 if given == "divisor" else None
            gradients.avg_pool2d_backward(x, x, [2], [2], [0], ceil_mode, True, divisor)
    with pytest.raises(BadBundle, match="slice it"):
        gradients.as_strided(x, (2, 2), (1, 1))


POOLS = {
    "max of its own": lambda x: F.max_pool2d(x, 2),
    "max, halving": lambda x: F.max_pool2d(x[:, :, :8, :6], 2),
    "max, halving what a ReLU left": lambda x: F.max_pool2d(F.relu(x[:, :, :8, :6] - 1), 2),
    "max of what a ReLU left": lambda x: F.max_pool2d(F.relu(x - 1), 2),
    "ReLU": lambda x: F.relu(x - 1),
    "max, overlapping": lambda x: F.max_pool2d(x, 3, 1, 1),
    "max, overlapping and striding": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max, rows left over": lambda x: F.max_pool2d(x, (2, 3), (3, 3)),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average, padding counts": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "shuffled": lambda x: F.channel_shuffle(x, 2),
    "padded": lambda x: F.conv2d(x, torch.full((2, 4, 3, 3), 0.1), None, 2, 1),
    "transformed depthwise": lambda x: F.conv2d(x, torch.full((4, 1, 3, 3), 0.1), None, 1, 2, 2, 4),
}


@pytest.mark.parametrize("function", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_images_in_the_runtime(function, tied):
    """The gradient of a sum of squares with respect to the images; ties go where torch sends them."""

    def learner_of(images):
        net = build((Op("conv", SHAPE, (4, 9, 7)),))
        moved = grad(lambda x: (function(x) * function(x)).sum())

        def start(slow, support):
            return {"moved": moved(support.x) * support.onehot.sum(1)[:, None, None, None]}

        def predict(slow, fast, x):
            return x.flatten(1)[:, :2] + fast["moved"].sum()

        return Learner("pools", net, False, 1, lambda *, rng: {}, start, lambda slow, fast, support: fast, predict)

    rng = np.random.default_rng(0)
    learner = learner_of(SHAPE)
    adapt = to_onnx.adapt(trace(learner, {}), {})
    x = (
        rng.integers(0, 3, (5, *SHAPE)).astype(np.float32)
        if tied
        else rng.standard_normal((5, *SHAPE)).astype(np.float32)
    )
    onehot = np.eye(2, dtype=np.float32)[np.arange(5) % 2]
    feeds = {"x": x, "onehot": onehot, "steps": np.array(1)}
    (got,) = check.load("test", adapt.SerializeToString()).run(None, feeds)
    want = learner.start({}, Support(torch.from_numpy(x), torch.from_numpy(onehot)))["moved"].numpy()
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
