"""Reptile: a case by hand, and slow - fast against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from edgemeta.contracts import Net
from edgemeta.errors import BadData
from edgemeta.learners.outer import Tasks, meta_gradient, trained
from edgemeta.learners.reptile import reptile
from edgemeta.types import Op
from tests.learners.doubles import DOUBLE, close, copied, layer_normal, parameters, small_net, tasks_of


def elementwise() -> Net:
    """Three features: each pixel times its own weight and scale, and a shift."""

    def body(params, x, train=False):
        return x.flatten(1) * params["0.weight"] * params["0.gamma"] + params["0.beta"]

    def init(*, rng):
        return {
            "0.weight": torch.ones(3, **DOUBLE),
            "0.gamma": torch.ones(3, **DOUBLE),
            "0.beta": torch.zeros(3, **DOUBLE),
        }

    return Net((Op("conv", (3, 1, 1), (3, 1, 1)),), (3, 1, 1), 3, init, body, body)


def test_a_task_by_hand():
    """Two classes, an image each: a = 1000 (1, 0, -1) and b = 1000 (1, -2, 1), in the support and again in the queries.

    Normalised, a has the deviation s_a = 1000 sqrt(2/3) and becomes za = sqrt(3/2) (1, 0, -1); s_b = 1000 sqrt(2) and
    zb = (1, -2, 1) / sqrt(2). They are orthogonal, of squared length 3. Dealt into two batches, each has an a and a b.

    First step: the head is 0, so p = 1/2 and only it moves. Its rate is 2 ways * lr = 2 * 0.1. Of class 0 the gradient
    is (-1/2 za + 1/2 zb) / 2, so its row becomes c (za - zb) with c = 0.2 / 4 = 0.05, that of class 1 the opposite; the
    biases' gradients (-1/2 + 1/2) / 2 vanish.

    Second step: the logits of a are 3 c and -3 c, so it is wrong by e = sigmoid(-6 c), and b as much. The loss falls by
    e c (za - zb) along za and by -e c (za - zb) along zb. Through the normalisation, (g - mean g - z mean(g z)) / s,
    with mean(g z) = -e c for both: the gradient of the image a is e c zb / s_a, of b it is e c za / s_b.
    By the weight (and alike by the scale): a e c zb / s_a + b e c za / s_b, and both products are
    sqrt(3)/2 (1, 0, -1): e c sqrt(3) (1, 0, -1). By the shift: e c (zb / s_a + za / s_b)
    = e c sqrt(3)/2 / 1000 ((1, -2, 1) + (1, 0, -1)) = e c sqrt(3) / 1000 (1, -1, 0).

    slow - fast is the body's rate, 0.4, times these. The head's rows moved by opposite amounts: their mean did not.
    The loss before the second step is log(1 + exp(-6 c)).
    """
    learner = reptile(elementwise(), steps=2, lr=0.1, body_lr=0.4)
    slow = {name: value.double() for name, value in learner.init(rng=torch.Generator()).items()}
    x = 1000 * torch.tensor([[1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], **DOUBLE)[None, :, :, None, None]
    tasks = Tasks(x, torch.eye(2, **DOUBLE)[None], x, torch.tensor([[0, 1]]))
    found = meta_gradient(learner, slow, tasks)
    c = 0.05
    e = 1 / (1 + math.exp(6 * c))
    turn = 0.4 * e * c * math.sqrt(3) * torch.tensor([1.0, 0.0, -1.0], **DOUBLE)
    shift = 0.4 * e * c * math.sqrt(3) / 1000 * torch.tensor([1.0, -1.0, 0.0], **DOUBLE)
    want = {"0.weight": turn, "0.gamma": turn, "0.beta": shift, "head.row": torch.zeros(3, **DOUBLE)}
    close(found.gradient, want, digits=1e-9)
    assert found.loss.item() == pytest.approx(math.log(1 + math.exp(-6 * c)), rel=1e-9)


def plain_loops(net, slow, tasks, *, steps, lr, body_lr):
    """slow - fast and the running statistics, one task, batch and step after another."""
    own = copied(slow)
    net.body(own, torch.cat([tasks.x.flatten(0, 1), tasks.query_x.flatten(0, 1)]), train=True)
    leaves, ends, way = trained(own), [], tasks.onehot.shape[2]
    for x, onehot, query, y in zip(*tasks, strict=True):
        images, labels = torch.cat([x, query]), [*onehot.argmax(1).tolist(), *y.tolist()]
        by_class = sorted(range(len(labels)), key=lambda i: labels[i])
        moving = {name: value.detach().clone() for name, value in leaves.items() if name != "head.row"}
        moving["weight"] = leaves["head.row"].detach().expand(way, -1).clone()
        moving["bias"] = torch.zeros(way, **DOUBLE)
        for k in range(steps):
            rows = by_class[k::steps]
            moving = {name: value.requires_grad_() for name, value in moving.items()}
            z = layer_normal(net.body(own | {name: moving[name] for name in leaves if name in moving}, images[rows]))
            target = torch.tensor([labels[i] for i in rows])
            losses = F.cross_entropy(F.linear(z, moving["weight"], moving["bias"]), target, reduction="none")
            loss = torch.stack([losses[target == c].mean() for c in target.unique()]).mean()
            found = torch.autograd.grad(loss, list(moving.values()))
            moving = {
                name: (value - (way * lr if name in ("weight", "bias") else body_lr) * gradient).detach()
                for (name, value), gradient in zip(moving.items(), found, strict=True)
            }
        ends.append(moving | {"head.row": moving["weight"].mean(0)})
    return {name: leaves[name].detach() - sum(end[name] for end in ends) / len(ends) for name in leaves}, own


@pytest.mark.parametrize(("count", "steps", "shot", "query"), [(1, 2, 1, 1), (3, 4, 2, 2), (2, 3, 2, 5)])
def test_slow_minus_fast_is_that_of_plain_loops(count, steps, shot, query):
    net = small_net()
    learner = reptile(net, steps=steps, lr=0.3, body_lr=0.4)
    slow, tasks = parameters(learner), tasks_of(net, count, shot=shot, query=query)
    want, after = plain_loops(net, slow, tasks, steps=steps, lr=0.3, body_lr=0.4)
    own = copied(slow)
    found = meta_gradient(learner, own, tasks)
    want["head.row"], moved = torch.zeros_like(want["head.row"]), want["head.row"]
    close(found.gradient, want)
    assert moved.abs().max() < 1e-12  # softmax: what one class's row gains the others lose
    close(own, after)  # running statistics
    assert not any(value.requires_grad for value in found.gradient.values())


def test_more_steps_than_examples_are_refused():
    learner = reptile(small_net(), steps=9)
    with pytest.raises(
        BadData, match="8 examples cannot be dealt into 9 batches; lower steps or raise way, shot or query"
    ):
        meta_gradient(learner, parameters(learner), tasks_of(learner.net, 1, way=2, shot=2, query=2))
