"""A long short-term memory cell in plain products, so that it runs under `vmap` and lowers to any runtime."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemeta.contracts import Params

State = tuple[Tensor, Tensor]  # hidden and cell, (..., size) each


def lstm_init(name: str, inputs: int, size: int, *, rng: torch.Generator) -> Params:
    """Weights of a cell of `size` units: uniform within 1 / sqrt(size), the forget gates' bias 1 (Jozefowicz 2015)."""
    bound = 1 / math.sqrt(size)
    bias = torch.zeros(4 * size)
    bias[size : 2 * size] = 1.0
    return {
        f"{name}.input": (torch.rand(inputs, 4 * size, generator=rng) * 2 - 1) * bound,
        f"{name}.hidden": (torch.rand(size, 4 * size, generator=rng) * 2 - 1) * bound,
        f"{name}.bias": bias,
    }


def lstm(params: Params, name: str, x: Tensor, state: State) -> State:
    """One step: x (..., inputs). Source: Hochreiter & Schmidhuber 1997 with forget gates (Gers 2000)."""
    hidden, cell = state
    gates = x @ params[f"{name}.input"] + hidden @ params[f"{name}.hidden"] + params[f"{name}.bias"]
    enter, keep, new, out = gates.chunk(4, -1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def zeros(like: Tensor, *shape: int) -> State:
    return like.new_zeros(*shape), like.new_zeros(*shape)
