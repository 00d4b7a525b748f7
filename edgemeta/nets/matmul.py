"""A network's body as matrix products: for `vmap` over weights, and for derivatives of derivatives, on small batches.

Tasks that have each adapted their own weights cannot share a convolution: vmapped, it becomes a grouped one, which is
slower than one task after another. As patches times a matrix it becomes one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    if op.kind == "maxpool":
        return _pool(x, op.kernel)
    if op.kind == "add":
        return x + inputs[1]
    if op.kind == "gap":
        return x.mean((1, 2), keepdim=True)
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
    taps = op.kernel * op.kernel
    plain = op.kernel == 1 and op.stride == 1
    patches = x if plain else _Patches.apply(x, op.kernel, op.stride)
    n, height, width, _ = patches.shape
    if op.groups == 1:
        rows, out = patches.flatten(0, 2), weight.shape[0]
        if rows.shape[1] < out:  # some second derivative comes out transposed; so it is that of the smaller factor
            matrix = weight.permute(2, 3, 1, 0).reshape(-1, out).contiguous()
        else:
            matrix = weight.permute(0, 2, 3, 1).flatten(1).T
        y = rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)
        return y.view(n, height, width, -1)
    if op.groups != x.shape[3] or weight.shape[0] != op.groups:
        raise ValueError(f"no matrix form of a convolution of {op.groups} groups over {x.shape[3]} channels")
    y = (patches.view(n, height, width, taps, op.groups) * weight.permute(2, 3, 1, 0).reshape(taps, -1)).sum(3)
    return y if bias is None else y + bias


def _pool(x: Tensor, size: int) -> Tensor:
    n, height, width, channels = x.shape
    high, wide = height // size, width // size
    tiles = x[:, : high * size, : wide * size].reshape(n, high, size, wide, size, channels)
    return tiles.amax((2, 4))


class _Patches(torch.autograd.Function):
    """(n, H, W, C) -> (n, H', W', k * k * C), zero-padded by k // 2. It and its adjoint differentiate to each other."""

    @staticmethod
    def forward(x: Tensor, kernel: int, stride: int) -> Tensor:
        n, height, width, channels = x.shape
        pad = kernel // 2
        high, wide = (height + 2 * pad - kernel) // stride + 1, (width + 2 * pad - kernel) // stride + 1
        padded = F.pad(x, (0, 0, pad, pad, pad, pad))
        s = padded.stride()
        windows = padded.as_strided(
            (n, high, wide, kernel, kernel, channels), (s[0], s[1] * stride, s[2] * stride, s[1], s[2], s[3])
        )
        return windows.reshape(n, high, wide, kernel * kernel * channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.kernel, ctx.stride = inputs
        ctx.size = x.shape[1:3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Fold.apply(grad, ctx.kernel, ctx.stride, *ctx.size), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, kernel: int, stride: int) -> tuple[Tensor, int]:
        merged = x.movedim(in_dims[0], 0).flatten(0, 1)
        return _Patches.apply(merged, kernel, stride).unflatten(0, (info.batch_size, -1)), 0


class _Fold(torch.autograd.Function):
    """The adjoint of `_Patches`: (n, H', W', k * k * C) -> (n, H, W, C), overlapping values added up."""

    @staticmethod
    def forward(patches: Tensor, kernel: int, stride: int, height: int, width: int) -> Tensor:
        n, high, wide, depth = patches.shape
        channels, pad = depth // (kernel * kernel), kernel // 2
        out = patches.new_zeros(n, height + 2 * pad, width + 2 * pad, channels)
        image, row, column, _ = out.stride()
        for tap, own in enumerate(patches.split(channels, 3)):
            corner = tap // kernel * row + tap % kernel * column
            out.as_strided(own.shape, (image, row * stride, column * stride, 1), corner).add_(own)
        return out[:, pad : pad + height, pad : pad + width].contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.kernel, ctx.stride, _, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Patches.apply(grad, ctx.kernel, ctx.stride), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, patches: Tensor, *sizes: int) -> tuple[Tensor, int]:
        merged = patches.movedim(in_dims[0], 0).flatten(0, 1)
        return _Fold.apply(merged, *sizes).unflatten(0, (info.batch_size, -1)), 0
