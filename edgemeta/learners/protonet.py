"""Prototypical Networks: a class is the mean of its examples' features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.learners.inner import normal


def protonet(net: Net, *, temperature: float = 10.0) -> Learner:
    """Prototypical Networks (Snell 2017, arXiv:1703.05175).

    slow: the body and `head.log_temperature` (). fast: `total` (way, d) and `count` (way,), running sums, so a
    later `step` with more shots continues where the last one stopped.

    Departures. Features are layer-normalised, so their squared distances lie between 0 and 4 d whatever the body, and
    are multiplied by a learned temperature over 2 d. Raw distances saturate the softmax, of nets of depthwise blocks
    above all; distances divided by their mean over the classes do not, and learn more slowly than these.
    """

    def init(*, rng: torch.Generator) -> Params:
        return {**net.init(rng=rng), "head.log_temperature": torch.tensor(math.log(temperature))}

    def start(slow: Params, support: Support) -> Fast:
        way, d = support.onehot.shape[1], support.x.shape[1]
        return {"total": support.x.new_zeros(way, d), "count": support.x.new_zeros(way)}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """Source: eq. 1, as a running sum."""
        return {
            "total": fast["total"] + support.onehot.T @ normal(support.x),
            "count": fast["count"] + support.onehot.sum(0),
        }

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way). Source: eq. 2, with the squared Euclidean distance."""
        prototypes = fast["total"] / fast["count"].clamp_min(1.0)[:, None]
        distance = ((normal(x)[:, None] - prototypes[None]) ** 2).sum(-1)
        return -slow["head.log_temperature"].exp() / (2 * net.dim) * distance

    return Learner("protonet", net, True, 1, init, start, step, predict, sums=True)
