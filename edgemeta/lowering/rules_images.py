"""Convolutions and pools in ONNX, beside the `rules` of what works on features."""

from __future__ import annotations

import operator
from typing import Any

import torch
from onnx import helper
from torch import fx

from edgemeta.errors import BadBundle
from edgemeta.lowering.gradients import AVERAGE, Ints, left, pair
from edgemeta.lowering.graph import Builder
from edgemeta.lowering.rules import Node, argument, dtype_of, rule

aten = torch.ops.aten
STEEP = 3e38  # times what is above 0 is above 1, but for numbers that float32 hardly holds


@rule(aten.convolution)
def _convolution(b: Builder, node: Node) -> str:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed:
        raise BadBundle("no ONNX for a transposed convolution in a network; use a convolution")
    inputs = [b.tensor(part) for part in (x, weight, bias) if part is not None]
    return b.add("Conv", *inputs, **_about(weight, stride, padding, dilation, groups))


@rule(torch.ops.edgemeta.transposed)
def _transposed(b: Builder, node: Node) -> str:
    x, weight, stride, padding, dilation, plane, groups = node.args
    over = left(x.meta["val"], weight.meta["val"], stride, padding, dilation, plane)
    about = _about(weight, stride, padding, dilation, groups)
    return b.add("ConvTranspose", b.tensor(x), b.tensor(weight), **about, output_padding=over)


def _about(weight: Node, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> dict[str, Any]:
    return {
        "kernel_shape": list(weight.meta["val"].shape[2:]),
        "strides": pair(stride),
        "pads": [*pair(padding), *pair(padding)],
        "dilations": pair(dilation),
        "group": groups,
    }


@rule(torch.ops.edgemeta.padded)
def _padded(b: Builder, node: Node) -> str:
    both = [0, 0, *node.args[1]]
    return b.add("Pad", b.tensor(node.args[0]), b.ints([*both, *both]))


def _window(node: Node) -> dict[str, Any]:
    """Kernel, strides and padding of a pool."""
    kernel = pair(node.args[1])
    stride = argument(node, 2, "stride") or kernel
    padding = pair(argument(node, 3, "padding", (0, 0)))
    return {"kernel_shape": kernel, "strides": pair(stride), "pads": [*padding, *padding]}


@rule(aten.max_pool2d_with_indices)
def _max_pool(b: Builder, node: Node) -> list[str]:
    """Values, and where they were: in ONNX a place in the whole tensor, which only the gradient's rule reads."""
    if any(size != 1 for size in argument(node, 4, "dilation", (1, 1))) or argument(node, 5, "ceil_mode", False):
        raise BadBundle("no ONNX for a max-pool that is dilated or rounds sizes up; leave the setting out")
    values = f"{b.prefix}.{len(b.nodes)}"
    places = f"{values}.places" if _taken(node, 1) else ""
    outputs = [values, places] if places else [values]
    inputs, name = [b.tensor(node.args[0])], f"{values}.MaxPool"
    b.nodes.append(helper.make_node("MaxPool", inputs, outputs, name=name, **_window(node)))
    return [values, places]


def _taken(node: fx.Node, position: int) -> bool:
    return any(user.target is operator.getitem and user.args[1] == position and user.users for user in node.users)


@rule(aten.max_pool2d_with_indices_backward)
def _max_pool_gradient(b: Builder, node: Node) -> str:
    """Each gradient goes where its maximum was; where windows overlap, they add up."""
    gradient, x, kernel, stride, *_, places = node.args
    shape = b.shape(x)
    if all(size <= step for size, step in zip(pair(kernel), pair(stride or kernel), strict=True)):
        about: dict[str, Any] = {"kernel_shape": pair(kernel), "strides": pair(stride or kernel)}
        return b.tell(b.add("MaxUnpool", b.tensor(gradient), b.tensor(places), shape, **about), node)
    flat = b.ints([-1])
    zeros = b.add("Expand", b.constant(0.0, dtype_of(node)), b.add("ReduceProd", shape, keepdims=1))
    rows, at = (b.add("Reshape", b.tensor(part), flat) for part in (gradient, places))
    return b.add("Reshape", b.add("ScatterElements", zeros, at, rows, axis=0, reduction="add"), shape)


@rule(aten.threshold_backward)
def _relu_gradient(b: Builder, node: Node) -> str:
    """A product with a mask: of six ways to write it the fastest in ONNX Runtime, a choice being twice as slow."""
    gradient, result, threshold = node.args
    if threshold:
        raise BadBundle("no ONNX for the gradient of a threshold that is not 0; use a ReLU")
    mask = b.add("HardSigmoid", b.tensor(result), alpha=STEEP, beta=0.0)
    return b.add("Mul", b.tensor(gradient), mask)


@rule(aten.avg_pool2d)
def _average_pool(b: Builder, node: Node) -> str:
    if argument(node, 4, "ceil_mode", False) or argument(node, 6, "divisor_override") is not None:
        raise BadBundle(AVERAGE)
    counted = int(argument(node, 5, "count_include_pad", True))
    return b.add("AveragePool", b.tensor(node.args[0]), **_window(node), count_include_pad=counted)
