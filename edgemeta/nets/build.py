"""From operators to a functional torch network: one forward pass that reads the operator list."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Net, Params
from edgemeta.nets import matmul
from edgemeta.nets.matmul import BN_EPS, folded
from edgemeta.types import Op, Shape

BN_MOMENTUM = 0.1


def build(ops: Sequence[Op]) -> Net:
    """The network of an operator list; every convolution is followed by batch norm, which `fold` takes in again.

    Where parameters hold no running statistics, each batch is normalised by its own.
    """
    ops = tuple(ops)
    in_shape: Shape = ops[0].in_shape

    def init(*, rng: torch.Generator) -> Params:
        return _init(ops, rng)

    def body(params: Params, x: Tensor, train: bool = False) -> Tensor:
        values = [channels_last(x)]
        for i, op in enumerate(ops):
            values.append(_apply(i, op, params, [values[j + 1] for j in op.inputs], train))
        return values[-1].flatten(1)

    return Net(ops, in_shape, math.prod(ops[-1].out_shape), init, body, partial(matmul.body, ops))


def channels_last(x: Tensor) -> Tensor:
    """x (n, C, H, W) with the channels of a pixel side by side in memory, which convolutions are fastest on.

    One channel looks the same in either layout, and torch takes it for the other one: then so is all that follows, and
    every gradient is copied back and forth. Its strides are spelled out.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    x = x.contiguous()
    return x.as_strided(x.shape, (x.stride(0), 1, x.stride(2), 1))


def _init(ops: Sequence[Op], rng: torch.Generator) -> Params:
    """Kaiming-normal kernels (He 2015, arXiv:1502.01852), identity batch norm."""
    params: Params = {}
    for i, op in enumerate(ops):
        if op.kind != "conv":
            continue
        width, fan_in = op.out_shape[0], math.prod(op.weight_shape[1:])
        weight = torch.randn(op.weight_shape, generator=rng) * math.sqrt(2 / fan_in)
        params[f"{i}.weight"] = weight.contiguous(memory_format=torch.channels_last)
        params[f"{i}.gamma"], params[f"{i}.beta"] = torch.ones(width), torch.zeros(width)
        params[f"stat.{i}.mean"], params[f"stat.{i}.var"] = torch.zeros(width), torch.ones(width)
    return params


def _apply(i: int, op: Op, params: Params, inputs: list[Tensor], train: bool) -> Tensor:
    x = inputs[0]
    if op.kind in WITHOUT_WEIGHTS:
        return WITHOUT_WEIGHTS[op.kind](op, *inputs)
    if op.kind != "conv":
        raise ValueError(f"no forward pass for operator kind {op.kind!r}")
    statistics = params.get(f"stat.{i}.mean"), params.get(f"stat.{i}.var")
    own = train or statistics[0] is None
    weight, bias = (params[f"{i}.weight"], None) if own else folded(i, params)
    y = F.conv2d(x, weight, bias, op.steps, op.pads, op.dilation, op.groups)
    if own:
        y = F.batch_norm(y, *statistics, params[f"{i}.gamma"], params[f"{i}.beta"], True, BN_MOMENTUM, BN_EPS)
    return F.relu(y, inplace=True) if op.act == "relu" else y


def _pool_average(op: Op, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, op.window, op.steps, op.pads, count_include_pad=False)


# kind -> operator, inputs (n, C, H, W) -> output
WITHOUT_WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "maxpool": lambda op, x: F.max_pool2d(x, op.window, op.steps, op.pads),
    "avgpool": _pool_average,
    "gap": lambda op, x: x.mean((2, 3), keepdim=True),
    "add": lambda op, x, other: x + other,
    "concat": lambda op, *inputs: torch.cat(inputs, 1),
    "shuffle": lambda op, x: F.channel_shuffle(x, op.groups),
}


def forward(
    ops: Sequence[Op],
    weights: Mapping[str, Tensor],
    x: Tensor,
    after: Callable[[int, Tensor], Tensor] = lambda i, y: y,
) -> Tensor:
    """x (n, C, H, W) -> z (n, dim) with weights named as those of `fold`. What an operator gives, and before all others
    the input at position -1, is passed `after` it: to be rounded, say.
    """
    values = [after(-1, x)]
    for i, op in enumerate(ops):
        inputs = [values[j + 1] for j in op.inputs]
        if op.kind == "conv":
            weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
            y = F.conv2d(inputs[0], weight, bias, op.steps, op.pads, op.dilation, op.groups)
            y = F.relu(y) if op.act == "relu" else y
        else:
            y = WITHOUT_WEIGHTS[op.kind](op, *inputs)
        values.append(after(i, y))
    return values[-1].flatten(1)


def fold(ops: Sequence[Op], params: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Float32 {"<i>.weight": (out, in/groups, k, k), "<i>.bias": (out,)} with batch norm folded in."""
    folded = {}
    for i, op in enumerate(ops):
        if op.kind == "conv":
            weight, gamma, beta = (params[f"{i}.{name}"].detach().double() for name in ("weight", "gamma", "beta"))
            mean, var = (params[f"stat.{i}.{name}"].detach().double() for name in ("mean", "var"))
            scale = gamma / (var + BN_EPS).sqrt()
            folded[f"{i}.weight"] = (weight * scale[:, None, None, None]).float().contiguous().numpy()
            folded[f"{i}.bias"] = (beta - mean * scale).float().numpy()
    return folded
