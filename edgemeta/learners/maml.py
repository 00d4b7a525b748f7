"""MAML and what follows from it by settings: FOMAML, ANIL, Meta-SGD, norm-only, last-block and context adaptation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Net, Params, Support
from edgemeta.errors import BadConfig, nearest
from edgemeta.learners.context import context
from edgemeta.learners.inner import DONE, PER, Rates, Scope, chosen, cross_entropy, descend, normal, prototype_head
from edgemeta.learners.outer import joined

SCOPES: dict[str, Callable[[Net], Scope]] = {
    "head": lambda net: Scope(),
    "norm": lambda net: chosen(net, kinds=("gamma", "beta")),
    "last": lambda net: chosen(net, last=1),
    "all": chosen,
    "context": context,
}
HEADS = ("prototypes", "row")


def maml(net: Net, *, name: str = "maml", scope: str = "all", **settings: Any) -> Learner:
    """Model-Agnostic Meta-Learning (Finn 2017, arXiv:1703.03400): weights from which a few gradient steps learn a task.

    `scope` says what of the body adapts beside the head: "head" nothing (ANIL; such a learner works on features),
    "norm" scales and shifts of the norms, "last" the last convolution, "all" everything, "context" a small vector
    that modulates the norms. For the rest see `adapting`.
    """
    _refuse("scope", scope, SCOPES)
    of = SCOPES[scope](net)
    learner = adapting(net, name, of, **settings)
    if learner.on_features:
        return learner
    products = adapting(net._replace(body=net.products), name, of, **settings)
    return learner._replace(outer=partial(joined, learner, products))


def adapting(
    net: Net,
    name: str,
    scope: Scope,
    *,
    steps: int = 5,
    lr: float = 0.02,
    body_lr: float = 0.01,
    second_order: bool = True,
    rates: str = "group",
    head: str = "prototypes",
    temperature: float = 10.0,
    transductive: bool = False,
) -> Learner:
    """A learner whose step is a gradient step on the support's cross-entropy.

    slow: the body, the rates (see `inner.Rates`), what the scope adds, and for `head="row"` the row `head.row` (d,)
    that every class starts from, for `head="prototypes"` `head.log_temperature` (). fast: `weight` (way, d), `bias`
    (way,), `done` (1,) steps taken, and the scope's tensors.

    Departures. The head belongs to no fixed number of classes: it starts from one row (Ye & Chao 2022,
    arXiv:2106.12637) or from the support's class means (Triantafillou 2020, arXiv:1903.03096), so any number of ways
    can be adapted, and their order does not matter. Each class counts alike, however many examples it has. Features
    are layer-normalised, rates are learned. Batch norm uses running statistics, so that no query sees another;
    `transductive=True` normalises by the batch, as the papers do.
    """
    _refuse("rates", rates, PER)
    _refuse("head", head, HEADS)
    law, on_features = Rates(rates, lr, body_lr, steps), not scope.names
    if transductive and on_features:
        raise BadConfig(f"'{name}' leaves the body alone, so nothing of it is transductive; leave the setting out")

    def features(params: Params, x: Tensor) -> Tensor:
        """Normalised features (n, d) of what a support holds: features already, or images."""
        if on_features:
            return normal(x)
        seen = {key: value for key, value in params.items() if not (transductive and key.startswith("stat."))}
        return normal(net.body(seen, x))

    def init(*, rng: torch.Generator) -> Params:
        slow = {**net.init(rng=rng), **scope.init(rng=rng)}
        if head == "row":
            slow["head.row"] = torch.zeros(net.dim)
        else:
            slow["head.log_temperature"] = torch.tensor(temperature).log()
        one = {"weight": torch.zeros(net.dim), "bias": torch.zeros(())}
        return slow | law.init(one | scope.start(slow, lambda: torch.zeros(net.dim)))

    def start(slow: Params, support: Support) -> Fast:
        way, seen = support.onehot.shape[1], support.onehot.sum(1, keepdim=True)
        z = cache(lambda: features(slow, support.x))  # a pass through the body, where the head or the scope asks
        if head == "row":
            own = {"weight": slow["head.row"][None].repeat(way, 1), "bias": seen.new_zeros(way)}
        else:
            own = prototype_head(z(), support.onehot, slow["head.log_temperature"].exp() / (2 * net.dim))
        return own | scope.start(slow, lambda: (seen * z()).sum(0) / seen.sum()) | {DONE: seen.new_zeros(1)}

    def step(slow: Params, fast: Fast, support: Support) -> Fast:
        """One gradient step on the support's cross-entropy. Source: eq. 1."""
        done, way = fast[DONE], support.onehot.shape[1]
        moved = {key: value for key, value in fast.items() if key != DONE}
        moved = descend(
            lambda moved: cross_entropy(predict(slow, moved, support.x), support.onehot),
            moved,
            lambda key: law.rate(slow, key, done, way),
            second_order=second_order,
        )
        return moved | {DONE: done + 1}

    def predict(slow: Params, fast: Fast, x: Tensor) -> Tensor:
        """Logits (n, way)."""
        return features(scope.weave(slow, fast), x) @ fast["weight"].T + fast["bias"]

    return Learner(name, net, on_features, steps, init, start, step, predict, transductive=transductive)


def _refuse(setting: str, value: str, known: Iterable[str]) -> None:
    """Anything unknown."""
    if value not in known:
        raise BadConfig(f"{setting} = {value!r} is unknown; {nearest(value, known)}")
