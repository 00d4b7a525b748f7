"""Start weights by task: the mixture, its gradient, its running statistics, and that two domains gain by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.errors import BadConfig
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.outer import Tasks, meta_gradient, trained
from edgemeta.learners.settings import Training
from edgemeta.learners.train import adapt, train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.tasks.embedding import embed
from edgemeta.tasks.initializer import SCOPES, initializer, mixed, mixture, prepared, spread, start_weights
from tests.blobs import blob_pool


@pytest.fixture(scope="module")
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8}])))


@pytest.fixture(scope="module")
def pools():
    """Two domains: bright on dark, and dark on bright at half the contrast."""
    plain = blob_pool(classes=20, seed=0)
    return [plain, negative(plain)]


def negative(pool):
    return replace(pool, x=(255 - pool.x.float() / 2).to(torch.uint8))


def tasks_of(pool, count: int, way: int, seed: int = 0) -> Tasks:
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(20)[:way] for _ in range(count)]
    support = torch.stack([pool.images(np.array([pool.by_class[c][0] for c in own])) for own in classes])
    query = torch.stack([pool.images(np.array([pool.by_class[c][1] for c in own])) for own in classes])
    return Tasks(support, torch.eye(way).repeat(count, 1, 1), query, torch.arange(way).repeat(count, 1))


def started(learner, pools, seed: int = 0, **more):
    slow = learner.init(rng=torch.Generator().manual_seed(seed))
    return prepared(slow, pools, Training(way=10), rng=np.random.default_rng(seed), tasks=48, **more)


@pytest.mark.parametrize("name", ["protonet", "maml"])
@pytest.mark.parametrize("scope", SCOPES)
def test_one_basis_is_the_learner_itself(net, pools, name, scope):
    """Same loss, gradient and running statistics: an initializer of one start adds nothing and loses nothing."""
    learner = LEARNERS[name](net)
    one = initializer(learner, bases=1, noise=0.0, scope=scope)
    slow, many = (made.init(rng=torch.Generator().manual_seed(2)) for made in (learner, one))
    for value in [*trained(slow).values(), *trained(many).values()]:
        value.requires_grad_()
    tasks = tasks_of(pools[0], 1, 5)
    plain, through = meta_gradient(learner, slow, tasks), meta_gradient(one, many, tasks)
    torch.testing.assert_close(plain.loss, through.loss)
    for key, value in plain.gradient.items():
        kept = through.gradient[f"basis.{key}"][0] if SCOPES[scope](key) else through.gradient[f"shared.{key}"]
        torch.testing.assert_close(kept, value)
    for key in (key for key in slow if key.startswith("stat.")):
        torch.testing.assert_close(many[f"stat.basis.{key[5:]}"][0], slow[key])


@pytest.mark.parametrize(("name", "settings"), [("protonet", {}), ("maml", {"transductive": True})])
def test_gradient_is_that_of_the_mixture(net, pools, name, settings):
    """Against a central difference along a random direction, in float64; of MAML, second order and all.

    MAML is transductive here: running statistics follow the weights, and no gradient knows of that.
    """
    learner = LEARNERS[name](net, **settings)
    made = initializer(learner, bases=3, noise=0.3)
    slow = {key: value.double() for key, value in started(made, pools).items()}
    tasks = Tasks(*(field.double() if field.is_floating_point() else field for field in tasks_of(pools[1], 2, 4)))
    rng = torch.Generator().manual_seed(1)
    way = {key: torch.randn(value.shape, generator=rng).double() for key, value in trained(slow).items()}

    def meta(step: float):
        moved = {key: value + step * way[key] if key in way else value.clone() for key, value in slow.items()}
        for value in trained(moved).values():
            value.requires_grad_()
        return meta_gradient(made, moved, tasks)

    wanted = (meta(1e-6).loss - meta(-1e-6).loss) / 2e-6
    found = sum((gradient * way[key]).sum() for key, gradient in meta(0.0).gradient.items())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert all(meta(0.0).gradient[key].abs().max() > 0 for key in ("mix.1.weight", "mix.2.bias"))


def test_a_domain_that_stands_alone_owns_its_statistics(net, pools):
    """At shares of 1 and 0 one basis runs as in batch norm and the other stays."""
    learner = LEARNERS["protonet"](net)
    slow = started(initializer(learner, noise=0.0), pools) | {"mix.2.bias": torch.tensor([40.0, -40.0])}
    plain = {key: value.clone() for key, value in mixed(slow, torch.tensor([1.0, 0.0])).items()}
    for value in [*trained(slow).values(), *trained(plain).values()]:
        value.requires_grad_()
    kept = {key: value[1].clone() for key, value in slow.items() if key.startswith("stat.basis.")}
    tasks = tasks_of(pools[0], 1, 5)
    meta_gradient(learner, plain, tasks)
    meta_gradient(initializer(learner), slow, tasks)
    for key, value in kept.items():
        torch.testing.assert_close(slow[key][0], plain["stat." + key.removeprefix("stat.basis.")])
        torch.testing.assert_close(slow[key][1], value)


def test_statistics_come_to_fit_every_mixture(net, pools):
    """Soft shares: after many tasks of both domains each domain's mixed statistics are those of its own images."""
    learner = LEARNERS["protonet"](net)
    made = initializer(learner, noise=0.0)
    slow = started(made, pools, sure=0.8)
    for value in trained(slow).values():
        value.requires_grad_()
    for i in range(80):
        meta_gradient(made, slow, tasks_of(pools[i % 2], 1, 15, seed=i))
    for pool in pools:
        own = start_weights(slow, embed(Support(tasks_of(pool, 1, 15).x[0], torch.eye(15))))
        right = {key: value.detach().clone() for key, value in own.items()}
        for i in range(60):
            net.body(right, tasks_of(pool, 1, 15, seed=100 + i).images, train=True)
        for key in ("stat.0.mean", "stat.0.var"):
            far = (own[key] - right[key]).abs() / (right["stat.0.var"].sqrt() if key.endswith("mean") else right[key])
            assert far.max() < 0.2, key


def test_a_channel_that_died_stays_a_number(net, pools):
    made = initializer(LEARNERS["protonet"](net))
    slow = started(made, pools)
    slow["stat.basis.0.var"][:, 0] = 0.0
    slow["basis.0.weight"][:, 0] = 0.0
    for value in trained(slow).values():
        value.requires_grad_()
    tasks = tasks_of(pools[0], 1, 5)
    for _ in range(3):
        found = meta_gradient(made, slow, tasks)
    assert all(value.isfinite().all() for value in [found.loss, *found.gradient.values(), *slow.values()])
    assert (slow["stat.basis.0.var"][:, 0] < 1e-11).all()


@pytest.mark.parametrize("bases", [2, 4])
def test_prepared_tells_domains_apart_on_unseen_classes(net, pools, bases):
    slow = started(initializer(LEARNERS["protonet"](net), bases=bases), pools)
    unseen = blob_pool(classes=20, seed=5)
    for place, pool in enumerate((unseen, negative(unseen))):
        for seed in range(5):
            shares = mixture(slow, embed(Support(tasks_of(pool, 1, 5, seed).x[0], torch.eye(5))))
            assert shares.sum().item() == pytest.approx(1, abs=1e-5)
            assert shares[place::2].sum() > 0.7


@pytest.mark.parametrize("bases", [1, 3])
def test_one_pool_shares_all_bases(net, pools, bases):
    slow = started(initializer(LEARNERS["protonet"](net), bases=bases), pools[:1])
    shares = mixture(slow, embed(Support(tasks_of(pools[0], 1, 5).x[0], torch.eye(5))))
    torch.testing.assert_close(shares, torch.full((bases,), 1 / bases), atol=0.1, rtol=0)


def test_start_weights_are_what_the_learner_starts_from(net, pools):
    """The initializer as a learner answers as the learner itself does from the start weights."""
    learner = LEARNERS["anil"](net)
    made = initializer(learner)
    slow, tasks = started(made, pools), tasks_of(pools[0], 1, 5)
    support = Support(tasks.x[0], tasks.onehot[0])
    own = start_weights(slow, embed(support))
    assert set(own) == set(learner.init(rng=torch.Generator()))
    fast = adapt(learner, own, support._replace(x=net.body(own, support.x)))
    wanted = learner.predict(own, fast, net.body(own, tasks.query_x[0]))
    torch.testing.assert_close(made.predict(slow, adapt(made, slow, support), tasks.query_x[0]), wanted)


def test_spread_puts_each_start_into_its_basis(net):
    learner = LEARNERS["protonet"](net)
    starts = [learner.init(rng=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    bases = spread(starts, rng=torch.Generator())
    for start, shares in zip(starts, torch.eye(2), strict=True):
        for key, value in mixed(bases, shares).items():
            torch.testing.assert_close(value, start[key])
    halved = spread(starts, scope="norm", rng=torch.Generator())
    torch.testing.assert_close(halved["shared.0.weight"], (starts[0]["0.weight"] + starts[1]["0.weight"]) / 2)
    noisy = spread(starts[:1] * 2, noise=0.5, rng=torch.Generator().manual_seed(0))["basis.0.weight"]
    assert 0.3 < (noisy[0] - noisy[1]).std() / noisy.std() < 1.0


def test_two_domains_gain_over_one_shared_start(net, pools):
    learner = LEARNERS["protonet"](net)
    made = initializer(learner)
    settings = Training(40, way=10, query=2)
    shared = train(
        learner, learner.init(rng=torch.Generator().manual_seed(0)), pools, settings, rng=np.random.default_rng(0)
    )
    mixing = train(made, started(made, pools), pools, settings, rng=np.random.default_rng(0))
    unseen = blob_pool(classes=12, seed=7)

    def score(of, slow):
        task = {"way": 5, "shot": 1, "query": 5, "episodes": 60}
        judged = [(pool, features(of, slow, pool)) for pool in (unseen, negative(unseen))]
        return np.mean([evaluate(of, slow, p, z, rng=np.random.default_rng(1), **task).mean for p, z in judged])

    assert score(made, mixing) > score(learner, shared) + 0.02 > 0.5  # chance is 0.2


def test_rng_decides_the_start_and_arguments_are_left_alone(net, pools):
    made = initializer(LEARNERS["protonet"](net))
    slow, again, other = (started(made, pools, seed) for seed in (3, 3, 4))
    assert all(torch.equal(slow[key], again[key]) for key in slow)
    assert not torch.equal(slow["basis.0.weight"], other["basis.0.weight"])
    train(made, slow, pools, Training(2, way=5), rng=np.random.default_rng(0))
    assert all(torch.equal(slow[key], again[key]) for key in slow)


@pytest.mark.parametrize(
    ("settings", "said"), [({"bases": 0}, "bases is 0"), ({"scope": "norms"}, "did you mean 'norm'")]
)
def test_bad_settings_are_refused(net, settings, said):
    with pytest.raises(BadConfig, match=said):
        initializer(LEARNERS["protonet"](net), **settings).init(rng=torch.Generator())


def test_what_trains_one_body_is_refused(net, pools):
    slow = initializer(LEARNERS["anil"](net)).init(rng=torch.Generator().manual_seed(0))
    with pytest.raises(BadConfig, match="warmup 0.7 and frozen 50 are for one body"):
        prepared(slow, pools, Training(way=5, warmup=0.7, frozen=50), rng=np.random.default_rng(0))
