"""Supernets: which networks an update trains, what they are taught, and what is inherited."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgemeta.errors import BadConfig
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.outer import meta_gradient
from edgemeta.learners.protonet import protonet
from edgemeta.learners.settings import Training, draw_tasks
from edgemeta.learners.shards import gather
from edgemeta.nets.supernet import recalibrated, supernet
from edgemeta.search.supernet import UPDATES, Sandwich, calibration, inherited, learn, learner, sandwich, score
from edgemeta.space.presets import conv4_64, edge
from edgemeta.space.presets import tiny as tiny_space
from tests.blobs import blob_pool

QUICK = Sandwich(most_mmacs=0.4, training=Training(episodes=12, way=6, check_every=2))
POOLS = blob_pool(classes=20, seed=0), blob_pool(classes=12, seed=1)
JUDGE = blob_pool(classes=8, seed=2)


class Stopped(Exception):
    """What a progress bar may throw."""


def macs(space, arch):
    return sum(op.macs for op in space.ops(arch))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def numbers(space):
    return [slot for slot, (_, options) in enumerate(space.slots) if not isinstance(options[0], str)]


@pytest.fixture(scope="module")
def trained():
    """A supernet of `tiny` after a moment of training."""
    net = supernet(tiny_space())
    settings = replace(QUICK, training=Training(episodes=150, way=10))
    return net, settings, learn(net, POOLS, settings, seed=0)


@pytest.mark.parametrize("make", [edge, "tiny"], ids=["edge", "tiny"])
def test_without_a_cap_the_first_is_the_largest_and_the_second_the_smallest(tiny, make):
    space = tiny if make == "tiny" else make()
    for update in range(8):
        large, small, *others = sandwich(space, Sandwich(drawn=3), update, seed=0)
        for slot in numbers(space):
            options = space.slots[slot][1]
            assert options[large.picks[slot]] == max(options) and options[small.picks[slot]] == min(options)
        assert len(others) == 3


@pytest.mark.parametrize("drawn", [0, 2, 5])
def test_every_kind_has_its_turn_in_every_role(drawn):
    space, settings = edge(), Sandwich(drawn=drawn, most_mmacs=9.0)
    slots = [slot for slot in range(len(space.slots)) if slot not in numbers(space)]
    assert len(slots) == 8
    for first in (0, 4, 40):
        updates = [sandwich(space, settings, first + update, seed=3) for update in range(4)]
        for role in range(2 + drawn):
            for slot in slots:
                count = Counter(update[role].picks[slot] for update in updates)
                assert set(count.values()) == {4 // len(space.options(slot))} and len(count) == len(space.options(slot))
        for update in updates:
            for slot in slots:
                count = Counter(arch.picks[slot] for arch in update)
                times = [count[pick] for pick in space.options(slot)]
                assert max(times) - min(times) <= 1  # evenly within an update, too


def test_sizes_of_the_others_are_drawn_alike(tiny):
    space = tiny
    drawn = [arch for update in range(100) for arch in sandwich(space, Sandwich(drawn=6), update, seed=0)[2:]]
    for slot in numbers(space):
        count = Counter(arch.picks[slot] for arch in drawn)
        share = len(drawn) / len(space.options(slot))
        assert all(0.75 * share < count[pick] < 1.25 * share for pick in space.options(slot))


def test_under_a_cap_all_fit_and_of_the_large_ones_nothing_can_grow():
    space = edge()
    settings = Sandwich(most_mmacs=macs(space, conv4_64(space)) / 1e6)
    for update in range(12):
        archs = sandwich(space, settings, update, seed=1)
        assert all(macs(space, arch) <= macs(space, conv4_64(space)) for arch in archs)
        for slot in numbers(space):
            pick = archs[0].picks[slot] + 1
            if pick < len(space.options(slot)):
                assert not settings.fits(space, archs[0].swap(slot, pick))


def test_where_next_to_nothing_fits_the_others_fit_all_the_same(tiny, monkeypatch):
    monkeypatch.setattr("edgemeta.search.supernet.TRIES", 0)
    settings = replace(QUICK, drawn=4)
    archs = sandwich(tiny, settings, 0, seed=0)
    assert len(archs) == 6 and all(settings.fits(tiny, arch) for arch in archs)


def test_the_arguments_decide_the_networks(tiny):
    rows = [sandwich(tiny, QUICK, update, seed=seed) for update, seed in ((5, 0), (6, 0), (5, 1))]
    assert rows[0] == sandwich(tiny, QUICK, 5, seed=0)
    assert rows[0] != rows[1] and rows[0] != rows[2]


@pytest.mark.parametrize("distil", [0.0, 0.8])
@pytest.mark.parametrize("update", [3, 40])
def test_an_update_is_the_mean_over_its_networks_taught_by_the_large_one(tiny, distil, update):
    net, settings = supernet(tiny), replace(QUICK, distil=distil)
    shared = learner(net, settings, seed=7)
    slow = shared.init(rng=torch.Generator().manual_seed(0))
    leaves = {name: value.requires_grad_() for name, value in slow.items() if name != UPDATES}
    drawn = draw_tasks(POOLS[:1], Training(way=5, query=2, tasks=2), rng=np.random.default_rng(0))
    tasks = gather(POOLS[:1], drawn)
    slow[UPDATES] += update
    share = distil * min(1.0, update / 12)  # of the large one's answers: along the training
    found = meta_gradient(shared, slow, tasks)
    assert slow[UPDATES] == update + 1
    losses, teacher = [], None
    for arch in sandwich(tiny, settings, update, seed=7):
        params = net.params(leaves, arch)
        z = F.layer_norm(net.net(arch).body(params, tasks.images), (net.net(arch).dim,))
        support, query = z[:10].view(2, 5, 1, -1), z[10:].view(2, 10, -1)
        distance = torch.cdist(query, support.mean(2)) ** 2
        logits = (-leaves["head.log_temperature"].exp() / (2 * z.shape[1]) * distance).flatten(0, 1)
        hard = F.cross_entropy(logits, tasks.query_y.flatten())
        if teacher is None:
            teacher, loss = logits.detach().softmax(1), hard
        else:
            loss = (1 - share) * hard - share * (teacher * logits.log_softmax(1)).sum(1).mean()
        losses.append(loss)
    expected = torch.stack(losses).mean()
    assert len(losses) == 4 and float(found.loss) == pytest.approx(float(expected.detach()), rel=1e-4)
    gradient = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    assert found.gradient.keys() == leaves.keys()
    for name, value in zip(leaves, gradient, strict=True):
        own = torch.zeros_like(leaves[name]) if value is None else value
        torch.testing.assert_close(found.gradient[name], own, rtol=1e-3, atol=1e-5)


def test_training_lowers_the_loss_and_what_is_inherited_is_better_than_chance(trained):
    net, settings, shared = trained
    fresh = learner(net, settings, seed=0).init(rng=torch.Generator().manual_seed(0))
    assert shared[UPDATES] == 150
    tasks = [
        gather(POOLS, draw_tasks(POOLS, settings.training.suited(POOLS), rng=np.random.default_rng(s)))
        for s in range(5)
    ]
    losses = []
    for slow in (fresh, shared):
        slow = {name: value.clone().requires_grad_() for name, value in slow.items()} | {UPDATES: torch.tensor(1000.0)}
        losses.append(np.mean([float(learner(net, settings, seed=0).outer(slow, own, (1.0,)).loss) for own in tasks]))
    assert losses[1] < 0.8 * losses[0]
    batches = calibration(POOLS, settings.training, 4, rng=np.random.default_rng(0))
    for arch in sandwich(net.space, settings, 77, seed=5):
        found = score(net, shared, arch, batches, JUDGE, way=4, episodes=60, rng=np.random.default_rng(1))
        assert found.mean > 0.25 + 0.15 and found.episodes == 60 and not found.transductive


def test_a_score_is_that_of_the_inherited_weights_with_statistics_of_the_images(trained):
    net, settings, shared = trained
    batches = calibration(POOLS, settings.training, 3, rng=np.random.default_rng(0))
    arch = sandwich(net.space, settings, 0, seed=2)[2]
    found = score(net, shared, arch, batches, JUDGE, way=3, shot=2, episodes=20, rng=np.random.default_rng(1))
    few = protonet(net.net(arch))
    slow = recalibrated(
        few.net, {name: shared[of][part].clone() for name, (of, part) in net.slices(arch).items()}, batches
    )
    slow["head.log_temperature"] = shared["head.log_temperature"]
    own, theirs = inherited(net, shared, arch, batches)
    assert same(theirs, slow) and own.net.ops == few.net.ops
    z = features(few, slow, JUDGE)
    assert found == evaluate(few, slow, JUDGE, z, way=3, shot=2, query=8, episodes=20, rng=np.random.default_rng(1))


def test_calibration_takes_its_images_from_each_pool_in_turn():
    dark = [replace(pool, scale=value) for pool, value in zip(POOLS, (0.0, 1 / 255), strict=True)]
    batches = calibration(dark, Training(way=50, shot=(1, 3), query=2), 5, rng=np.random.default_rng(0))
    assert [bool(batch.any()) for batch in batches] == [False, True, False, True, False]
    assert {batch.shape for batch in batches} == {(12 * 5, 1, 12, 12)}  # as many ways as the smaller pool has


def stop_at(limit):
    def tick(done):
        if done >= limit:
            raise Stopped

    return tick


@pytest.mark.parametrize("stops", [(3,), (7,), (4, 9)], ids=str)
def test_a_stopped_training_goes_on_to_the_same_bits(tiny, tmp_path, stops):
    net, ticks = supernet(tiny), []
    for stop in stops:
        with pytest.raises(Stopped):
            learn(net, POOLS, QUICK, seed=1, keep=tmp_path / "c", tick=stop_at(stop))
    found = learn(net, POOLS, QUICK, seed=1, keep=tmp_path / "c", tick=ticks.append)
    assert ticks[0] > 2  # it went on
    assert same(found, learn(net, POOLS, QUICK, seed=1))
    assert not same(found, learn(net, POOLS, QUICK, seed=2))


@pytest.mark.parametrize("other", ["seed", "distil", "most_mmacs", "drawn", "per_kind"])
def test_another_trainings_progress_is_not_used(tiny, tmp_path, other):
    with pytest.raises(Stopped):
        learn(supernet(tiny), POOLS, QUICK, seed=1, keep=tmp_path / "c", tick=stop_at(5))
    changes = {"distil": 0.1, "most_mmacs": 0.5, "drawn": 1}
    settings = replace(QUICK, **{other: changes[other]}) if other in changes else QUICK
    ticks = []
    net = supernet(tiny, per_kind=other != "per_kind")
    learn(net, POOLS, settings, seed=2 if other == "seed" else 1, keep=tmp_path / "c", tick=ticks.append)
    assert ticks[0] == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"drawn": -1}, "drawn -1 .*give 0 or more"),
        ({"distil": 1.5}, "distil 1.5 .*0 to 1"),
        ({"most_mmacs": 0.0}, "no network has 0 million"),
        ({"training": Training(warmup=0.5)}, "no warmup"),
        ({"training": Training(patience=3)}, "no warmup, frozen, multi_step or patience; leave them at 0"),
    ],
)
def test_settings_that_teach_nothing_are_refused_in_a_line(wrong, said):
    with pytest.raises(BadConfig, match=said) as refusal:
        Sandwich(**wrong)
    assert "\n" not in str(refusal.value)


def test_a_cap_that_some_kinds_cannot_meet_is_refused(tiny):
    with pytest.raises(BadConfig, match=r"smallest network of some kinds has 0\.\d\d million .*raise most_mmacs"):
        learn(supernet(tiny), POOLS, replace(QUICK, most_mmacs=0.01), seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_it_trains_on_cuda(tiny):
    here, there = (learn(supernet(tiny), POOLS, QUICK, seed=0, device=device) for device in ("cpu", "cuda"))
    assert {value.device.type for value in there.values()} == {"cpu"}
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=0.1, atol=0.05)
