"""A task adapts an architecture and its weights together, in a few steps that end near one network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Fast, Params, Support
from edgemeta.learners.inner import HEAD, cross_entropy, normal, prototype_head
from edgemeta.learners.outer import Meta, Tasks, asked, gradients
from edgemeta.nets.candidates import NONE, by_target
from edgemeta.nets.relaxed import Alpha, Relaxed

LOGITS, RATE, TEMPERATURE = "logits.", "rate.", "head.log_temperature"  # names of slow tensors, see `adapt`
NEVER = -1e4  # log-probability of what is left out: finite, so that no gradient of it is without a number


def alpha_of(params: Params) -> Alpha:
    """The architecture logits among slow or fast tensors."""
    return {name.removeprefix(LOGITS): value for name, value in params.items() if name.startswith(LOGITS)}


def cooled(relaxed: Relaxed, alpha: Alpha, temperature: float) -> Alpha:
    """Logits of the same architecture with less beside it: at 0 they would leave what `relaxed.derive` gives, alone.

    The softmax over the operators of an edge that can be derived is taken at the temperature. Where a node keeps two
    edges, so is a softmax over all pairs of its edges, by the sum of what `derive` keeps them by; what it leaves out of
    an edge goes to none. So a network that adapted while it was cooled loses nothing when it is discretised.

    Source: soft pruning (Elsken 2020, arXiv:1911.11090). Departure: pairs have no logits of their own.
    """
    found = {}
    for cell, logits in alpha.items():
        kept, dropped = _edges(relaxed, logits, temperature)
        shares = torch.log_softmax(logits[:, relaxed.kind.strong] / temperature, 1)
        columns = list(torch.full_like(logits, NEVER).unbind(1))
        for column, share in zip(relaxed.kind.strong, shares.unbind(1), strict=True):
            columns[column] = kept + share
        none = relaxed.kind.operators.index(NONE)
        columns[none] = torch.logaddexp(columns[none], dropped)
        found[cell] = torch.stack(columns, 1)
    return found


def _edges(relaxed: Relaxed, logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(edges,) logarithms of how far each edge is kept and left out."""
    kind = relaxed.kind
    if kind.inputs is None:
        return logits.new_zeros(len(logits)), logits.new_full((len(logits),), NEVER)
    best = torch.log_softmax(logits, 1)[:, kind.strong].amax(1) / temperature
    kept, dropped = [], []
    for rows in by_target(kind.edges):
        choices = list(combinations(rows, kind.inputs))
        shares = torch.log_softmax(torch.stack([best[list(choice)].sum() for choice in choices]), 0)
        for row in rows:
            with_it = torch.tensor([row in choice for choice in choices])
            kept.append(shares[with_it].logsumexp(0))
            dropped.append(logits.new_tensor(NEVER) if with_it.all() else shares[~with_it].logsumexp(0))
    return torch.stack(kept), torch.stack(dropped)


def predict(relaxed: Relaxed, fast: Fast, x: Tensor, temperature: float) -> Tensor:
    """Logits (n, way) of images (n, C, H, W), normalised by one another, from what a task has adapted."""
    return _features(relaxed, fast, x, temperature) @ fast["weight"].T + fast["bias"]


def _features(relaxed: Relaxed, params: Params, x: Tensor, temperature: float) -> Tensor:
    return normal(relaxed.body(params, cooled(relaxed, alpha_of(params), temperature), x))


def adapt(
    relaxed: Relaxed,
    slow: Params,
    support: Support,
    *,
    coldest: float,
    steps: int | None = None,
    second_order: bool = False,
) -> Fast:
    """A task's own head, weights and logits: "weight" (way, d), "bias" (way,), and the tensors of `slow` that adapt.

    The head starts from the class means of the support (Triantafillou 2020, arXiv:1903.03096, section 3.2). Then
    gradient steps on the support's cross-entropy move all three at once (as in T-NAS, Lian 2020), each at
    its group's learned rate of that step; steps past those that have one take the last (Antoniou 2019,
    arXiv:1810.09502, section 4). Meanwhile the softmax cools from 1 to `coldest`, geometrically, see `cooled`.

    Without `second_order` an outer gradient takes each step for a constant times its rate.
    """
    steps = steps or len(slow[RATE + "body"])
    scale = slow[TEMPERATURE].exp() / (2 * relaxed.dim)
    fast = prototype_head(_features(relaxed, slow, support.x, 1.0), support.onehot, scale)
    fast |= {name: value for name, value in slow.items() if name != TEMPERATURE and not name.startswith(RATE)}
    for step in range(steps):
        now = coldest ** (step / steps)
        with torch.enable_grad():
            at = {name: value.view_as(value) if second_order else _leaf(value) for name, value in fast.items()}
            loss = cross_entropy(predict(relaxed, at, support.x, now), support.onehot)
            found = torch.autograd.grad(loss, list(at.values()), create_graph=second_order)
        fast = {
            name: value - _rate(slow, name, step, support.onehot.shape[1]) * gradient
            for (name, value), gradient in zip(fast.items(), found, strict=True)
        }
    return fast


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()


def _rate(slow: Params, name: str, step: int, way: int) -> Tensor:
    """() how far a tensor goes in a step."""
    group = "head" if name in HEAD else "logits" if name.startswith(LOGITS) else "body"
    logs = slow[RATE + group]
    return logs[min(step, len(logs) - 1)].exp() * (way if group == "head" else 1)


def outer_gradient(
    relaxed: Relaxed,
    slow: Params,
    tasks: Tasks,
    *,
    coldest: float,
    second_order: bool = False,
    penalty: Callable[[Alpha], Tensor] | None = None,
) -> Meta:
    """Loss of the queries after adaptation, mean over tasks, and its gradient by what in `slow` asks for one.

    `penalty` is added for the gradient alone: of the adapted logits at the temperature that the queries see.

    Source: T-NAS (Lian 2020); the inner rates learn from the same loss (Li 2017, arXiv:1707.09835, eq. 2).
    """
    leaves, total, count = asked(slow), torch.zeros(()), len(tasks.x)
    gradient = {name: torch.zeros_like(value) for name, value in leaves.items()}
    for x, onehot, query_x, query_y in zip(*tasks, strict=True):
        fast = adapt(relaxed, slow, Support(x, onehot), coldest=coldest, second_order=second_order)
        loss = F.cross_entropy(predict(relaxed, fast, query_x, coldest), query_y)
        total = total + loss.detach() / count
        if penalty:
            loss = loss + penalty({cell: logits / coldest for cell, logits in alpha_of(fast).items()})
        for name, value in gradients(loss / count, leaves).items():
            gradient[name] += value
    return Meta(total, gradient)
