"""The parts of the inner loop, each against what its formula gives by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from edgemeta.learners.inner import (
    DONE,
    PER,
    Rates,
    Scope,
    chosen,
    cross_entropy,
    descend,
    normal,
    prototype_head,
)
from tests.learners.doubles import DOUBLE, small_net

ADAPTED = {"weight": torch.zeros(4), "bias": torch.zeros(()), "0.gamma": torch.zeros(3)}


def test_cross_entropy_of_classes_of_one_size_is_torchs_and_ignores_padding(generator):
    logits, labels = torch.randn(9, 3, generator=generator), torch.tensor([0, 2, 1, 1, 0, 2, 0, 1, 2])
    onehot = F.one_hot(labels, 3).float()
    torch.testing.assert_close(cross_entropy(logits, onehot), F.cross_entropy(logits, labels))
    onehot[6:] = 0.0
    torch.testing.assert_close(cross_entropy(logits, onehot), F.cross_entropy(logits[:6], labels[:6]))


def test_each_class_counts_alike(generator):
    """Losses of class 0: a; of class 1: b and c; of class 2, which has no examples, none: (a + (b + c) / 2) / 2."""
    logits, labels = torch.randn(3, 3, generator=generator), torch.tensor([0, 1, 1])
    a, b, c = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(labels, 3).float()), (a + (b + c) / 2) / 2)


def test_prototype_head_scores_by_squared_distance(generator):
    """Up to what all classes share: the query's own squared length."""
    z = torch.randn(6, 5, generator=generator, **DOUBLE)
    labels, temperature = torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor(0.7, **DOUBLE)
    head = prototype_head(z, F.one_hot(labels, 3).double(), temperature)
    query = torch.randn(4, 5, generator=generator, **DOUBLE)
    means = torch.stack([z[labels == c].mean(0) for c in range(3)])
    want = -temperature * torch.cdist(query, means).square()
    got = query @ head["weight"].T + head["bias"]
    torch.testing.assert_close(got - got[:, :1], want - want[:, :1], rtol=1e-10, atol=1e-10)


def test_class_without_examples_has_a_finite_head(generator):
    head = prototype_head(torch.randn(2, 4, generator=generator), torch.eye(3)[:2], torch.tensor(1.0))
    assert head["weight"][2].abs().max() == 0 and all(value.isfinite().all() for value in head.values())


def test_normal_features_have_mean_zero_and_length_root_d(generator):
    z = normal(torch.rand(5, 8, generator=generator) * 40 + 3)
    torch.testing.assert_close(z.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().sum(1), torch.full((5,), 8.0), rtol=1e-4, atol=0)
    assert normal(torch.zeros(2, 8)).abs().max() == 0  # padding


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["0.weight", "0.gamma", "0.beta", "2.weight", "2.gamma", "2.beta", "3.weight", "3.gamma", "3.beta"]),
        ({"kinds": ("gamma", "beta")}, ["0.gamma", "0.beta", "2.gamma", "2.beta", "3.gamma", "3.beta"]),
        ({"last": 1}, ["3.weight", "3.gamma", "3.beta"]),
        ({"last": 2, "kinds": ("weight",)}, ["2.weight", "3.weight"]),
    ],
)
def test_scope_takes_what_it_names_and_puts_it_back(settings, names):
    net = small_net()
    slow = net.init(rng=torch.Generator().manual_seed(0))
    scope = chosen(net, **settings)
    fast = scope.start(slow, lambda: torch.zeros(net.dim))
    assert list(scope.names) == names == list(fast) and all(fast[name] is slow[name] for name in names)
    woven = scope.weave(slow, {name: value + 1 for name, value in fast.items()} | {"weight": torch.ones(1)})
    assert set(woven) == set(slow)
    for name, value in slow.items():
        torch.testing.assert_close(woven[name], value + (name in names))


def test_no_scope_leaves_the_body_alone():
    slow = {"0.weight": torch.ones(1)}
    assert Scope().names == () and Scope().start(slow, lambda: torch.ones(1)) == {} and Scope().weave(slow, {}) is slow


# Rates 0.5 for the head and 0.2 for the body, 3 steps; per step they are made 1, 2, 3 times that: what a rate is at the
# first, second, third and fifth step of a task of 4 ways.
SCHEDULES = {
    "group": ([2.0, 1.0, 2 / 3, 0.4], [0.2, 0.1, 0.2 / 3, 0.04]),
    "step": ([2.0, 4.0, 6.0, 6.0], [0.2, 0.4, 0.6, 0.6]),
    "parameter": ([2.0] * 4, [0.2] * 4),
    "fixed": ([2.0] * 4, [0.2] * 4),
}


@pytest.mark.parametrize("per", PER)
def test_how_far_a_step_goes(per):
    law = Rates(per, head=0.5, body=0.2, steps=3)
    slow = law.init(ADAPTED)
    if per == "step":
        slow = {name: value + torch.tensor([1.0, 2.0, 3.0]).log() for name, value in slow.items()}
    for name, want in (("weight", SCHEDULES[per][0]), ("bias", SCHEDULES[per][0]), ("0.gamma", SCHEDULES[per][1])):
        for done, rate in zip((0, 1, 2, 4), want, strict=True):
            found = law.rate(slow, name, torch.tensor([float(done)]), 4)
            assert torch.allclose(found, torch.tensor(rate)), (name, done)


def test_rates_are_learned_as_their_logarithms_or_as_they_are():
    def init(per, adapted=ADAPTED):
        return Rates(per, head=0.5, body=0.2, steps=3).init(adapted)

    assert {name: value.shape for name, value in init("group").items()} == {"head.log_lr": (), "body.log_lr": ()}
    assert init("group")["head.log_lr"].item() == pytest.approx(math.log(0.5))
    assert {name: value.shape for name, value in init("step").items()} == {"head.log_lr": (3,), "body.log_lr": (3,)}
    own = init("parameter")
    assert {name: value.shape for name, value in own.items()} == {f"rate.{k}": v.shape for k, v in ADAPTED.items()}
    assert own["rate.weight"].unique().item() == 0.5 and own["rate.0.gamma"].unique().item() == pytest.approx(0.2)
    assert init("fixed") == {}
    assert set(init("group", {"weight": torch.zeros(4), "bias": torch.zeros(())})) == {"head.log_lr"}


@pytest.mark.parametrize(("second_order", "slope"), [(True, 1 - 0.1 * 6), (False, 1.0)])
def test_a_step_and_its_derivative(second_order, slope):
    """Loss 3 w^2 at w = 2, rate 0.1: w' = 2 - 0.1 * 12 = 0.8; dw'/dw = 1 - 0.1 * 6, or 1 if the step is a constant."""
    w = torch.tensor(2.0, requires_grad=True)
    moved = descend(lambda m: 3 * m["w"] ** 2, {"w": w}, lambda name: torch.tensor(0.1), second_order=second_order)
    assert moved["w"].item() == pytest.approx(0.8)
    (found,) = torch.autograd.grad(moved["w"], w)
    assert found.item() == pytest.approx(slope)


def test_names_of_the_head_are_no_names_of_a_body():
    net = small_net()
    assert not {"weight", "bias", DONE} & set(net.init(rng=torch.Generator().manual_seed(0)))
