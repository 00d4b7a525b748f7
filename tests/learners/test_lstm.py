"""The LSTM meta-learner: one coordinate by hand, and the meta-gradient against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from edgemeta.contracts import Support
from edgemeta.learners.lstm import lstm_learner, preprocessed
from edgemeta.nets.build import build
from edgemeta.types import Op
from tests.learners.doubles import DOUBLE, compare, layer_normal, small_net, torchs_cell


def test_preprocessing_by_hand():
    """p = 10: e^-5 is large, (-5 / 10, 1); -e^-12 is below e^-10, (-1, e^10 * -e^-12 = -e^-2); zero is (-1, 0)."""
    value = torch.tensor([math.exp(-5), -math.exp(-12), 0.0, -1.0], **DOUBLE)
    want = torch.tensor([[-0.5, 1.0], [-1.0, -math.exp(-2)], [-1.0, 0.0], [0.0, -1.0]], **DOUBLE)
    torch.testing.assert_close(preprocessed(value), want)


def test_one_update_by_hand():
    """A net of two features and a first LSTM of one unit.

    One example of class 0 among two, its features (1000, -1000): normalised (1, -1). Every class starts from the row
    (0.2, 0.2, 0.2), so both logits are alike, p = 1/2 and the loss is ln 2 = 0.693147. The gradient of class 0 is
    (p - 1) (1, -1, 1) = (-0.5, 0.5, -0.5), of class 1 its opposite; times two ways (-1, 1, -1) and (1, -1, 1).

    Preprocessed gradient: (ln 1 / 10, sign) = (0, +-1). The first LSTM reads the sign alone, into its candidate; its
    gates are sigmoid(0) = 1/2: cell = tanh(+-1) / 2 = +-0.380797, hidden = tanh(+-0.380797) / 2 = +-0.181700.

    Input gate: weights 1, 1, 1 on hidden, theta and the last gate (0): sigmoid(+-0.181700 + 0.2), which is 0.594283
    where the gradient is 1 and 0.504575 where it is -1. Forget gate: theta alone: sigmoid(0.2) = 0.549834.
    theta' = 0.549834 * 0.2 - gate * gradient = 0.109967 - 0.594283 = -0.484316 or 0.109967 + 0.504575 = 0.614542.
    """
    learner = lstm_learner(build((Op("conv", (1, 1, 1), (2, 1, 1)),)), size=1)
    blank = {name: torch.zeros_like(value).double() for name, value in learner.init(rng=torch.Generator()).items()}
    read_sign = torch.zeros(4, 4, **DOUBLE)
    read_sign[1, 2] = 1.0  # from the gradient's sign to the candidate
    slow = blank | {
        "head.row": torch.full((3,), 0.2, **DOUBLE),
        "first.input": read_sign,
        "input.weight": torch.ones(3, **DOUBLE),
        "forget.weight": torch.tensor([0.0, 1.0, 0.0], **DOUBLE),
    }
    support = Support(torch.tensor([[1000.0, -1000.0]], **DOUBLE), torch.tensor([[1.0, 0.0]], **DOUBLE))
    fast = learner.step(slow, learner.start(slow, support), support)
    up, down = 0.614542, -0.484316
    want = {
        "theta": torch.tensor([[up, down, up], [down, up, down]], **DOUBLE),
        "enter": torch.tensor([[0.504575, 0.594283, 0.504575], [0.594283, 0.504575, 0.594283]], **DOUBLE),
        "keep": torch.full((2, 3), 0.549834, **DOUBLE),
        "cell": torch.tensor([[-1, 1, -1], [1, -1, 1]], **DOUBLE)[..., None] * 0.380797,
        "hidden": torch.tensor([[-1, 1, -1], [1, -1, 1]], **DOUBLE)[..., None] * 0.181700,
    }
    for name, value in want.items():
        torch.testing.assert_close(fast[name], value, rtol=0, atol=1e-6)
    assert learner.predict(slow, fast, support.x)[0].tolist() == pytest.approx(
        [up - down + up, down - up + down], abs=3e-6
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("second_order", [False, True])
def test_meta_gradient_is_that_of_loops(second_order, count):
    def logits(slow, z, labels, query):
        z, query, way = layer_normal(z), layer_normal(query), int(labels.max()) + 1
        cell = torchs_cell(slow, "first")
        theta = torch.stack([slow["head.row"]] * way)
        state = (torch.zeros(theta.numel(), 5, **DOUBLE),) * 2
        gates = [torch.zeros_like(theta).flatten(), torch.zeros_like(theta).flatten()]
        for _ in range(3):
            loss = F.cross_entropy(F.linear(z, theta[:, :-1], theta[:, -1]), labels)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=second_order, retain_graph=True)
            gradient, loss = (gradient, loss) if second_order else (gradient.detach(), loss.detach())
            gradient, own = way * gradient.flatten(), theta.flatten()
            seen = torch.stack([*seen_as(gradient), *(part.expand_as(own) for part in seen_as(loss))], 1)
            state = cell(seen, state)
            for i, name in enumerate(("input", "forget")):
                inputs = torch.column_stack([state[0], own, gates[i]])
                gates[i] = torch.sigmoid(inputs @ slow[f"{name}.weight"] + slow[f"{name}.bias"])
            theta = (gates[1] * own - gates[0] * gradient).view_as(theta)
        return F.linear(query, theta[:, :-1], theta[:, -1])

    def seen_as(value):
        large = value.abs() >= math.exp(-10)
        safe = torch.where(large, value, 1.0)  # the logarithm of a zero would spoil the derivatives of all
        return torch.where(large, safe.abs().log() / 10, -1.0), torch.where(large, value.sign(), math.exp(10) * value)

    gradient = compare(lstm_learner(small_net(), steps=3, size=5, second_order=second_order), logits, count=count)
    assert all(gradient[name].abs().max() > 0 for name in ("head.row", "first.input", "first.hidden", "input.weight"))


def test_a_new_rule_is_near_gradient_descent():
    """It keeps nearly all (sigmoid(5)) and steps by about `rate` times the ways: from there meta-training starts."""
    learner = lstm_learner(small_net(), rate=0.1)
    rng = torch.Generator().manual_seed(0)
    slow = learner.init(rng=rng)
    support = Support(torch.randn(6, learner.net.dim, generator=rng), torch.eye(3).repeat(2, 1))
    theta = torch.zeros(3, learner.net.dim + 1, requires_grad=True)
    z = torch.nn.functional.layer_norm(support.x, support.x.shape[1:])
    loss = F.cross_entropy(F.linear(z, theta[:, :-1], theta[:, -1]), support.onehot.argmax(1))
    (gradient,) = torch.autograd.grad(loss, theta)
    fast = learner.step(slow, learner.start(slow, support), support)
    assert fast["keep"].min() > 0.99
    torch.testing.assert_close(fast["theta"], -0.1 * 3 * gradient, rtol=0.05, atol=1e-6)
