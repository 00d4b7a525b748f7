"""Gradients of convolutions and pools from plainer operators: what learners that change the body need."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx

from edgemeta.errors import BadBundle
from edgemeta.lowering.planes import POINT, Planes, Window

aten = torch.ops.aten
PLANE = (2, 3)
AVERAGE = "no ONNX for an average pool that rounds sizes up or has its own divisor; leave the setting out"
Ints = Sequence[int]
FEW = 4  # channels


@torch.library.custom_op("edgemeta::transposed", mutates_args=())
def transposed_convolution(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], plane: list[int], groups: int
) -> Tensor:
    """The transposed convolution whose result has the height and width `plane`; torch's own cannot be recorded."""
    over = left(x, weight, stride, padding, dilation, plane)
    return aten.convolution(x, weight, None, stride, padding, dilation, True, over, groups)


@transposed_convolution.register_fake
def _(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, plane: list[int], groups: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1] * groups, *plane)


@torch.library.custom_op("edgemeta::padded", mutates_args=())
def padded(x: Tensor, padding: list[int]) -> Tensor:
    """Zeros on both sides of height and width; torch's own cannot be recorded for any number of images."""
    return aten.constant_pad_nd(x, [padding[1], padding[1], padding[0], padding[0]], 0.0)


@padded.register_fake
def _(x: Tensor, padding: list[int]) -> Tensor:
    n, channels, height, width = x.shape
    return x.new_empty(n, channels, height + 2 * padding[0], width + 2 * padding[1])


def left(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints, plane: Ints) -> list[int]:
    """Rows and columns at the far edges that the strides have left over."""
    over = []
    for i, size in enumerate(plane):
        window = dilation[i] * (weight.shape[2 + i] - 1) + 1
        over.append(size - ((x.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + window))
    return over


def pair(value: Ints) -> tuple[int, int]:
    """Torch writes one number for both sides of a plane."""
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a convolution's input (n, C, H, W), weight (O, C / groups, k, l) and bias (O,), where asked for."""
    if transposed:
        raise BadBundle("no ONNX for the gradient of a transposed convolution; use a convolution")
    window = Window(pair(weight.shape[2:]), pair(stride), pair(padding), pair(dilation))
    to_input, to_weight, to_bias = output_mask
    return (
        _input_gradient(gradient, x, weight, window, groups) if to_input else None,
        _weight_gradient(gradient, x, weight, window, groups) if to_weight else None,
        gradient.sum((0, *PLANE)) if to_bias else None,
    )


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    """As a product where that is faster, else as it is."""
    if transposed:
        return NotImplemented
    window = Window(pair(weight.shape[2:]), pair(stride), pair(padding), pair(dilation))
    planes = Planes.of(x, weight, window, groups)
    if planes is None:
        return NotImplemented
    y = planes.images(torch.bmm(planes.rows(x), planes.matrix(weight)), planes.after)
    return y if bias is None else y + bias[:, None, None]


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, window: Window, groups: int) -> Tensor:
    """A transposed convolution; of single pixels an ordinary one, which runtimes are faster at."""
    planes = Planes.of(x, weight, window, groups)
    if planes is not None:
        return planes.images(torch.bmm(planes.rows(gradient), planes.matrix(weight).transpose(1, 2)), planes.before)
    if groups == 1 and window == POINT:
        return aten.convolution(gradient, weight.transpose(0, 1), None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    back = (window.steps, window.pads, window.spread, list(x.shape[2:]), groups)
    return transposed_convolution(gradient, weight, *back)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, window: Window, groups: int) -> Tensor:
    """Sums over images and places of the gradient times what each tap of the kernel saw."""
    planes = Planes.of(x, weight, window, groups)
    if planes is not None:
        return planes.of_taps(torch.bmm(planes.rows(x).transpose(1, 2), planes.rows(gradient)), weight)
    if any(window.pads):
        x = padded(x, window.pads)
    out, per_group = weight.shape[:2]
    if per_group == 1 and out == groups:
        return _of_rows(gradient, x, window).reshape(weight.shape)
    taps = [_seen(x, at, gradient.shape[2:], window) for at in product(*map(range, window.size))]
    n, places = gradient.shape[0], math.prod(gradient.shape[2:])
    if groups == 1 and per_group <= FEW:  # one long product: for each tap alone there would be little to multiply
        rows = torch.cat([tap.transpose(0, 1).reshape(per_group, n * places) for tap in taps])
        whole = gradient.transpose(0, 1).reshape(out, n * places) @ rows.T
        return whole.reshape(out, len(taps), per_group).transpose(1, 2).reshape(weight.shape)
    of = gradient.reshape(n * groups, out // groups, places)
    each = [torch.bmm(of, tap.reshape(n * groups, per_group, places).transpose(1, 2)) for tap in taps]
    return torch.stack([one.reshape(n, out, per_group).sum(0) for one in each], -1).reshape(weight.shape)


def _of_rows(gradient: Tensor, x: Tensor, window: Window) -> Tensor:
    """(C, k, l) of a convolution of each channel alone: for each row of the kernel, products of all columns of the
    images with all columns of the gradient, of which those count that lie as far apart as a tap is.

    More is multiplied than need be, but memory is read once for a row of taps, which is what takes the time.
    """
    n, channels, height, width = gradient.shape
    wide, (rows, taps) = x.shape[3], window.size
    x, of = x.transpose(0, 1), gradient.transpose(0, 1).reshape(channels, n * height, width)
    column, place, tap = (
        torch.arange(wide),
        torch.arange(width) * window.steps[1],
        torch.arange(taps) * window.spread[1],
    )
    counts = (column[:, None, None] == place[:, None] + tap).to(gradient.dtype).reshape(wide * width, taps)
    found = []
    for row in range(rows):
        first = row * window.spread[0]
        own = x[:, :, first : first + (height - 1) * window.steps[0] + 1 : window.steps[0]]
        both = torch.bmm(own.reshape(channels, n * height, wide).transpose(1, 2), of)
        found.append(both.reshape(channels, wide * width) @ counts)
    return torch.stack(found, 1)


def _seen(x: Tensor, at: Ints, plane: Ints, window: Window) -> Tensor:
    """What a tap of the kernel saw of padded images: (n, C, *plane)."""
    if window.size == window.steps == (1, 1):
        return x
    sides = zip(at, plane, window.steps, window.spread, strict=True)
    rows, columns = (slice(i * apart, i * apart + (size - 1) * step + 1, step) for i, size, step, apart in sides)
    return x[:, :, rows, columns]


def mask_before_unpool(graph: fx.Graph) -> None:
    """Where a max-pool follows a ReLU, mask the gradient before it is spread out, not after: there is less of it.

    What arrives at a maximum passes the ReLU where the maximum is above 0, and nothing arrives elsewhere.
    """
    for masked in graph.find_nodes(op="call_function", target=aten.threshold_backward.default):
        spread, result, threshold = masked.args
        if spread.target is not aten.max_pool2d_with_indices_backward.default or spread.args[1] is not result:
            continue
        gradient, *others, places = spread.args
        pool = places.args[0]
        with graph.inserting_before(spread):
            most = graph.call_function(operator.getitem, (pool, 0))
            few = graph.call_function(masked.target, (gradient, most, threshold))
        most.meta["val"], few.meta["val"] = pool.meta["val"][0], gradient.meta["val"]
        spread.args = (few, *others, places)
        masked.replace_all_uses_with(spread)
        graph.erase_node(masked)


def avg_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """A transposed convolution with ones, each gradient divided by how many values its window held."""
    if ceil_mode or divisor_override is not None:
        raise BadBundle(AVERAGE)
    size, steps, pads = pair(kernel), pair(stride or kernel), pair(padding)
    channels, *plane = x.shape[1:]
    ones = gradient.new_ones(channels, 1, *size)
    if count_include_pad:
        gradient = gradient / (size[0] * size[1])
    else:
        held = aten.convolution(x.new_ones(1, 1, *plane), ones[:1], None, steps, pads, (1, 1), False, (0, 0), 1)
        gradient = gradient / held
    return transposed_convolution(gradient, ones, steps, pads, (1, 1), plane, channels)


def as_strided(x: Tensor, size: Ints, stride: Ints, offset: int | None = None) -> Tensor:
    """Strides that only say how a tensor lies in memory (`nets.build.channels_last`): ONNX has one layout."""
    if tuple(size) != tuple(x.shape) or offset:
        raise BadBundle("no ONNX for as_strided that takes something out of a tensor; slice it")
    return x.clone()
