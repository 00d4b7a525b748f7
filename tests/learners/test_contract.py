"""What every learner of the registry must keep to. A new row joins by itself."""

import numpy as np
import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.train import Training, adapt, train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool


@pytest.fixture(params=LEARNERS.values(), ids=LEARNERS)
def learner(request):
    return request.param()


@pytest.fixture
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8}])))


@pytest.fixture
def slow(learner, net):
    return learner.init(net, rng=torch.Generator().manual_seed(3))


def support_for(net, way: int, shot: int, seed: int = 0) -> Support:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(way, net.dim, generator=rng) * 2
    x = centres.repeat_interleave(shot, 0) + 0.1 * torch.randn(way * shot, net.dim, generator=rng)
    return Support(x, torch.eye(way).repeat_interleave(shot, 0))


def test_registry_name_is_the_learners_name():
    assert all(make().name == name for name, make in LEARNERS.items())


def test_rng_decides_the_start(learner, net, slow):
    again = learner.init(net, rng=torch.Generator().manual_seed(3))
    other = learner.init(net, rng=torch.Generator().manual_seed(4))
    assert all(torch.equal(slow[name], again[name]) for name in slow)
    assert not torch.equal(slow["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("way", "shot"), [(2, 1), (5, 1), (5, 5), (20, 2)])
def test_logits_have_a_column_per_way_and_learn_the_support(learner, net, slow, way, shot):
    support = support_for(net, way, shot)
    logits = learner.predict(slow, adapt(learner, slow, support), support.x)
    assert logits.shape == (way * shot, way)
    assert (logits.argmax(1) == support.onehot.argmax(1)).float().mean() > 0.9


def test_arguments_are_left_alone(learner, net, slow):
    support = support_for(net, 3, 2)
    kept = {name: value.clone() for name, value in slow.items()}
    fast = learner.start(slow, support)
    kept_fast = {name: value.clone() for name, value in fast.items()}
    learner.step(slow, fast, support)
    assert all(torch.equal(kept[name], slow[name]) for name in slow)
    assert all(torch.equal(kept_fast[name], fast[name]) for name in fast)


def test_step_keeps_names_and_shapes(learner, net, slow):
    support = support_for(net, 4, 1)
    fast = learner.start(slow, support)
    after = learner.step(slow, fast, support)
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in fast.items()}
    assert any(not torch.equal(after[name], fast[name]) for name in fast)


def test_padding_rows_change_nothing(learner, net, slow):
    support = support_for(net, 3, 2)
    padded = Support(
        torch.cat([support.x, torch.full((4, net.dim), 7.0)]), torch.cat([support.onehot, torch.zeros(4, 3)])
    )
    plain, with_padding = adapt(learner, slow, support), adapt(learner, slow, padded)
    for name in plain:
        torch.testing.assert_close(plain[name], with_padding[name])


def test_order_of_the_support_does_not_matter(learner, net, slow):
    support = support_for(net, 3, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = Support(support.x[order], support.onehot[order])
    plain, other = adapt(learner, slow, support), adapt(learner, slow, shuffled)
    for name in plain:
        torch.testing.assert_close(plain[name], other[name], rtol=1e-4, atol=1e-5)


def test_a_query_does_not_see_the_others(learner, net, slow):
    """Never transductive: one query at a time gives the logits of all at once."""
    support = support_for(net, 5, 1)
    fast = adapt(learner, slow, support)
    queries = support_for(net, 5, 2, seed=9).x
    together = learner.predict(slow, fast, queries)
    alone = torch.cat([learner.predict(slow, fast, query[None]) for query in queries])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_training_teaches_and_repeats_exactly(learner, net, slow):
    pool, unseen = blob_pool(classes=20, seed=0), blob_pool(classes=10, seed=1)
    settings = Training(episodes=25, way=5, shot=1, query=3)

    def score(params):
        z = features(net, params, unseen)
        task = {"way": 5, "shot": 1, "query": 5, "episodes": 60}
        return evaluate(learner, params, unseen, z, rng=np.random.default_rng(5), **task).mean

    trained = train(learner, net, slow, pool, settings, rng=np.random.default_rng(0))
    again = train(learner, net, slow, pool, settings, rng=np.random.default_rng(0))
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert score(trained) > max(0.5, score(slow) - 0.05)  # chance is 0.2


def test_more_shots_never_hurt_much(learner, net, slow):
    """Trained on one shot, asked for five: steps that overshoot would lose accuracy here."""
    pool, unseen = blob_pool(classes=20, seed=0), blob_pool(classes=12, seed=3, per_class=15)
    trained = train(learner, net, slow, pool, Training(episodes=60, way=8, query=3), rng=np.random.default_rng(0))
    z = features(net, trained, unseen)

    def score(shot):
        task = {"way": 5, "shot": shot, "query": 5, "episodes": 100}
        return evaluate(learner, trained, unseen, z, rng=np.random.default_rng(5), **task)

    assert score(5).mean > score(1).mean - score(1).ci95
