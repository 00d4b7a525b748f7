"""Optuna's samplers as searchers: constraints, two objectives, nothing proposed twice."""

from dataclasses import replace
from random import Random

import pytest

from edgemeta.errors import BadConfig
from edgemeta.search import optuna_samplers
from edgemeta.search.optuna_samplers import SAMPLERS, OptunaSearch
from edgemeta.types import Arch, Cost
from tests.search.landscapes import drive, hill, trial


def macs(space, arch):
    return Cost(sum(op.macs for op in space.ops(arch)) / 1e6, 1.0, 1.0)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_nothing_is_proposed_twice(sampler, tiny):
    asked = drive(OptunaSearch(tiny, sampler=sampler, seed=0), 50, hill)
    assert len(set(asked)) == 50


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_cap_pulls_proposals_under_it(sampler, tiny):
    """The best scores are over the cap; told how far, late proposals are under it more often than by chance."""
    rng = Random(0)
    cap = Cost(latency_ms=sorted(macs(tiny, tiny.sample(rng=rng)).latency_ms for _ in range(200))[60])
    fits, searcher = [], OptunaSearch(tiny, sampler=sampler, seed=0)
    for _ in range(80):
        arch = searcher.ask()
        cost = macs(tiny, arch)
        fits.append(cost.fits(cap))
        told = trial(arch, hill(arch), cap=cap) if fits[-1] else trial(arch, None, "infeasible", cap)
        searcher.tell(replace(told, cost=cost))
    assert sum(fits[-40:]) / 40 > 0.45


def test_an_infeasible_trial_carries_how_far_it_is_over_and_a_neutral_score(tiny):
    searcher, rng = OptunaSearch(tiny, sampler="tpe", seed=0), Random(0)
    archs = [tiny.sample(rng=rng) for _ in range(4)]
    for arch, score in zip(archs[:2], (0.4, 0.6), strict=True):
        searcher.tell(trial(arch, score))
    searcher.tell(trial(archs[2], None, "infeasible", Cost(latency_ms=0.5)))
    searcher.tell(trial(archs[3], None, "failed: loss is nan"))
    rows = searcher._study.get_trials()
    assert [row.state.name for row in rows] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert rows[2].value == pytest.approx(0.5)
    over = [row.system_attrs["constraints"][0] for row in rows[:3]]
    assert over == pytest.approx([0.0, 0.0, 0.6931], abs=1e-4)  # log(1 ms / .5 ms)


def test_nsga2_keeps_a_front_of_accuracy_and_latency(tiny):
    searcher = OptunaSearch(tiny, sampler="nsga2", seed=0)
    first = Arch(tiny.name, (0,) * len(tiny.slots))
    second, beaten = first.swap(0, 1), first.swap(1, 1)
    for arch, score, ms in ((first, 0.9, 3.0), (second, 0.5, 1.0), (beaten, 0.4, 2.0)):
        searcher.tell(replace(trial(arch, score), cost=Cost(ms, 1.0, 1.0)))
    assert {searcher._arch(row.params) for row in searcher._study.best_trials} == {first, second}


def test_settings_reach_the_sampler_and_an_unknown_one_is_named(tiny):
    searcher = OptunaSearch(tiny, sampler="nsga2", seed=0, population_size=7)
    assert searcher._study.sampler.population_size == 7
    with pytest.raises(BadConfig, match="no Optuna sampler 'tpee' here; did you mean 'tpe'"):
        OptunaSearch(tiny, sampler="tpee", seed=0)
    assert set(SAMPLERS) == {"tpe", "nsga2", "gp"}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_what_is_sampled_from_is_bounded_and_keeps_the_best(sampler, tiny, monkeypatch):
    monkeypatch.setitem(optuna_samplers.MEMORY, sampler, 16)
    searcher = OptunaSearch(tiny, sampler=sampler, seed=0)
    first = [searcher.ask() for _ in range(40)]
    kept = first.pop()  # told last of all
    for n, arch in enumerate(first):
        searcher.tell(trial(arch, 0.9 if n == 3 else 0.1 + n / 1000))
    assert len(set(drive(searcher, 40, hill)) | set(first)) == 79, "nothing is proposed twice"
    searcher.tell(trial(kept, 0.5))
    rows = searcher._study.get_trials(deepcopy=False)
    assert (
        sum(row.state.is_finished() for row in rows) <= 33 and max(row.values[0] for row in rows if row.values) == 0.9
    )
