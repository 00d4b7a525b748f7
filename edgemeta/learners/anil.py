"""ANIL: MAML whose inner loop trains the last layer only."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import grad
from torch.nn.functional import layer_norm

from edgemeta.contracts import Fast, Learner, Net, Params, Support


def cross_entropy(logits: Tensor, onehot: Tensor) -> Tensor:
    """Mean cross-entropy of logits (n, way) against one-hot rows; rows of zeros are padding and count nothing.

    Written with products instead of an index, so its gradient lowers to ONNX without Gather or Scatter.
    """
    return -(onehot * torch.log_softmax(logits, 1)).sum() / onehot.sum()


def anil(*, steps: int = 5, lr: float = 0.02) -> Learner:
    """Almost No Inner Loop (Raghu 2020, arXiv:1909.09157): features are reused, the linear head is adapted.

    slow: the body, `head.row` (d,) and `head.log_lr` (). fast: `weight` (way, d), `bias` (way,) and `done` (1,), the
    number of steps taken.

    Departures. Every class starts from the same learned row, so any number of ways can be adapted and their order
    does not matter (Ye & Chao 2022, arXiv:2106.12637). The inner rate is one learned number, multiplied by the number
    of ways: a class's row then moves as far in a 20-way task as in a 5-way one, and training with many ways carries
    over. It falls as 1 / (1 + done) (Robbins & Monro 1951): at a constant rate the steps overshoot where the support
    has more shots, or another domain, than the training had. Features are layer-normalised first, without parameters
    (Ba 2016, arXiv:1607.06450): after a ReLU they are all positive, and the steps would be spent on their common mean.
    """

    def init(net: Net, *, rng: torch.Generator) -> Params:
        return {**net.init(rng=rng), "head.row": torch.zeros(net.dim), "head.log_lr": torch.tensor(math.log(lr))}

    def start(slow: Params, support: Support) -> Fast:
        way, zeros = support.onehot.shape[1], support.x.new_zeros
        return {"weight": slow["head.row"][None].repeat(way, 1), "bias": zeros(way), "done": zeros(1)}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """One gradient step on the support's cross-entropy. Source: eq. 1."""
        head = {name: fast[name] for name in ("weight", "bias")}
        gradient = grad(lambda head: cross_entropy(predict(slow, head, support.x), support.onehot))(head)
        rate = slow["head.log_lr"].exp() * support.onehot.shape[1] / (1 + fast["done"])
        return {name: value - rate * gradient[name] for name, value in head.items()} | {"done": fast["done"] + 1}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way)."""
        return layer_norm(x, x.shape[1:]) @ fast["weight"].T + fast["bias"]

    return Learner("anil", True, steps, init, start, step, predict)
