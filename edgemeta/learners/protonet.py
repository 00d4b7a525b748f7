"""Prototypical Networks: a class is the mean of its examples' features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support


def protonet(*, temperature: float = 10.0) -> Learner:
    """Prototypical Networks (Snell 2017, arXiv:1703.05175).

    slow: the body and `head.log_temperature` (). fast: `total` (way, d) and `count` (way,), running sums, so a
    later `step` with more shots continues where the last one stopped.

    Departure: squared distances are divided by each query's mean over the classes and multiplied by a learned
    temperature. The ranking of classes is untouched; training no longer depends on the scale of the features, which
    is what keeps nets of depthwise blocks from saturating the softmax.
    """

    def init(net: Net, *, rng: torch.Generator) -> Params:
        return {**net.init(rng=rng), "head.log_temperature": torch.tensor(math.log(temperature))}

    def start(slow: Params, support: Support) -> Fast:
        way, d = support.onehot.shape[1], support.x.shape[1]
        return {"total": support.x.new_zeros(way, d), "count": support.x.new_zeros(way)}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """Source: eq. 1, as a running sum."""
        return {
            "total": fast["total"] + support.onehot.T @ support.x,
            "count": fast["count"] + support.onehot.sum(0),
        }

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way). Source: eq. 2, with the squared Euclidean distance."""
        prototypes = fast["total"] / fast["count"].clamp_min(1.0)[:, None]
        distance = ((x[:, None] - prototypes[None]) ** 2).sum(-1)
        scale = distance.mean(1, keepdim=True) + 1e-6
        return -slow["head.log_temperature"].exp() * distance / scale

    return Learner("protonet", True, 1, init, start, step, predict)
