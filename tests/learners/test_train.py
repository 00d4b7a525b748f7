"""The training loop's own promises; what it teaches is in test_contract.py."""

import numpy as np
import pytest
import torch

from edgemeta.errors import Diverged
from edgemeta.learners import LEARNERS
from edgemeta.learners.train import Training, train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool


@pytest.fixture
def parts():
    space = tiny()
    net, learner = build(space.ops(space.arch([{}, {}]))), LEARNERS["protonet"]()
    return learner, net, learner.init(net, rng=torch.Generator().manual_seed(0)), blob_pool(classes=8, seed=0)


def test_the_start_is_not_touched_and_the_result_needs_no_gradient(parts):
    learner, net, slow, pool = parts
    kept = {name: value.clone() for name, value in slow.items()}
    trained = train(learner, net, slow, pool, Training(3, way=4), rng=np.random.default_rng(0))
    assert all(torch.equal(kept[name], slow[name]) for name in slow)
    assert not any(value.requires_grad for value in trained.values())
    assert all(not torch.equal(trained[name], slow[name]) for name in ("0.weight", "stat.0.mean", "stat.0.var"))


def test_a_loss_that_is_no_number_stops_with_advice(parts):
    learner, net, slow, pool = parts
    broken = slow | {"0.weight": torch.full_like(slow["0.weight"], float("nan"))}
    with pytest.raises(Diverged, match=r"loss is nan after 0 episodes; lower lr"):
        train(learner, net, broken, pool, Training(3, way=4), rng=np.random.default_rng(0))


def test_tick_counts_every_episode(parts):
    learner, net, slow, pool = parts
    ticks: list[int] = []
    train(learner, net, slow, pool, Training(4, way=4), rng=np.random.default_rng(0), tick=ticks.append)
    assert ticks == [1, 2, 3, 4]
