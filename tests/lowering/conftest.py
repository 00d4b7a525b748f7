"""A small network with running statistics that are not those of its initialisation, and learners on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from edgemeta.contracts import Learner, Net, Params
from edgemeta.learners import LEARNERS
from edgemeta.lowering.trace import TracedLearner, trace
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny

BUNDLED = ("protonet", "matching", "mann", "lstm", "maml-last")  # of each kind one: what is dear is done with these
SETTINGS = [
    {"width": 4, "kind": "conv", "down": "pool"},
    {"width": 8, "depth": 2, "kind": "mb3", "down": "stride"},
]


class Trained(NamedTuple):
    net: Net
    slow: Params
    learner: Learner


def train(make: Callable[[Net], Learner], *, seed: int = 0) -> Trained:
    """As good as trained: every statistic and every learned number has moved."""
    rng = torch.Generator().manual_seed(seed)
    space = tiny()
    net = build(space.ops(space.arch(SETTINGS)))
    learner = make(net)
    slow = learner.init(rng=rng)
    for _ in range(3):
        net.body(slow, torch.randn(16, *net.in_shape, generator=rng) + 0.5, train=True)
    moved = {
        name: value if name.startswith("stat.") else value + 0.1 * torch.randn(value.shape, generator=rng)
        for name, value in slow.items()
    }
    return Trained(net, moved, learner)


@pytest.fixture(scope="session", params=LEARNERS)
def trained(request) -> Trained:
    return train(LEARNERS[request.param])


@pytest.fixture(scope="session")
def traced(trained) -> TracedLearner:
    return trace(trained.learner, trained.slow)


@pytest.fixture(scope="session", params=BUNDLED)
def bundled(request) -> Trained:
    return train(LEARNERS[request.param])


@pytest.fixture(scope="session")
def anil() -> Trained:
    return train(LEARNERS["anil"])


@pytest.fixture(scope="session")
def make_trained():
    return train


@pytest.fixture(scope="session")
def protonet() -> Trained:
    return train(LEARNERS["protonet"])
