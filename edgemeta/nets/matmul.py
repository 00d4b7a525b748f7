"""A network's body as matrix products: for `vmap` over weights, and for derivatives of derivatives, on small batches.

Tasks that have each adapted their own weights cannot share a convolution: vmapped, it becomes a grouped one, which is
slower than one task after another. As patches times a matrix it becomes one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Params
from edgemeta.types import Op

BN_EPS = 1e-5


def body(ops: Sequence[Op], params: Params, x: Tensor) -> Tensor:
    """x (n, C, H, W) -> z (n, dim): the function of `build`, in inference mode.

    Where `params` holds no running statistics, each batch is normalised by its own, which is transductive.
    """
    values = [x.permute(0, 2, 3, 1)]
    for i, op in enumerate(ops):
        values.append(_apply(i, op, params, [values[j + 1] for j in op.inputs]))
    return values[-1].permute(0, 3, 1, 2).flatten(1)


def _apply(i: int, op: Op, params: Params, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if op.kind in WITHOUT_WEIGHTS:
        return WITHOUT_WEIGHTS[op.kind](op, *inputs)
    if op.kind != "conv":
        raise ValueError(f"no forward pass for operator kind {op.kind!r}")
    if f"stat.{i}.mean" not in params:
        y = _by_batch(i, op, x, params)
    elif params[f"{i}.weight"].numel() < len(x) * math.prod(op.out_shape):
        y = _conv(op, x, *folded(i, params))
    else:  # the results are fewer than the weights
        scale, shift = norm(i, params)
        y = torch.addcmul(shift, _conv(op, x, params[f"{i}.weight"], None), scale)
    return F.relu(y) if op.act == "relu" else y


def folded(i: int, params: Params) -> tuple[Tensor, Tensor]:
    """Weight and bias of convolution i with the batch norm after it, from running statistics, taken in.

    Gradients reach gamma and beta through them: no pass over the activations is spent on the norm.
    """
    scale, shift = norm(i, params)
    return params[f"{i}.weight"] * scale[:, None, None, None], shift


def norm(i: int, params: Params) -> tuple[Tensor, Tensor]:
    """The batch norm of convolution i as scale and shift of each channel, from running statistics."""
    scale = params[f"{i}.gamma"] * torch.rsqrt(params[f"stat.{i}.var"] + BN_EPS)
    return scale, params[f"{i}.beta"] - params[f"stat.{i}.mean"] * scale


def _by_batch(i: int, op: Op, x: Tensor, params: Params) -> Tensor:
    """Convolution i, normalised by the batch's own statistics."""
    y = _conv(op, x, params[f"{i}.weight"], None)
    centred = y - y.mean((0, 1, 2))
    scale = params[f"{i}.gamma"] * torch.rsqrt(centred.square().mean((0, 1, 2)) + BN_EPS)
    return torch.addcmul(params[f"{i}.beta"], centred, scale)


def _conv(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (n, H, W, in), weight (out, in / groups, k, k) -> (n, H', W', out)."""
    n = len(x)
    plain = op.window == op.steps == (1, 1)
    patches = x if plain else _Patches.apply(x, Window(op.window, op.steps, op.pads, op.dilation))
    _, height, width, depth = patches.shape
    if op.groups == 1:
        return _product(patches.flatten(0, 2), weight, bias).view(n, height, width, -1)
    split = op.in_shape[0] // op.groups, op.out_shape[0] // op.groups
    if split != (1, 1):
        return _grouped(patches, weight, bias, op.groups)
    rows = patches.view(n, height, width, depth // op.groups, op.groups)
    y = (rows * weight.permute(2, 3, 1, 0).reshape(-1, op.groups)).sum(3)
    return y if bias is None else y + bias


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows (m, taps * in) -> (m, out)

    Some second derivative comes out transposed, and what adds to it is slow: it is to be that of the smaller factor.
    """
    if rows.shape[1] < len(weight):
        matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()
    else:
        matrix = weight.permute(0, 2, 3, 1).flatten(1).T  # no copy: in memory, channels are last
    return rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)


def _grouped(patches: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """patches (n, H, W, taps * in), weight (out, in / groups, k, k) -> (n, H, W, out): one product for each group."""
    shape, taps = patches.shape[:3], math.prod(weight.shape[2:])
    rows = patches.reshape(-1, taps, groups, weight.shape[1]).permute(2, 0, 1, 3).flatten(2)  # (groups, m, taps * in)
    matrices = weight.unflatten(0, (groups, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (groups, taps * in, out)
    y = (rows @ matrices).permute(1, 0, 2).reshape(*shape, -1)
    return y if bias is None else y + bias


def _pool(op: Op, x: Tensor) -> Tensor:
    """Largest of each tile: tiles that do not overlap need no indices."""
    (high, wide), (n, height, width, channels) = op.window, x.shape
    if op.window != op.steps or op.pads != (0, 0):
        return _as_image(F.max_pool2d, x, op.window, op.steps, op.pads)
    rows, columns = height // high, width // wide
    tiles = x[:, : high * rows, : wide * columns].reshape(n, rows, high, columns, wide, channels)
    return tiles.amax((2, 4))


def _pool_average(op: Op, x: Tensor) -> Tensor:
    return _as_image(F.avg_pool2d, x, op.window, op.steps, op.pads, count_include_pad=False)


def _as_image(function: Callable[..., Tensor], x: Tensor, *settings: Any, **named: Any) -> Tensor:
    return function(x.permute(0, 3, 1, 2), *settings, **named).permute(0, 2, 3, 1)


def _shuffle(op: Op, x: Tensor) -> Tensor:
    return x.unflatten(3, (op.groups, -1)).transpose(3, 4).flatten(3)


# kind -> operator, inputs (n, H, W, C) -> output
WITHOUT_WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "maxpool": _pool,
    "avgpool": _pool_average,
    "gap": lambda op, x: x.mean((1, 2), keepdim=True),
    "add": lambda op, x, other: x + other,
    "concat": lambda op, *inputs: torch.cat(inputs, 3),
    "shuffle": _shuffle,
}


class Window(NamedTuple):
    """Where patches are cut: (height, width) of each."""

    size: tuple[int, int]
    steps: tuple[int, int]
    pads: tuple[int, int]
    dilation: int


class _Patches(torch.autograd.Function):
    """(n, H, W, C) -> (n, H', W', taps * C), zero-padded. It and its adjoint differentiate to each other."""

    @staticmethod
    def forward(x: Tensor, window: Window) -> Tensor:
        high, wide = window.pads
        padded = F.pad(x, (0, 0, wide, wide, high, high))
        n, *size, channels = padded.shape
        image, *line, channel = padded.stride()
        far = [window.dilation * (taps - 1) + 1 for taps in window.size]
        out = [(whole - reach) // step + 1 for whole, reach, step in zip(size, far, window.steps, strict=True)]
        along = [stride * step for stride, step in zip(line, window.steps, strict=True)]
        taps = [stride * window.dilation for stride in line]
        windows = padded.as_strided((n, *out, *window.size, channels), (image, *along, *taps, channel))
        return windows.reshape(n, *out, math.prod(window.size) * channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.size = x.shape[1:3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Fold.apply(grad, ctx.window, *ctx.size), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, window: Window) -> tuple[Tensor, int]:
        merged = x.movedim(in_dims[0], 0).flatten(0, 1)
        return _Patches.apply(merged, window).unflatten(0, (info.batch_size, -1)), 0


class _Fold(torch.autograd.Function):
    """The adjoint of `_Patches`: (n, H', W', taps * C) -> (n, H, W, C), overlapping values added up."""

    @staticmethod
    def forward(patches: Tensor, window: Window, height: int, width: int) -> Tensor:
        taps, (high, wide) = math.prod(window.size), window.pads
        channels = patches.shape[3] // taps
        out = patches.new_zeros(len(patches), height + 2 * high, width + 2 * wide, channels)
        image, row, column, _ = out.stride()
        strides = (image, row * window.steps[0], column * window.steps[1], 1)
        for tap, own in enumerate(patches.split(channels, 3)):
            down, right = divmod(tap, window.size[1])
            corner = window.dilation * (down * row + right * column)
            out.as_strided(own.shape, strides, corner).add_(own)
        return out[:, high : high + height, wide : wide + width].contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.window, _, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Patches.apply(grad, ctx.window), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, patches: Tensor, *settings: Any) -> tuple[Tensor, int]:
        merged = patches.movedim(in_dims[0], 0).flatten(0, 1)
        return _Fold.apply(merged, *settings).unflatten(0, (info.batch_size, -1)), 0
