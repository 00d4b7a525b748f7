"""LSTM meta-learner: the update rule itself is learned, as an LSTM whose cell state is the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import grad_and_value

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.learners.cells import lstm, lstm_init
from edgemeta.learners.inner import cross_entropy, normal

STRETCH = 10.0  # p of the preprocessing


def lstm_learner(net: Net, *, steps: int = 5, size: int = 20, rate: float = 0.3, second_order: bool = False) -> Learner:
    """Optimization as a model for few-shot learning (Ravi & Larochelle 2017, openreview rJY0-Kcll).

    The linear head's weights are the cell state of an LSTM that is shared by all coordinates: theta_t = f_t theta_{t-1}
    - i_t gradient_t (eq. 2), the gates fed by a first LSTM of `size` units that reads each coordinate's preprocessed
    gradient and the loss.

    slow: the body, `head.row` (d + 1,), that every class's cell state starts from, `first.*` and the gates `input.*`
    and `forget.*`. fast: `theta` (way, d + 1), weights and bias; `hidden`, `cell` (way, d + 1, size) of the first LSTM;
    `enter`, `keep` (way, d + 1), the gates of the last step.

    Departures. What adapts is the head, on features that are meta-trained with the LSTM: the paper's learner is a whole
    network. All classes start from one row, so any number of ways can be adapted, and gradients, which fall with the
    number of ways, are multiplied by it. As in the paper, the outer loop takes gradients for constants unless
    `second_order`.
    """

    def init(*, rng: torch.Generator) -> Params:
        slow = {**net.init(rng=rng), "head.row": torch.zeros(net.dim + 1)}
        slow |= lstm_init("first", 4, size, rng=rng)
        for gate, bias in (("input", math.log(rate / (1 - rate))), ("forget", 5.0)):
            slow[f"{gate}.weight"] = 0.01 * torch.randn(size + 2, generator=rng)
            slow[f"{gate}.bias"] = torch.tensor(bias)
        return slow

    def start(slow: Params, support: Support) -> Fast:
        theta = slow["head.row"].repeat(support.onehot.shape[1], 1)
        state = theta.new_zeros(*theta.shape, size)
        gates = torch.zeros_like(theta)
        return {"theta": theta, "hidden": state, "cell": state, "enter": gates, "keep": gates}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """Source: eq. 2 to 5."""
        theta, way = fast["theta"], support.onehot.shape[1]
        gradient, loss = grad_and_value(lambda theta: cross_entropy(scores(theta, support.x), support.onehot))(theta)
        if not second_order:
            gradient, loss = gradient.detach(), loss.detach()
        gradient = gradient * way
        seen = torch.cat([preprocessed(gradient), preprocessed(loss.expand_as(gradient))], -1)
        hidden, cell = lstm(slow, "first", seen, (fast["hidden"], fast["cell"]))
        enter = gate(slow, "input", hidden, theta, fast["enter"])
        keep = gate(slow, "forget", hidden, theta, fast["keep"])
        theta = keep * theta - enter * gradient
        return {"theta": theta, "hidden": hidden, "cell": cell, "enter": enter, "keep": keep}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way)."""
        return scores(fast["theta"], x)

    return Learner("lstm", net, True, steps, init, start, step, predict)


def scores(theta: Tensor, x: Tensor) -> Tensor:
    """Logits (n, way) of features x (n, d) and a head theta (way, d + 1)."""
    return normal(x) @ theta[:, :-1].T + theta[:, -1]


def preprocessed(value: Tensor) -> Tensor:
    """(...) -> (..., 2): logarithm and sign, or for tiny values -1 and the value enlarged. Source: appendix C."""
    size, least = value.abs(), math.exp(-STRETCH)
    large = size >= least
    scale = torch.where(large, size.clamp_min(least).log() / STRETCH, -torch.ones_like(value))
    return torch.stack([scale, torch.where(large, value.sign(), value / least)], -1)


def gate(slow: Params, name: str, hidden: Tensor, theta: Tensor, last: Tensor) -> Tensor:
    """sigmoid(W [hidden, theta, last] + b), each coordinate alone."""
    inputs = torch.cat([hidden, theta[..., None], last[..., None]], -1)
    return torch.sigmoid(inputs @ slow[f"{name}.weight"] + slow[f"{name}.bias"])
