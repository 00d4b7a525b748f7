"""Meta-gradients: how the loss on a batch of tasks changes with the slow parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from edgemeta.contracts import Fast, Learner, Params, Support

STATISTICS = "stat."  # running statistics: updated by the forward pass, never by a gradient


class Tasks(NamedTuple):
    """Tasks of equal size, side by side."""

    x: Tensor  # (tasks, n, C, H, W) images of the supports, or (tasks, n, d) features
    onehot: Tensor  # (tasks, n, way)
    query_x: Tensor  # (tasks, q, C, H, W)
    query_y: Tensor  # (tasks, q) int64

    @property
    def images(self) -> Tensor:
        return torch.cat([self.x.flatten(0, 1), self.query_x.flatten(0, 1)])


class Meta(NamedTuple):
    loss: Tensor  # () mean over tasks
    gradient: dict[str, Tensor]  # of every trained parameter


def trained(slow: Params) -> dict[str, Tensor]:
    return {name: value for name, value in slow.items() if not name.startswith(STATISTICS)}


def asked(slow: Params) -> dict[str, Tensor]:
    """The trained parameters whose gradient is asked for."""
    return {name: value for name, value in trained(slow).items() if value.requires_grad}


def steps_of(learner: Learner, n: int) -> int:
    """How often a device applies `step` to a support of n examples."""
    return n if learner.steps is None else learner.steps


def meta_gradient(learner: Learner, slow: Params, tasks: Tasks, weights: Sequence[float] = (1.0,)) -> Meta:
    """Loss and gradient of the queries' cross-entropy after adaptation, mean over tasks; running statistics in `slow`
    are updated in place. Tasks may hold features (tasks, n, d) instead of images, where the body is not to be trained.

    `weights` are those of the losses after the last steps: (1.0,) counts the last alone, as many as there are steps
    count each (multi-step loss, Antoniou 2019, arXiv:1810.09502, eq. 2).
    """
    if learner.outer is not None:
        return Meta(*learner.outer(slow, tasks, weights))
    if not learner.on_features:
        raise ValueError(f"{learner.name} changes the body and has no outer gradient")
    n = tasks.x.shape[0] * tasks.x.shape[1]
    z = learner.net.body(slow, tasks.images, train=True) if tasks.x.dim() > 3 else tasks.images
    support, query = z[:n].unflatten(0, tasks.x.shape[:2]), z[n:].unflatten(0, tasks.query_x.shape[:2])

    def one(x: Tensor, onehot: Tensor, query: Tensor, y: Tensor) -> Tensor:
        return _loss(learner, slow, Support(x, onehot), query, y, weights)

    parts = (support, tasks.onehot, query, tasks.query_y)
    loss = one(*(part[0] for part in parts)) if len(support) == 1 else vmap(one)(*parts).mean()
    return Meta(loss.detach(), gradients(loss, asked(slow)))


def _loss(
    learner: Learner, slow: Params, support: Support, query: Tensor, y: Tensor, weights: Sequence[float]
) -> Tensor:
    steps = steps_of(learner, len(support.x))
    fast, loss = learner.start(slow, support), query.new_zeros(())
    for left in reversed(range(steps)):
        fast = learner.step(slow, fast, support)
        if 0 < left < len(weights):
            loss = loss + weights[-1 - left] * F.cross_entropy(learner.predict(slow, fast, query), y)
    return loss + weights[-1] * F.cross_entropy(learner.predict(slow, fast, query), y)


def gradients(loss: Tensor, of: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(of.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(of.items(), found, strict=True)
    }


def joined(
    plain: Learner, products: Learner, slow: Params, tasks: Tasks, weights: Sequence[float] = (1.0,), chunk: int = 16
) -> Meta:
    """The meta-gradient of a learner that changes the body, second order included.

    Supports are few images: `chunk` tasks go through the inner loop together, as batched matrix products (`products`,
    the same learner on `Net.products`). Queries are many: each task's loss is differentiated alone, with the fastest
    convolutions there are (`plain`), with respect to what it adapted; one vector-Jacobian product through the inner
    loops then gives the gradient of the slow parameters. Running statistics follow the supports: queries would tell the
    same, at many times the cost.
    """
    if not plain.transductive:  # else no running statistics are ever used
        with torch.no_grad():
            plain.net.body(slow, tasks.x.flatten(0, 1), train=True)
    leaves, total, count = asked(slow), torch.zeros(()), len(tasks.x)
    gradient = {name: torch.zeros_like(value) for name, value in leaves.items()}
    for part in (Tasks(*pieces) for pieces in zip(*(field.split(chunk) for field in tasks), strict=True)):
        inner, outer = [], []
        for fast, weight in _trajectory(products, slow, part, weights):
            loss, along, direct = _queries(plain, slow, fast, part, weight / count)
            total = total + loss
            inner += [fast[name] for name in along]
            outer += list(along.values())
            for name, value in direct.items():
                gradient[name] += value
        found = torch.autograd.grad(inner, list(leaves.values()), outer, allow_unused=True)
        for name, value in zip(leaves, found, strict=True):
            if value is not None:
                gradient[name] += value
    return Meta(total, gradient)


def _trajectory(products: Learner, slow: Params, part: Tasks, weights: Sequence[float]) -> list[tuple[Fast, float]]:
    """What the tasks have adapted, stacked, after each step whose loss counts.

    All steps are one `vmap`: what tasks still share before the first stays one tensor.
    """
    steps = steps_of(products, part.x.shape[1])

    def adapted(x: Tensor, onehot: Tensor) -> list[Fast]:
        support = Support(x, onehot)
        found = [products.start(slow, support)]
        for _ in range(steps):
            found.append(products.step(slow, found[-1], support))
        return found[-len(weights) :]

    return list(zip(vmap(adapted)(part.x, part.onehot), weights, strict=True))


def _queries(
    plain: Learner, slow: Params, fast: Fast, part: Tasks, weight: float
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The weighted loss of the queries, its gradient by what was adapted (stacked over tasks) and by `slow` itself."""
    moving = [name for name, value in fast.items() if value.requires_grad]
    leaves, loss_sum = asked(slow), torch.zeros(())
    along = {name: torch.empty_like(fast[name]) for name in moving}
    direct: dict[str, Tensor] = {}
    for t in range(len(part.x)):
        own = {name: _leaf(value[t]) if name in along else value[t].detach() for name, value in fast.items()}
        loss = weight * F.cross_entropy(plain.predict(slow, own, part.query_x[t]), part.query_y[t])
        wanted = [own[name] for name in moving] + list(leaves.values())
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        for name, value in zip(moving, found, strict=False):
            along[name][t] = 0.0 if value is None else value
        for name, value in zip(leaves, found[len(moving) :], strict=True):
            if value is not None:
                direct[name] = direct[name] + value if name in direct else value
        loss_sum = loss_sum + loss.detach()
    return loss_sum, along, direct


def _leaf(value: Tensor) -> Tensor:
    return laid_out(value).detach().requires_grad_()


def laid_out(value: Tensor) -> Tensor:
    """In the memory layout that convolutions are fastest in."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
