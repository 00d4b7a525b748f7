"""The torch net of an operator list: same answers as its ONNX twin, statistics that move, seeds that decide."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgemeta.latency.onnx_net import to_onnx
from edgemeta.nets.build import BN_MOMENTUM, build, fold
from edgemeta.space.presets import LANDMARKS, edge, tiny
from edgemeta.types import Op


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def warmed(net, seed: int) -> dict[str, torch.Tensor]:
    """Parameters as training leaves them: every scale, shift and statistic away from its first value."""
    rng = seeded(seed)
    params = net.init(rng=rng)
    for name, value in params.items():
        if name.endswith(".gamma"):
            value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
        elif name.endswith(".beta"):
            value.copy_(torch.randn(value.shape, generator=rng) * 0.3)
    with torch.no_grad():
        for _ in range(15):
            net.body(params, torch.rand((8, *net.in_shape), generator=rng), train=True)
    return params


def ort(model, x: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.numpy()})[0]


def architectures() -> Iterator:
    for seed in range(12):
        space = tiny((1 + seed % 3, 9 + seed % 5, 12))
        yield pytest.param(space, space.sample(rng=Random(seed)), id=f"tiny{seed}")
    for name, landmark in LANDMARKS.items():
        yield pytest.param(edge(), landmark(edge()), id=name)


ARCHITECTURES = list(architectures())


@pytest.mark.parametrize(("space", "arch"), ARCHITECTURES)
def test_folded_onnx_equals_torch(space, arch):
    net = build(space.ops(arch))
    params = warmed(net, 1)
    x = torch.rand((3, *net.in_shape), generator=seeded(2))
    with torch.no_grad():
        expected = net.body(params, x).numpy()
    assert expected.shape == (3, net.dim) and expected.std() > 1e-3
    np.testing.assert_allclose(ort(to_onnx(net.ops, fold(net.ops, params)), x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("space", "arch"), ARCHITECTURES)
def test_counted_macs_equal_those_torch_runs(space, arch):
    net = build(space.ops(arch))
    params = net.init(rng=seeded(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.body(params, torch.rand((1, *net.in_shape)))
    assert counter.get_total_flops() == 2 * sum(op.macs for op in net.ops)


def test_training_mode_moves_the_statistics_in_place(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    params = net.init(rng=seeded(0))
    before = {name: value.clone() for name, value in params.items()}
    x = torch.rand((8, *net.in_shape), generator=seeded(1)) + 1
    net.body(params, x, train=True)
    moved = {name for name in params if not torch.equal(params[name], before[name])}
    assert moved == {name for name in params if name.startswith("stat.")}
    stem = net.ops[0]
    first = torch.nn.functional.conv2d(x, before["0.weight"], stride=stem.stride, padding=stem.kernel // 2)
    torch.testing.assert_close(params["stat.0.mean"], BN_MOMENTUM * first.mean((0, 2, 3)))


def test_inference_mode_moves_nothing(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    params = net.init(rng=seeded(0))
    before = {name: value.clone() for name, value in params.items()}
    net.body(params, torch.rand((4, *net.in_shape), generator=seeded(1)))
    assert all(torch.equal(params[name], before[name]) for name in params)


def test_an_example_does_not_see_its_batch(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    params = warmed(net, 3)
    x = torch.rand((5, *net.in_shape), generator=seeded(1))
    alone = torch.cat([net.body(params, row[None]) for row in x])
    torch.testing.assert_close(net.body(params, x), alone, atol=1e-5, rtol=1e-5)


def test_the_generator_decides_the_weights(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    one, same, other = (net.init(rng=seeded(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_init_leaves_the_global_generator_alone(tiny, rng):
    before = torch.get_rng_state()
    build(tiny.ops(tiny.sample(rng=rng))).init(rng=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_reach_every_trained_parameter(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    params = net.init(rng=seeded(0))
    trained = [value.requires_grad_() for name, value in params.items() if not name.startswith("stat.")]
    z = net.body(params, torch.rand((6, *net.in_shape), generator=seeded(1)), train=True)
    gradients = torch.autograd.grad((z * torch.randn(z.shape, generator=seeded(2))).sum(), trained)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_fold_gives_one_weight_and_bias_per_convolution(tiny, rng):
    net = build(tiny.ops(tiny.sample(rng=rng)))
    folded = fold(net.ops, net.init(rng=seeded(0)))
    convolutions = [i for i, op in enumerate(net.ops) if op.kind == "conv"]
    assert set(folded) == {f"{i}.{name}" for i in convolutions for name in ("weight", "bias")}
    assert sum(value.nbytes for value in folded.values()) == sum(op.weight_bytes for op in net.ops)
    assert {value.dtype for value in folded.values()} == {np.dtype(np.float32)}


def test_an_unknown_kind_is_named():
    net = build([Op("warp", (1, 4, 4), (1, 4, 4))])
    with pytest.raises(ValueError, match="'warp'"):
        net.body(net.init(rng=seeded(0)), torch.zeros(1, 1, 4, 4))
