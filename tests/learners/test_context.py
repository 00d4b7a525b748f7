"""The context scope: what modulates the norms, where it starts, and that a task changes nothing else."""

from __future__ import annotations

import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.learners import LEARNERS
from edgemeta.learners.context import context
from edgemeta.learners.train import adapt
from tests.learners.doubles import seeded, small_net

SIZE = 5


@pytest.fixture
def net():
    return small_net()


@pytest.fixture
def slow(net):
    return net.init(rng=seeded(0)) | context(net, size=SIZE).init(rng=seeded(1))


def test_two_matrices_for_each_norm_and_a_generator(net):
    added = context(net, size=SIZE).init(rng=seeded(1))
    norms = {name for name in net.init(rng=seeded(0)) if name.endswith((".gamma", ".beta"))}
    assert set(added) == {f"film.{name}" for name in norms} | {"generator"}
    assert added["film.0.gamma"].shape == (SIZE, net.ops[0].out_shape[0])
    assert added["generator"].shape == (net.dim, SIZE)
    assert set(added) - set(context(net, size=SIZE, generated=False).init(rng=seeded(1))) == {"generator"}


def test_norms_are_shifted_by_products_with_the_context(net, slow):
    """Two numbers of context, 2 and -3: twice the first row less three times the second."""
    w = torch.tensor([2.0, -3.0, 0.0, 0.0, 0.0])
    woven = context(net, size=SIZE).weave(slow, {"context": w})
    for name in slow:
        a = slow.get(f"film.{name}")
        shift = 0 if a is None else 2 * a[0] - 3 * a[1]
        torch.testing.assert_close(woven[name], slow[name] + shift)


def test_a_new_context_changes_nothing(net, slow):
    """The generator starts at zero, so meta-training starts from a network as it is."""
    scope, mean = context(net, size=SIZE), torch.randn(net.dim, generator=seeded(2))
    start = scope.start(slow, lambda: mean)
    assert list(start) == list(scope.names) == ["context"] and start["context"].tolist() == [0.0] * SIZE
    x = torch.rand((3, *net.in_shape), generator=seeded(3))
    torch.testing.assert_close(net.body(scope.weave(slow, start), x), net.body(slow, x), rtol=0, atol=0)


def test_a_generated_context_follows_the_support(net, slow):
    slow["generator"] = torch.randn(net.dim, SIZE, generator=seeded(4))
    mean = torch.randn(net.dim, generator=seeded(2))
    torch.testing.assert_close(context(net, size=SIZE).start(slow, lambda: mean)["context"], slow["generator"].T @ mean)
    assert context(net, size=SIZE, generated=False).start(slow, lambda: mean)["context"].abs().max() == 0


def test_only_the_context_and_the_head_belong_to_a_task(net):
    learner = LEARNERS["metanet"](net)
    slow = learner.init(rng=seeded(0))
    support = Support(torch.rand((6, *net.in_shape), generator=seeded(1)), torch.eye(3).repeat_interleave(2, 0))
    start, fast = learner.start(slow, support), adapt(learner, slow, support)
    assert set(fast) == {"weight", "bias", "context", "done"}
    assert (fast["context"] - start["context"]).abs().max() > 1e-6
    headless = fast | {"context": start["context"]}
    query = torch.rand((2, *net.in_shape), generator=seeded(2))
    assert (learner.predict(slow, fast, query) - learner.predict(slow, headless, query)).abs().max() > 1e-6
