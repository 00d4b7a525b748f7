"""Which torch operators are taken apart before they become ONNX, and into what."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

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
    aten.eye,
)


def relu_backward(gradient: Tensor, result: Tensor, threshold: float) -> Tensor:
    """A product with a mask, two nodes where torch's own rule takes four."""
    return gradient * (result > threshold).to(gradient.dtype)


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


OWN: dict[object, Callable] = {
    aten.threshold_backward.default: relu_backward,
    aten.var_mean.correction: var_mean,
    aten.var.correction: var,
}


@lru_cache
def table() -> dict:
    """Operator -> decomposition, for `make_fx`.

    The next learners, which differentiate the body, add `convolution_backward` and the max-pool's backward to `OWN`.
    """
    return {**core_aten_decompositions(), **get_decompositions(BORROWED), **OWN}
