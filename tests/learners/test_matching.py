"""Matching Networks: attention by hand, and both meta-gradients against loops with torch's own LSTM cells."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from edgemeta.contracts import Support
from edgemeta.learners.matching import LEAST, matching
from edgemeta.learners.protonet import protonet
from edgemeta.nets.build import build
from edgemeta.types import Op
from tests.learners.doubles import DOUBLE, compare, layer_normal, seeded, small_net, torchs_cell

WIDTH, READS = 6, 3


def test_attention_by_hand():
    """Two features: normalised, (1, -1) or (-1, 1), so a cosine is 1 or -1. With the scale ln 3 an example that looks
    like the query weighs e^ln 3 = 3 and one that does not 1/3.

    Support: class 0 like the query, class 1 unlike it, class 1 like it, class 2 unlike it: weights 3, 1/3, 3, 1/3;
    but class 1 has two examples, so each of its weighs half: 3, 1/6, 3/2, 1/3 of 5 in all. Labels: 9/15, 5/15, 1/15.
    """
    learner = matching(build((Op("conv", (1, 1, 1), (2, 1, 1)),)))
    slow = {"head.log_scale": torch.tensor(math.log(math.log(3)), **DOUBLE)}
    like, unlike = [1000.0, -1000.0], [-2000.0, 2000.0]
    onehot = torch.eye(3, **DOUBLE)[[0, 1, 1, 2]]
    support = Support(torch.tensor([like, unlike, like, unlike], **DOUBLE), onehot)
    fast = learner.step(slow, learner.start(slow, support), support)
    query = torch.tensor([[3000.0, -3000.0], [-1000.0, 1000.0]], **DOUBLE)
    want = torch.tensor([[9 / 15, 5 / 15, 1 / 15], [1 / 15, 5 / 15, 9 / 15]], **DOUBLE)
    torch.testing.assert_close(learner.predict(slow, fast, query).exp() - LEAST, want, rtol=0, atol=1e-9)


def attend(slow, query, keys):
    cosine = F.cosine_similarity(query[:, None], keys[None], dim=2)
    return torch.softmax(slow["head.log_scale"].exp() * cosine, 1)


def test_meta_gradient_is_that_of_loops():
    def logits(slow, z, labels, query):
        weights = attend(slow, layer_normal(query), layer_normal(z))
        return (torch.stack([weights[:, labels == c].sum(1) for c in range(3)], 1) + LEAST).log()

    compare(matching(small_net()), logits)


def full_context(slow, z, labels, query):
    """Eq. 3 to 6 and 9, example by example."""
    z, query = (layer_normal(layer_normal(part) @ slow["head.project"]) for part in (z, query))
    keys = list(z)
    for name, order in (("head.forward", range(len(z))), ("head.backward", range(len(z) - 1, -1, -1))):
        cell, state = torchs_cell(slow, name), None
        for i in order:
            state = cell(z[i : i + 1], state)
            keys[i] = keys[i] + state[0][0]
    keys, found = torch.stack(keys), []
    cell = torchs_cell(slow, "head.query")
    for own in query:
        hidden = read = torch.zeros(WIDTH, **DOUBLE)
        memory = torch.zeros(WIDTH, **DOUBLE)
        for _ in range(READS):
            new, memory = cell(torch.cat([own, read]), (hidden, memory))
            hidden = new + own
            read = attend(slow, hidden[None], keys)[0] @ keys
        found.append(hidden)
    weights = attend(slow, torch.stack(found), keys)
    return (torch.stack([weights[:, labels == c].sum(1) for c in range(3)], 1) + LEAST).log()


@pytest.mark.parametrize("count", [1, 2])
def test_meta_gradient_in_full_context_is_that_of_loops(count):
    learner = matching(small_net(), name="fce", full_context=True, width=WIDTH, reads=READS)
    gradient = compare(learner, full_context, count=count)
    assert all(value.abs().max() > 0 for value in gradient.values())


def test_meta_gradient_of_class_means_is_that_of_loops():
    def logits(slow, z, labels, query):
        z, query = layer_normal(z), layer_normal(query)
        means = torch.stack([z[labels == c].mean(0) for c in range(3)])
        distance = torch.stack([(query - mean).square().sum(1) for mean in means], 1)
        return -slow["head.log_temperature"].exp() * distance / (2 * z.shape[1])

    compare(protonet(small_net()), logits)


def test_full_context_reads_the_support_in_its_order():
    """Not a bug: the bidirectional LSTM of eq. 9 does. Without full context the order changes nothing."""
    supports = {}
    for full in (False, True):
        learner = matching(small_net(), full_context=full, width=WIDTH)
        slow = learner.init(rng=seeded(0))
        support = Support(torch.randn(6, learner.net.dim, generator=seeded(1)), torch.eye(3).repeat(2, 1))
        turned = Support(support.x.flip(0), support.onehot.flip(0))
        query = torch.randn(4, learner.net.dim, generator=seeded(2))
        supports[full] = [
            learner.predict(slow, learner.step(slow, learner.start(slow, own), own), query) for own in (support, turned)
        ]
    torch.testing.assert_close(*supports[False])
    assert (supports[True][0] - supports[True][1]).abs().max() > 1e-3
