"""Meta-gradients against a reference that shares nothing with them but the network: loops and torch.autograd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Learner, Net, Params
from edgemeta.learners import LEARNERS
from edgemeta.learners.context import context
from edgemeta.learners.maml import adapting
from edgemeta.learners.outer import Tasks, joined, meta_gradient, trained
from tests.learners.doubles import close, copied, parameters, small_net, tasks_of

STEPS = 3
LR, BODY_LR = 0.3, 0.4  # large, so that later steps start elsewhere


@dataclass(frozen=True)
class Case:
    """A row of the registry with settings, and what the reference has to know of them."""

    learner: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = (1.0,)


CASES = {
    **{name: Case(name) for name in ("maml", "fomaml", "meta-sgd", "maml-norm", "maml-last", "metanet", "anil")},
    "transductive": Case("maml", {"transductive": True}),
    "first order, transductive": Case("fomaml", {"transductive": True}),
    "context, transductive": Case("metanet", {"transductive": True}),
    "rates per step": Case("maml", {"rates": "step"}),
    "rates per step, head": Case("anil", {"rates": "step"}),
    "rates given": Case("maml", {"rates": "fixed"}),
    "rates per parameter, head": Case("anil", {"rates": "parameter"}),
    "rates per parameter, context": Case("metanet", {"rates": "parameter"}),
    "every step counts": Case("maml", weights=(0.2, 0.3, 0.5)),
    "two steps count": Case("fomaml", weights=(0.4, 0.6)),
    "every step counts, head": Case("anil", weights=(0.2, 0.3, 0.5)),
    "every step counts, context": Case("metanet", weights=(0.2, 0.3, 0.5)),
    "row": Case("maml", {"head": "row"}),
    "row, norms": Case("maml-norm", {"head": "row"}),
    "row, rates per step": Case("maml-last", {"head": "row", "rates": "step"}),
    "class means, head": Case("anil", {"head": "prototypes"}),
    "first order, head": Case("anil", {"second_order": False}),
    "everything": Case(
        "meta-sgd", {"head": "row", "transductive": True, "second_order": False}, weights=(0.2, 0.3, 0.5)
    ),
}


def moving_names(learner: str, net: Net) -> list[str]:
    """What of the body each row of the registry says that it adapts."""
    convolutions = [i for i, op in enumerate(net.ops) if op.kind == "conv"]
    kinds = {"maml-norm": ("gamma", "beta"), "metanet": (), "anil": ()}.get(learner, ("weight", "gamma", "beta"))
    return [f"{i}.{kind}" for i in (convolutions[-1:] if learner == "maml-last" else convolutions) for kind in kinds]


class Reference:
    """The loss on a batch of tasks, one task and one step after another, with a graph through everything."""

    def __init__(self, net: Net, case: Case, *, generated: bool = True):
        known = {"rates": "parameter" if case.learner == "meta-sgd" else "group"}
        known |= {"head": "row" if case.learner == "anil" else "prototypes", "transductive": False}
        known |= {"second_order": case.learner != "fomaml"}
        self.net, self.case, self.said = net, case, known | dict(case.settings)
        self.names, self.generated = moving_names(case.learner, net), generated
        self.contextual, self.on_features = case.learner == "metanet", case.learner == "anil"

    def __call__(self, slow: Params, tasks: Tasks) -> Tensor:
        losses = []
        if self.on_features:
            n = tasks.x.shape[0] * tasks.x.shape[1]
            z = self.net.body(slow, torch.cat([tasks.x.flatten(0, 1), tasks.query_x.flatten(0, 1)]), True)
            tasks = tasks._replace(
                x=z[:n].view(*tasks.x.shape[:2], -1), query_x=z[n:].view(*tasks.query_x.shape[:2], -1)
            )
        elif not self.said["transductive"]:
            with torch.no_grad():
                self.net.body(slow, tasks.x.flatten(0, 1), True)
        for x, onehot, query, y in zip(*tasks, strict=True):
            losses.append(self.one(slow, x, onehot.argmax(1), query, y))
        return sum(losses) / len(losses)

    def one(self, slow: Params, x: Tensor, labels: Tensor, query: Tensor, y: Tensor) -> Tensor:
        moving = self.start(slow, x, labels)
        counted, losses = dict(enumerate(reversed(self.case.weights))), []
        for k in range(STEPS):
            loss = F.cross_entropy(self.logits(slow, moving, x), labels)
            order = self.said["second_order"]
            found = torch.autograd.grad(loss, list(moving.values()), create_graph=order, retain_graph=True)
            rates = [self.rate(slow, name, k, int(labels.max()) + 1) for name in moving]
            moving = {
                name: value - rate * (gradient if order else gradient.detach())
                for (name, value), rate, gradient in zip(moving.items(), rates, found, strict=True)
            }
            if weight := counted.get(STEPS - 1 - k):
                losses.append(weight * F.cross_entropy(self.logits(slow, moving, query), y))
        return sum(losses)

    def start(self, slow: Params, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z, way = self.features(slow, {}, x), int(labels.max()) + 1
        if self.said["head"] == "row":
            head = {"weight": torch.stack([slow["head.row"]] * way), "bias": torch.zeros(way, dtype=z.dtype)}
            head["bias"].requires_grad_()
        else:
            scale = slow["head.log_temperature"].exp() / (2 * self.net.dim)
            means = torch.stack([z[labels == c].mean(0) for c in range(way)])
            head = {"weight": 2 * scale * means, "bias": -scale * (means * means).sum(1)}
        if self.contextual:
            size = slow["film.0.gamma"].shape[0]
            blank = torch.zeros(size, dtype=z.dtype, requires_grad=True)
            head["context"] = z.mean(0) @ slow["generator"] if self.generated else blank
        return head | {name: slow[name] * 1 for name in self.names}

    def features(self, slow: Params, moving: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if not self.on_features:
            params = trained(slow) if self.said["transductive"] else dict(slow)
            for name in self.names:
                params[name] = moving.get(name, slow[name])
            if self.contextual and "context" in moving:
                for name in [name for name in slow if name.startswith("film.")]:
                    params[name[5:]] = slow[name[5:]] + moving["context"] @ slow[name]
            x = self.net.body(params, x)
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()

    def logits(self, slow: Params, moving: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return F.linear(self.features(slow, moving, x), moving["weight"], moving["bias"])

    def rate(self, slow: Params, name: str, k: int, way: int) -> Tensor | float:
        group, share = ("head", way) if name in ("weight", "bias") else ("body", 1)
        per = self.said["rates"]
        if per == "fixed":
            return share * (LR if group == "head" else BODY_LR)
        if per == "parameter":
            return share * slow[f"rate.{name}"]
        rate = slow[f"{group}.log_lr"].exp() * share
        return rate[k] if per == "step" else rate / (1 + k)


def made(case: Case, net: Net) -> Learner:
    return LEARNERS[case.learner](net, steps=STEPS, lr=LR, body_lr=BODY_LR, **case.settings)


def by_reference(reference: Reference, slow: Params, tasks: Tasks) -> tuple[Tensor, dict[str, Tensor], Params]:
    own = copied(slow)
    loss = reference(own, tasks)
    leaves = trained(own)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradient = {
        name: torch.zeros_like(value) if g is None else g
        for (name, value), g in zip(leaves.items(), found, strict=True)
    }
    return loss.detach(), gradient, own


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_meta_gradient_is_that_of_loops_and_autograd(case, count):
    net = small_net()
    learner = made(case, net)
    slow, tasks = parameters(learner), tasks_of(net, count)
    loss, gradient, after = by_reference(Reference(net, case), slow, tasks)
    own = copied(slow)
    found = meta_gradient(learner, own, tasks, case.weights)
    close({"loss": found.loss}, {"loss": loss})
    close(found.gradient, gradient)
    close(own, after)  # running statistics
    assert all(value.abs().max() > 0 for name, value in gradient.items() if "log_lr" in name or "rate." in name)


def test_every_gradient_learner_of_the_registry_is_compared():
    """Reptile, whose meta-gradient is not the query loss's, is compared in test_reptile.py."""
    net = small_net()
    rates = {name for name, make in LEARNERS.items() if any("lr" in k or "rate." in k for k in parameters(make(net)))}
    assert rates == {case.learner for case in CASES.values()}


def test_context_from_zero():
    net, case = small_net(), Case("metanet")
    scope = context(net, size=5, generated=False)
    make = partial(adapting, name="metanet", scope=scope, steps=STEPS, lr=LR, body_lr=BODY_LR)
    plain, products = make(net), make(net._replace(body=net.products))
    slow, tasks = parameters(plain), tasks_of(net, 2)
    _, gradient, _ = by_reference(Reference(net, case, generated=False), slow, tasks)
    close(joined(plain, products, copied(slow), tasks).gradient, gradient)


@pytest.mark.parametrize("case", [CASES["maml"], CASES["every step counts, context"]], ids=["maml", "context"])
def test_tasks_side_by_side_are_tasks_one_by_one(case):
    net = small_net()
    learner = made(case, net)
    slow, tasks = parameters(learner), tasks_of(net, 8)
    found = [learner.outer(copied(slow), tasks, case.weights, chunk=chunk) for chunk in (1, 3, 8)]
    for other in found[1:]:
        close({"loss": other.loss}, {"loss": found[0].loss}, digits=1e-12)
        close(other.gradient, found[0].gradient, digits=1e-11)


def test_batched_features_are_tasks_one_by_one():
    """The tasks of an update share batch statistics, so one by one they are given features; the body then rests."""
    net = small_net()
    for name in ("anil", "lstm", "matching-fce", "mann"):
        learner = LEARNERS[name](net)
        slow, tasks = parameters(learner), tasks_of(net, 3)
        rng = torch.Generator().manual_seed(2)
        z = [torch.randn(*x.shape[:2], net.dim, generator=rng, dtype=x.dtype) for x in (tasks.x, tasks.query_x)]
        tasks = tasks._replace(x=z[0], query_x=z[1])
        together = meta_gradient(learner, slow, tasks)
        alone = [meta_gradient(learner, slow, Tasks(*(part[i : i + 1] for part in tasks))) for i in range(3)]
        close({"loss": together.loss}, {"loss": sum(one.loss for one in alone) / 3})
        mean = {name: sum(one.gradient[name] for one in alone) / 3 for name in together.gradient}
        close(together.gradient, mean)
        assert together.gradient["0.weight"].abs().max() == 0


def test_no_step_at_all_is_the_loss_at_the_start():
    net = small_net()
    for name in ("maml", "anil"):
        learner = LEARNERS[name](net, steps=0, head="prototypes")
        slow, tasks = parameters(learner), tasks_of(net, 2)
        found = meta_gradient(learner, copied(slow), tasks)
        assert found.loss > 0.1 and found.gradient["head.log_temperature"].abs() > 0


def test_a_learner_that_changes_the_body_says_how_it_is_trained():
    net = small_net()
    learner = LEARNERS["maml"](net)._replace(outer=None)
    with pytest.raises(ValueError, match="maml changes the body and has no outer gradient"):
        meta_gradient(learner, parameters(learner), tasks_of(net, 1))
