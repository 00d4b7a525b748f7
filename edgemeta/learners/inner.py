"""The inner loop of gradient learners: what adapts, from where, and how far a step goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad
from torch.nn.functional import layer_norm

from edgemeta.contracts import Fast, Net, Params

HEAD = ("weight", "bias")  # the linear layer on the features
DONE = "done"  # (1,) steps taken so far
PER = ("group", "step", "parameter", "fixed")  # what has a rate of its own, see `Rates`
KINDS = ("weight", "gamma", "beta")  # of a convolution and the batch norm after it


def cross_entropy(logits: Tensor, onehot: Tensor) -> Tensor:
    """Cross-entropy of logits (n, way) against one-hot rows, mean over each class and then over classes.

    Each class counts alike, however many examples it has: else steps would lead to the class with the most. Rows of
    zeros are padding and count nothing, nor do classes without examples. Where all classes have the same number it is
    the mean over examples. Written with products instead of an index, so its gradient lowers to ONNX without Gather
    or Scatter.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    >>> cross_entropy(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))  # (0.1269 + 0.6931) / 2
    tensor(0.4100)
    """
    size = onehot.sum(0)
    share = onehot / size.clamp_min(1.0)
    return -(share * torch.log_softmax(logits, 1)).sum() / (size > 0).to(size.dtype).sum()


@dataclass(frozen=True)
class Scope:
    """What of the body adapts: `names` are the adapted tensors, `weave` puts them into the body's parameters."""

    names: tuple[str, ...] = ()
    init: Callable[..., Params] = lambda *, rng: {}  # what the scope adds to slow
    start: Callable[[Params, Callable[[], Tensor]], Fast] = lambda slow, mean: {}  # mean() (d,): the support's feature
    weave: Callable[[Params, Mapping[str, Tensor]], Params] = lambda slow, fast: slow


def chosen(net: Net, *, kinds: tuple[str, ...] = KINDS, last: int | None = None) -> Scope:
    """The parameters of these kinds, of every convolution or of the `last` few, each from its own slow value."""
    places = [i for i, op in enumerate(net.ops) if op.kind == "conv"]
    names = tuple(f"{i}.{kind}" for i in places[-last if last else None :] for kind in kinds)

    def start(slow: Params, mean: Callable[[], Tensor]) -> Fast:
        return {name: slow[name] for name in names}

    def weave(slow: Params, fast: Mapping[str, Tensor]) -> Params:
        return {**slow, **{name: fast[name] for name in names}}

    return Scope(names, start=start, weave=weave)


@dataclass(frozen=True)
class Rates:
    """How far a step goes, learned. One rate for the head and one for the body, or finer.

    `per="group"`: the two rates fall as 1 / (1 + steps taken) (Robbins & Monro 1951): at a constant rate the steps
    overshoot where the support has more shots, or another domain, than the training had. `per="step"`: one of each
    for every step (MAML++, Antoniou 2019, arXiv:1810.09502, section 4, "LSLR", of two groups); later steps use the
    last. `per="parameter"`: one for every adapted number, of either sign (Meta-SGD, Li 2017, arXiv:1707.09835, eq. 1).
    `per="fixed"`: the two rates as they are given, not learned.
    Rates of the head are multiplied by the number of ways: a class's row then moves as far in a 20-way task as in a
    5-way one.
    """

    per: str
    head: float
    body: float
    steps: int

    def init(self, adapted: Mapping[str, Tensor]) -> Params:
        """Slow tensors for a step on `adapted`, which maps names to one class's row or the whole body tensor."""
        if self.per == "fixed":
            return {}
        if self.per == "parameter":
            start = {name: self.head if name in HEAD else self.body for name in adapted}
            return {f"rate.{name}": torch.full_like(value, start[name]) for name, value in adapted.items()}
        shape = (self.steps,) if self.per == "step" else ()
        groups = {"head": self.head} | ({"body": self.body} if set(adapted) - set(HEAD) else {})
        return {f"{group}.log_lr": torch.full(shape, math.log(rate)) for group, rate in groups.items()}

    def rate(self, slow: Params, name: str, done: Tensor, way: int) -> Tensor:
        """Of tensor `name` at a step after `done` (1,) others; broadcasts over it."""
        share = way if name in HEAD else 1
        if self.per == "fixed":
            return torch.full_like(done, self.head if name in HEAD else self.body) * share
        if self.per == "parameter":
            return slow[f"rate.{name}"] * share
        log_lr = slow["head.log_lr" if name in HEAD else "body.log_lr"]
        if self.per == "step":
            index = torch.arange(len(log_lr), device=done.device)
            now = (index == done.clamp(max=len(log_lr) - 1)).to(log_lr.dtype)
            return (now * log_lr.exp()).sum() * share
        return log_lr.exp() * share / (1 + done)


def prototype_head(z: Tensor, onehot: Tensor, temperature: Tensor) -> Fast:
    """The linear layer whose logits are -temperature * |z - class mean|^2, up to what all classes share.

    Source: Proto-MAML (Triantafillou 2020, arXiv:1903.03096, section 3.2). z (n, d), onehot (n, way).
    """
    means = onehot.T @ z / onehot.sum(0).clamp_min(1.0)[:, None]
    return {"weight": 2 * temperature * means, "bias": -temperature * means.square().sum(1)}


def normal(z: Tensor) -> Tensor:
    """Features (n, d) layer-normalised without parameters (Ba 2016, arXiv:1607.06450).

    After a ReLU they are all positive, and steps would be spent on their common mean.
    """
    return layer_norm(z, z.shape[1:])


def descend(loss: Callable[[Fast], Tensor], moved: Fast, rate: Callable[[str], Tensor], *, second_order: bool) -> Fast:
    """One gradient step on `loss`. Without second order the outer gradient takes the step for a constant."""
    gradient = grad(loss)(moved)
    if not second_order:
        gradient = {name: value.detach() for name, value in gradient.items()}
    return {name: value + -rate(name) * gradient[name] for name, value in moved.items()}
