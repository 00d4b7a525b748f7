"""NNI's own strategies over our spaces, under a cap, in this process."""

from pathlib import Path
from random import Random

import pytest

pytest.importorskip("nni", reason="no NNI here; `make nni` tests with it")

from nni.mutable import ConstraintViolation

from edgemeta.errors import Infeasible
from edgemeta.integrations.nni.nas import ArchSpace, explore, strategy, tpe
from edgemeta.integrations.nni.spaces import parameters
from edgemeta.types import Cost
from tests.search.landscapes import hill

CAP = Cost(latency_ms=0.004)  # one random pick in a hundred fits
STRATEGIES = {
    "evolution": lambda space: strategy.RegularizedEvolution(population_size=4, sample_size=2, seed=0),
    "random": lambda space: strategy.Random(seed=0),
    "tpe": lambda space: tpe(space, seed=0, n_startup_jobs=2),
    "grid": lambda space: strategy.GridSearch(seed=0),
}


@pytest.fixture
def macs(tiny):
    """1 ms per million multiply-accumulates."""
    return lambda arch: Cost(latency_ms=sum(op.macs for op in tiny.ops(arch)) / 1e6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_sees_only_what_fits(name, tiny, macs):
    space, seen = ArchSpace(tiny, macs, CAP), []

    def score(arch):
        seen.append(arch)
        return hill(arch)

    found = explore(STRATEGIES[name](space), space, score, trials=4)
    assert found == [(arch, hill(arch)) for arch in seen] and len(set(seen)) == len(seen) == 4
    assert all(macs(arch).fits(CAP) for arch in seen)


def test_evolution_climbs(tiny, macs):
    space = ArchSpace(tiny, macs, Cost(latency_ms=1.0))
    settings = {"population_size": 8, "sample_size": 4, "mutation_prob": 0.2, "seed": 0}
    found = explore(strategy.RegularizedEvolution(**settings), space, hill, trials=60)
    scores = [score for _, score in found]
    assert max(scores[30:]) > max(scores[:8])


def test_the_seed_decides(tiny, macs):
    space = ArchSpace(tiny, macs, CAP)
    runs = [explore(STRATEGIES["evolution"](space), space, hill, trials=6) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_sample_over_the_cap_is_no_member(tiny, macs):
    space = ArchSpace(tiny, macs, CAP)
    large = parameters(tiny.arch([{"width": 8, "kind": "mb6"}] * 2), tiny)
    assert not space.contains(large)
    with pytest.raises(ConstraintViolation, match="latency_ms over the cap: latency .* > latency 0.004 ms"):
        space.freeze(large)


def test_a_cap_that_nothing_meets_is_told_first(tiny, macs):
    with pytest.raises(Infeasible, match="raise --latency-ms"):
        ArchSpace(tiny, macs, Cost(latency_ms=1e-6))


def test_what_was_repaired_is_what_tpe_learns(tiny, macs):
    space = ArchSpace(tiny, macs, CAP)
    tuner = tpe(space, seed=0).tuner
    tuner.update_search_space({label: of.as_legacy_dict() for label, of in space.simplify().items()})
    arch = space.constraint.arch(tuner._near(7, tiny.sample(rng=Random(0))))
    tuner.receive_trial_result(7, parameters(arch, tiny), 0.5)
    tuner.trial_end(7, True)
    learned = {name[0]: records[-1].param for name, records in tuner._tuner._history.items()}
    assert [learned[name] for name, _ in tiny.slots] == list(arch.picks)


def test_the_example_on_the_page_runs():
    page = Path(__file__).resolve().parents[2] / "docs" / "nni.md"
    block = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(block, page.name, "exec"), names)
    assert names["space"].constraint.cost_of(names["best"]).fits(names["space"].constraint.cap)
