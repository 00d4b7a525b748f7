"""What every learner of the registry must keep to. A new row joins by itself."""

import numpy as np
import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.settings import Training
from edgemeta.learners.train import adapt, train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool

# Both read the support one example after another, as their papers do: an LSTM over it, a memory filled row by row.
ORDERED = {"mann", "matching-fce"}
# How to learn is itself what meta-training teaches it: before, a memory says nothing about a label, and after it not
# much about supports longer than it was taught with.
TAUGHT = {"mann"}
# For tests of moments. The rates of a long training overshoot on a body that has hardly been trained.
CHANGES_BODY = {"steps": 2, "lr": 0.01, "body_lr": 0.005}
QUICK = {"mann": {"slots": 16}}


@pytest.fixture(scope="module")
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8}])))


@pytest.fixture(scope="module", params=LEARNERS)
def learner(request, net):
    make = LEARNERS[request.param]
    return make(net, **QUICK.get(request.param, {} if make(net).on_features else CHANGES_BODY))


@pytest.fixture(scope="module")
def slow(learner):
    return learner.init(rng=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained(learner, slow):
    """After a second of meta-training, which is all that most of them need here."""
    if learner.name in TAUGHT:
        settings = Training(480, way=5, query=5, tasks=8, lr=2e-2)
    else:
        settings = Training(60, way=8, query=3) if learner.on_features else Training(48, way=5, query=3, tasks=4)
    return train(learner, slow, blob_pool(classes=20, seed=0), settings, rng=np.random.default_rng(0))


def support_for(learner, way: int, shot: int, seed: int = 0) -> Support:
    """Features around a centre of each class, or images of a class's own strokes."""
    rng = torch.Generator().manual_seed(seed)
    if learner.on_features:
        centres = torch.randn(way, learner.net.dim, generator=rng) * 2
    else:
        strokes = (torch.rand(way, 1, 4, 4, generator=rng) > 0.5).float()
        centres = strokes.repeat_interleave(3, 2).repeat_interleave(3, 3)
    own = centres.repeat_interleave(shot, 0)
    return Support(own + 0.1 * torch.randn(own.shape, generator=rng), torch.eye(way).repeat_interleave(shot, 0))


def answers(learner, slow, support: Support, queries: int = 6) -> torch.Tensor:
    """Logits of queries after adaptation: what two ways of saying the same must agree in."""
    way = support.onehot.shape[1]
    query = support_for(learner, way, -(-queries // way), seed=9).x[:queries]
    return learner.predict(slow, adapt(learner, slow, support), query)


def test_registry_name_is_the_learners_name(net):
    assert all(make(net).name == name for name, make in LEARNERS.items())


def test_rng_decides_the_start(learner, slow):
    again = learner.init(rng=torch.Generator().manual_seed(3))
    other = learner.init(rng=torch.Generator().manual_seed(4))
    assert all(torch.equal(slow[name], again[name]) for name in slow)
    assert not torch.equal(slow["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("way", "shot"), [(2, 1), (5, 1), (5, 5), (20, 2)])
def test_logits_have_a_column_per_way_and_learn_the_support(learner, slow, way, shot):
    support = support_for(learner, way, shot)
    logits = learner.predict(slow, adapt(learner, slow, support), support.x)
    assert logits.shape == (way * shot, way) and logits.dtype == torch.float32 and logits.isfinite().all()
    right = (logits.argmax(1) == support.onehot.argmax(1)).float().mean()
    assert right > 0.8 or learner.name in TAUGHT


def test_classes_of_uneven_size_are_all_learned(learner, slow):
    """One, two, six and twelve examples: steps and sums that lean to the largest class would forget the smallest."""
    even = support_for(learner, 4, 12)
    some = torch.cat([torch.arange(12 * i, 12 * i + size) for i, size in enumerate((1, 2, 6, 12))])
    logits = learner.predict(slow, adapt(learner, slow, Support(even.x[some], even.onehot[some])), even.x)
    right = (logits.argmax(1) == even.onehot.argmax(1)).float().view(4, 12).mean(1)
    assert right.min() > 0.8 or learner.name in TAUGHT


def test_arguments_are_left_alone(learner, slow):
    support = support_for(learner, 3, 2)
    kept = {name: value.clone() for name, value in slow.items()}
    fast = learner.start(slow, support)
    kept_fast = {name: value.clone() for name, value in fast.items()}
    learner.step(slow, fast, support)
    assert all(torch.equal(kept[name], slow[name]) for name in slow)
    assert all(torch.equal(kept_fast[name], fast[name]) for name in fast)


def test_step_keeps_names_and_shapes(learner, slow):
    support = support_for(learner, 4, 1)
    fast = learner.start(slow, support)
    after = learner.step(slow, fast, support)
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in fast.items()}
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert any(not torch.equal(after[name], fast[name]) for name in fast)


def test_sums_are_claimed_where_they_hold(learner, slow):
    """Supports of uneven size, and a class that is in one of them only."""
    whole = support_for(learner, 3, 4)
    parts = [torch.tensor(rows) for rows in ([0, 1, 4, 8, 9, 10, 11], [2, 3, 5, 6, 7])]
    fast = adapt(learner, slow, whole)
    own = [adapt(learner, slow, Support(whole.x[part], whole.onehot[part])) for part in parts]
    rows = all(value.shape[0] == 3 for value in fast.values())
    same = rows and all(torch.allclose(own[0][name] + own[1][name], fast[name], atol=1e-5) for name in fast)
    assert learner.sums == same
    assert not learner.sums or all(not value[2].any() for value in own[1].values())


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_padding_rows_change_nothing(learner, slow, value):
    """Rows of zeros in `onehot`, whatever the example is: blank ones have no direction and no spread to divide by."""
    support = support_for(learner, 3, 2)
    padded = Support(
        torch.cat([support.x, torch.full((4, *support.x.shape[1:]), value)]),
        torch.cat([support.onehot, torch.zeros(4, 3)]),
    )
    plain, with_padding = answers(learner, slow, support), answers(learner, slow, padded)
    assert with_padding.isfinite().all()
    torch.testing.assert_close(plain, with_padding, rtol=1e-4, atol=1e-5)


def test_order_of_the_support_does_not_matter(learner, slow):
    support = support_for(learner, 3, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = Support(support.x[order], support.onehot[order])
    differ = (answers(learner, slow, support) - answers(learner, slow, shuffled)).abs().max()
    assert (differ > 1e-4) == (learner.name in ORDERED)


def test_a_query_does_not_see_the_others(learner, slow):
    """Never transductive: one query at a time gives the logits of all at once."""
    support = support_for(learner, 5, 1)
    fast = adapt(learner, slow, support)
    queries = support_for(learner, 5, 2, seed=9).x
    together = learner.predict(slow, fast, queries)
    alone = torch.cat([learner.predict(slow, fast, query[None]) for query in queries])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not learner.transductive


def test_training_repeats_exactly(learner, slow):
    pool, settings = blob_pool(classes=20, seed=0), Training(episodes=6, way=5, query=2, tasks=2)
    once, again = (train(learner, slow, pool, settings, rng=np.random.default_rng(0)) for _ in range(2))
    assert set(once) == set(slow)
    assert all(torch.equal(once[name], again[name]) for name in once)
    moved = {name for name in once if not torch.equal(once[name], slow[name])}
    assert {"0.weight", "0.gamma", "stat.0.mean", "stat.0.var"} <= moved


def score(learner, params, shot: int):
    unseen = blob_pool(classes=12, seed=3, per_class=15)
    task = {"way": 5, "shot": shot, "query": 5, "episodes": 100 if learner.on_features else 25}
    return evaluate(learner, params, unseen, features(learner, params, unseen), rng=np.random.default_rng(5), **task)


@pytest.fixture(scope="module")
def one_shot(learner, trained):
    return score(learner, trained, 1)


def test_training_teaches(learner, slow, one_shot):
    least = 0.3 if learner.name in TAUGHT else 0.5
    assert one_shot.mean > max(least, score(learner, slow, 1).mean - 0.05)  # chance is 0.2


def test_more_shots_never_hurt_much(learner, trained, one_shot):
    """Trained on one shot, asked for five: steps that overshoot would lose accuracy here."""
    five = score(learner, trained, 5)
    assert five.mean > one_shot.mean - one_shot.ci95 or (learner.name in TAUGHT and five.mean > 0.25)
