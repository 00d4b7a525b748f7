"""MAML and its relatives: what each adapts, what is refused, any number of ways. Gradients are in test_outer.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from edgemeta.contracts import Support
from edgemeta.errors import BadConfig
from edgemeta.learners import LEARNERS
from edgemeta.learners.inner import HEAD, Scope
from edgemeta.learners.maml import SCOPES, adapting, maml
from edgemeta.learners.train import adapt
from tests.learners.doubles import seeded, small_net

ADAPTED = {
    "head": [],
    "norm": ["0.gamma", "0.beta", "2.gamma", "2.beta", "3.gamma", "3.beta"],
    "last": ["3.weight", "3.gamma", "3.beta"],
    "all": [f"{i}.{kind}" for i in (0, 2, 3) for kind in ("weight", "gamma", "beta")],
    "context": ["context"],
}


def task(net, *, on_features=False, way=3, shot=2, seed=0) -> Support:
    """Features, or images of coarse patterns, each a little different from the class's own."""
    if on_features:
        own = torch.rand((way, net.dim), generator=seeded(seed))
    else:
        own = interpolate((torch.rand((way, 1, 3, 3), generator=seeded(seed)) > 0.5).float(), net.in_shape[1:])
    x = own.repeat_interleave(shot, 0)
    return Support(x + 0.1 * torch.rand(x.shape, generator=seeded(seed + 1)), torch.eye(way).repeat_interleave(shot, 0))


def loss_after(learner, slow, support) -> float:
    logits = learner.predict(slow, adapt(learner, slow, support), support.x)
    return cross_entropy(logits, support.onehot.argmax(1)).item()


@pytest.mark.parametrize("scope", SCOPES)
def test_each_scope_adapts_what_it_says_and_nothing_else(scope):
    net = small_net()
    learner = maml(net, scope=scope, steps=2)
    assert learner.on_features == (scope == "head") and (learner.outer is None) == learner.on_features
    slow, support = learner.init(rng=seeded(0)), task(net, on_features=learner.on_features)
    start, fast = learner.start(slow, support), adapt(learner, slow, support)
    assert set(fast) == {*HEAD, "done", *ADAPTED[scope]}
    assert fast["done"].tolist() == [2.0]
    assert all((fast[name] - start[name]).abs().max() > 0 for name in fast if name != "bias")


@pytest.mark.parametrize("head", ["prototypes", "row"])
@pytest.mark.parametrize("rates", ["group", "step", "parameter", "fixed"])
@pytest.mark.parametrize("scope", ["head", "all", "context"])
def test_steps_lower_the_loss_on_the_support(scope, rates, head):
    net = small_net()
    learner = maml(net, scope=scope, rates=rates, head=head, body_lr=0.01)
    slow, support = learner.init(rng=seeded(0)), task(net, on_features=scope == "head")
    losses = [loss_after(learner._replace(steps=steps), slow, support) for steps in (0, 1, 5, 8)]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[3] + 1e-3


@pytest.mark.parametrize("head", ["prototypes", "row"])
def test_classes_in_another_order_are_the_same_classes(head):
    net = small_net()
    learner = maml(net, head=head)
    slow, support = learner.init(rng=seeded(0)), task(net)
    order = torch.tensor([2, 0, 1])
    query = torch.rand((4, *net.in_shape), generator=seeded(9))
    plain = learner.predict(slow, adapt(learner, slow, support), query)
    turned = Support(support.x, support.onehot[:, order])
    torch.testing.assert_close(learner.predict(slow, adapt(learner, slow, turned), query), plain[:, order])


def test_no_scope_and_no_step_are_class_means():
    """What a body is warmed up with: the nearest mean of normalised features."""
    net = small_net()
    teacher = adapting(net, "class means", Scope(), steps=0, head="prototypes")
    slow, support = teacher.init(rng=seeded(0)), task(net, on_features=True)
    query = torch.rand((9, net.dim), generator=seeded(5))
    z, q = (torch.nn.functional.layer_norm(x, (net.dim,)) for x in (support.x, query))
    means = torch.stack([z[2 * c : 2 * c + 2].mean(0) for c in range(3)])
    logits = teacher.predict(slow, adapt(teacher, slow, support), query)
    assert torch.equal(logits.argmax(1), torch.cdist(q, means).argmin(1))


def test_transduction_is_said_and_seen():
    """Normalised by the batch, a query is classified differently beside others; never unless it is asked for."""
    net = small_net()
    assert not any(make(net).transductive for make in LEARNERS.values())
    query = torch.rand((6, *net.in_shape), generator=seeded(9))
    for transductive in (False, True):
        learner = maml(net, transductive=transductive)
        slow, support = learner.init(rng=seeded(0)), task(net)
        fast = adapt(learner, slow, support)
        together, part = learner.predict(slow, fast, query)[:3], learner.predict(slow, fast, query[:3])
        assert learner.transductive == transductive
        assert ((together - part).abs().max() > 1e-3) == transductive


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scope": "al"}, "scope = 'al' is unknown; did you mean 'all'"),
        ({"rates": "steps"}, "rates = 'steps' is unknown; did you mean 'step'"),
        ({"head": "prototype"}, "head = 'prototype' is unknown; did you mean 'prototypes'"),
        ({"scope": "head", "transductive": True}, "'maml' leaves the body alone, so nothing of it is transductive"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        maml(small_net(), **settings)


def test_first_order_adapts_alike():
    """It is only the outer gradient that differs."""
    net = small_net()
    slow, support = LEARNERS["maml"](net).init(rng=seeded(0)), task(net)
    first, second = (adapt(LEARNERS[name](net), slow, support) for name in ("fomaml", "maml"))
    assert all(torch.equal(first[name], second[name]) for name in second)
