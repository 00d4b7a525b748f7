"""Which torch operators are taken apart before they become ONNX, and into what."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from edgemeta.lowering import gradients
from edgemeta.lowering.algebra import solve

aten = torch.ops.aten

# Not among torch's core decompositions, yet met in learners. Loss by index is the important one: exporters have
# lowered it to graphs that run and are wrong.
BORROWED = (
    aten.nll_loss_forward,
    aten.nll_loss_backward,
    aten.native_layer_norm,
    aten.native_layer_norm_backward,
    aten.native_group_norm,
    aten.native_group_norm_backward,
    aten.one_hot,
    aten.linalg_vector_norm,
    aten.gelu,
    aten.gelu_backward,
    aten.leaky_relu,
    aten.leaky_relu_backward,
)


def var_mean(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance, divided by the count less `correction` (1 where none is given), and mean."""
    over = dim or list(range(x.dim()))
    mean = x.mean(over, keepdim=True)
    count = math.prod(x.shape[d] for d in over)
    squares = ((x - mean) * (x - mean)).sum(over, keepdim=keepdim)
    return squares / (count - (1 if correction is None else correction)), x.mean(over, keepdim=keepdim)


def var(x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    return var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def eye(rows: int, columns: int | None = None, **kind: Any) -> Tensor:
    """Counted in int64: torch's own rule counts in the smallest type that does, which runtimes cannot compare."""
    columns = rows if columns is None else columns
    device = kind.get("device")
    same = torch.arange(rows, device=device)[:, None] == torch.arange(columns, device=device)
    return same.to(kind.get("dtype") or torch.get_default_dtype())


OWN: dict[object, Callable] = {
    aten.eye.default: eye,
    aten.eye.m: eye,
    aten.var_mean.correction: var_mean,
    aten.var.correction: var,
    aten.convolution.default: gradients.convolution,
    aten.convolution_backward.default: gradients.convolution_backward,
    aten.avg_pool2d_backward.default: gradients.avg_pool2d_backward,
    aten.as_strided.default: gradients.as_strided,
    aten.cholesky_solve.default: solve,
}
# For which `rules_images` has something better.
WHOLE = (aten.max_pool2d_with_indices_backward.default, aten.threshold_backward.default)


@lru_cache
def table() -> dict:
    """Operator -> decomposition, for `make_fx`."""
    every = {**core_aten_decompositions(), **get_decompositions(BORROWED), **OWN}
    return {target: parts for target, parts in every.items() if target not in WHOLE}
