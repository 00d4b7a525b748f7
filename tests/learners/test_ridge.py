"""The closed form against numpy's least squares with penalty rows, and its running sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.learners.ridge import ridge
from tests.learners.doubles import DOUBLE, compare, layer_normal, parameters, seeded, small_net

PENALTY = 0.7


@pytest.fixture
def learner():
    return ridge(small_net(), penalty=PENALTY)


@pytest.fixture
def slow(learner):
    return {name: value.detach() for name, value in parameters(learner).items()}


def support_of(d: int, n: int, way: int, seed: int) -> Support:
    return Support(torch.randn(n, d, generator=seeded(seed), **DOUBLE), torch.eye(way, **DOUBLE)[torch.arange(n) % way])


def adapted(learner, slow, *supports):
    fast = learner.start(slow, supports[0])
    for support in supports:
        fast = learner.step(slow, fast, support)
    return fast


@pytest.mark.parametrize(("n", "way"), [(2, 2), (9, 3), (40, 20)])
def test_weights_are_those_of_least_squares_with_penalty_rows(learner, slow, n, way):
    """|Z W - Y|^2 + penalty |W|^2 is the plain least squares of Z with sqrt(penalty) I below it, and Y with zeros."""
    support = support_of(learner.net.dim, n, way, seed=3)
    z = layer_normal(support.x).numpy() / np.sqrt(learner.net.dim)
    penalty = np.sqrt(PENALTY)
    rows = np.concatenate([z, penalty * np.eye(learner.net.dim)])
    labels = np.concatenate([support.onehot.numpy(), np.zeros((learner.net.dim, way))])
    want = np.linalg.lstsq(rows, labels, rcond=None)[0]
    fast = adapted(learner, slow, support)
    np.testing.assert_allclose(fast["weight"].numpy(), want, rtol=0, atol=1e-10)
    query = torch.randn(5, learner.net.dim, generator=seeded(4), **DOUBLE)
    scores = layer_normal(query).numpy() / np.sqrt(learner.net.dim) @ want
    logits = slow["head.log_scale"].exp().item() * scores + slow["head.shift"].item()
    np.testing.assert_allclose(learner.predict(slow, fast, query).numpy(), logits, rtol=0, atol=1e-9)


def test_classes_weigh_alike_whatever_their_size(learner, slow):
    """Of 9 examples in 3 classes, one alone weighs as 3, one of two as 3/2, one of six as 1/2: rows times the root."""
    rows = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2])
    support = Support(torch.randn(9, learner.net.dim, generator=seeded(3), **DOUBLE), torch.eye(3, **DOUBLE)[rows])
    root = np.sqrt(np.array([3, 3 / 2, 1 / 2])[rows])[:, None]
    z = root * layer_normal(support.x).numpy() / np.sqrt(learner.net.dim)
    penalty = np.sqrt(PENALTY) * np.eye(learner.net.dim)
    labels = np.concatenate([root * support.onehot.numpy(), np.zeros((learner.net.dim, 3))])
    want = np.linalg.lstsq(np.concatenate([z, penalty]), labels, rcond=None)[0]
    np.testing.assert_allclose(adapted(learner, slow, support)["weight"].numpy(), want, rtol=0, atol=1e-10)


def test_two_supports_one_after_another_are_both_at_once(learner, slow):
    one, other = (support_of(learner.net.dim, n, 3, seed) for n, seed in ((6, 1), (9, 2)))
    both = Support(torch.cat([one.x, other.x]), torch.cat([one.onehot, other.onehot]))
    apart, together = adapted(learner, slow, one, other), adapted(learner, slow, both)
    for name, value in together.items():
        torch.testing.assert_close(apart[name], value, rtol=0, atol=1e-12)


def test_meta_gradient_is_that_of_loops(learner):
    """Solved over examples, as the paper does (eq. 4): Z' (Z Z' + penalty I)^-1 Y is the same solution."""

    def logits(slow, z, labels, query):
        z, query = (layer_normal(part) / part.shape[1] ** 0.5 for part in (z, query))
        kernel = z @ z.T + PENALTY * torch.eye(len(z), **DOUBLE)
        weight = z.T @ torch.linalg.solve(kernel, torch.nn.functional.one_hot(labels).double())
        return slow["head.log_scale"].exp() * query @ weight + slow["head.shift"]

    gradient = compare(learner, logits)
    assert gradient["head.log_scale"].abs() > 0 and gradient["head.shift"].abs() < 1e-12


def test_a_larger_penalty_makes_smaller_weights(slow):
    support = support_of(small_net().dim, 9, 3, seed=3)
    sizes = [adapted(ridge(small_net(), penalty=size), slow, support)["weight"].norm() for size in (0.1, 1.0, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_new_learner_has_the_scale_that_was_asked_for():
    slow = ridge(small_net(), scale=4.0).init(rng=seeded(0))
    assert slow["head.log_scale"].exp().item() == pytest.approx(4.0) and slow["head.shift"].item() == 0.0
