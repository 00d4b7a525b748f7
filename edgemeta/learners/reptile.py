"""Reptile: move the weights towards where a few steps on a task have taken them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.errors import BadData
from edgemeta.learners.inner import chosen, cross_entropy
from edgemeta.learners.maml import adapting
from edgemeta.learners.outer import Meta, Tasks, trained

ROW = "head.row"


def reptile(net: Net, *, steps: int = 5, lr: float = 0.02, body_lr: float = 0.01) -> Learner:
    """Reptile (Nichol 2018, arXiv:1803.02999): no gradient through the adaptation, no split of a task's examples.

    slow and fast as in `maml.adapting` with a row for the head; the rates are constants. A task's support and queries
    are one set, dealt into `steps` batches, with every class in each where classes have so many; after the steps the
    meta-gradient is slow - fast, mean over tasks (section 2, algorithm 2), and goes to the outer optimiser.

    Departures: see `maml.adapting`. The head's row moves to the mean of the classes' rows, and so stays where it is:
    what a softmax gives to one class it takes from the others. Every task starts from a head of zeros.
    """
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "body_lr": body_lr, "second_order": False}
    settings |= {"rates": "fixed", "head": "row"}
    learner = adapting(net, "reptile", chosen(net), **settings)
    products = adapting(net._replace(body=net.products), "reptile", chosen(net), **settings)
    return learner._replace(outer=partial(towards, products, learner))


def towards(products: Learner, plain: Learner, slow: Params, tasks: Tasks, weights: object = None) -> Meta:
    """slow - fast after the steps on each task's own examples; running statistics in `slow` are updated in place."""
    steps, n = plain.steps or 0, tasks.x.shape[1] + tasks.query_x.shape[1]
    if not 0 < steps <= n:
        raise BadData(f"{n} examples cannot be dealt into {steps} batches; lower steps or raise way, shot or query")
    with torch.no_grad():
        plain.net.body(slow, tasks.images, train=True)
        images, way = torch.cat([tasks.x, tasks.query_x], 1), tasks.onehot.shape[2]
        labels = torch.cat([tasks.onehot.argmax(2), tasks.query_y], 1)
        rows = labels.argsort(stable=True, dim=1)  # class by class: every `steps`-th row is then a batch of all classes
        fast = vmap(lambda x, onehot: products.start(slow, Support(x, onehot)))(tasks.x, tasks.onehot)
        for k in range(steps):
            own = rows[:, k::steps]
            task = torch.arange(len(rows))[:, None]
            x, onehot = images[task, own], F.one_hot(labels[task, own], way).to(images.dtype)
            fast, losses = vmap(partial(_step, products, slow))(fast, x, onehot)
        gradient = {name: value - _mean(fast, name) for name, value in trained(slow).items()}
    return Meta(losses.mean(), gradient)


def _step(learner: Learner, slow: Params, fast: Fast, x: Tensor, onehot: Tensor) -> tuple[Fast, Tensor]:
    """The fast tensors after a step, and the loss before it."""
    support = Support(x, onehot)
    loss = cross_entropy(learner.predict(slow, fast, x), onehot)
    return learner.step(slow, fast, support), loss


def _mean(fast: Fast, name: str) -> Tensor:
    """Where the tasks have taken the slow tensor `name`, on average; the head's row, over classes too."""
    return fast["weight"].mean((0, 1)) if name == ROW else fast[name].mean(0)
