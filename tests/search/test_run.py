"""A search trains only what fits, forgets nothing and repeats exactly."""

from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgemeta.errors import Infeasible
from edgemeta.learners.evaluate import Score
from edgemeta.search import run
from edgemeta.search.jobs import Result
from edgemeta.search.problem import rank
from edgemeta.types import Cost


def test_everything_trained_is_under_the_cap_and_the_refused_cost_nothing(start, problem):
    search = start(problem)
    ranking = search.run(trials=5, seconds=100)
    trained = search.ledger.trials()
    assert len(ranking) == 5 and all(problem.bound(trial.arch).fits(problem.cap) for trial in trained)
    assert search.infeasible and all(trial.score is None and trial.seconds == 0 for trial in search.infeasible)
    assert not any(problem.bound(trial.arch).fits(problem.cap) for trial in search.infeasible)


def test_halving_trains_the_best_longer_and_ranks_them_first(start, problem):
    ranking = start(problem).run(trials=6, seconds=100)
    assert [trial.fidelity for trial in ranking] == [6, 6, 2, 2, 2, 2]
    assert all(problem.weights_of(trial.arch, 2).exists() for trial in ranking)
    assert problem.weights_of(ranking[0].arch, 6).exists()


def test_the_same_seed_gives_the_same_search(start, problem, tmp_path):
    first = start(problem).run(trials=4, seconds=100)
    (tmp_path / "ledger.sqlite").unlink()
    again = start(problem).run(trials=4, seconds=100)
    assert [(trial.arch, trial.score) for trial in first] == [(trial.arch, trial.score) for trial in again]


def test_a_second_search_trains_only_what_is_missing(start, problem):
    start(problem).run(trials=4, seconds=100)
    search = start(problem)
    before = search.ledger.trials()
    search.run(trials=4, seconds=100)
    assert search.ledger.trials() == before
    start(problem).run(trials=6, seconds=100)
    assert len(rank(search.ledger.trials(), problem.space)) == 6


def test_a_trial_whose_weights_are_lost_counts_no_more(start, problem):
    best, *others = start(problem).run(trials=3, seconds=100)
    for episodes in problem.rungs:
        problem.weights_of(best.arch, episodes).unlink(missing_ok=True)
    search = start(problem)
    known = {trial.arch for trial in search.trained()}
    assert best.arch not in known and {trial.arch for trial in others} <= known
    again = search.run(trials=3, seconds=100)
    assert len(again) == 3 and all(problem.weights_of(t.arch, t.fidelity).exists() for t in again)


def test_another_cap_reuses_what_fits_it(start, problem):
    first = start(problem).run(trials=5, seconds=100)
    tight = replace(problem, cap=Cost(latency_ms=sorted(trial.cost.latency_ms for trial in first)[2]))
    search = start(tight)
    ranking = search.run(trials=3, seconds=100)
    known = {trial.arch for trial in first}
    assert {trial.arch for trial in ranking} <= known
    assert all(problem.cost(trial.arch).fits(tight.cap) for trial in ranking)


def test_a_cap_nothing_meets_is_refused_before_any_training(start, problem):
    search = start(replace(problem, cap=Cost(latency_ms=1e-6)))
    with pytest.raises(Infeasible, match="least found is latency"):
        search.run(trials=3, seconds=100)
    assert search.ledger.trials() == []


def test_a_training_that_diverges_is_marked_and_the_search_goes_on(start, problem):
    broken = replace(problem, training=replace(problem.training, lr=1e30))
    search = start(broken)
    assert search.run(trials=2, seconds=100) == []
    assert all(trial.status.startswith("failed: protonet: loss is nan") for trial in search.ledger.trials())


def test_equal_networks_are_trained_once(start, problem):
    """Depth 1 never reads the kind of the first stage: such picks are one network."""
    space = problem.space
    twins = [space.arch([{"kind": kind}, {"kind": "conv"}]) for kind in ("conv", "sep", "mb3")]
    search = start(replace(problem, cap=Cost()))
    search.run(trials=4, seconds=100, starts=twins)
    assert len({space.ops(trial.arch) for trial in search.ledger.trials() if trial.fidelity == 2}) == 4


def test_a_lost_weights_file_costs_time_not_the_search(start, problem):
    start(problem).run(trials=3, seconds=100)
    wide = replace(problem, rungs=(2, 6, 12))
    for path in problem.weights.glob("*-6.safetensors"):
        path.unlink()
    assert start(wide).run(trials=9, seconds=0)[0].fidelity == 12


def test_longer_rungs_in_a_used_folder_are_trained(start, problem):
    """What was trained too briefly for them is no answer, and no reason to leave a network out."""
    loose = replace(problem, cap=Cost())
    short = {trial.arch for trial in start(loose, name="random").run(trials=4, seconds=100)}
    long = start(replace(loose, rungs=(8, 20)), name="random")
    found = long.run(trials=4, seconds=100)
    assert found[0].fidelity == 20 and {trial.arch for trial in found if trial.fidelity >= 8} == short


def test_what_is_told_carries_the_cap_that_is_asked_for_now_and_a_refusal_what_it_was_refused_for(start, problem):
    loose = replace(problem, cap=Cost(latency_ms=0.2), device="another")
    start(loose).run(trials=4, seconds=100)
    now, told = start(replace(problem, cap=Cost(latency_ms=0.1)), name="random"), []
    now.searcher.tell = told.append
    now.run(trials=9, seconds=100)
    assert {trial.cap for trial in told} == {now.problem.cap}
    refused = [trial for trial in told if trial.status == "infeasible"]
    assert refused and not any(trial.cost.fits(trial.cap) for trial in refused)


def archs_of(search):
    return [trial.arch for trial in search.ledger.trials() if trial.fidelity == search.problem.rungs[0]]


def test_workers_and_interruptions_do_not_change_what_is_tried(start, problem, tmp_path):
    loose = replace(problem, cap=Cost(latency_ms=0.2), rungs=(1,), eval_episodes=4)
    whole = start(loose)
    whole.run(trials=18, seconds=100)
    wanted = set(archs_of(whole))
    (tmp_path / "ledger.sqlite").unlink()
    for trials in (5, 14):
        start(loose).run(trials=trials, seconds=100)
    last = replace_workers(start(loose), 3)
    last.run(trials=18, seconds=100)
    assert len(archs_of(last)) == 18 and set(archs_of(last)) == wanted


def replace_workers(search, workers):
    search.workers = workers
    return search


def test_networks_trained_further_are_promoted_by_what_they_were_at_the_cut(start, problem):
    """Old networks with long training must not keep new ones from it."""
    first = start(problem)
    first.run(trials=3, seconds=100)
    second = start(problem)
    ranking = second.run(trials=12, seconds=100)
    short = sorted((t for t in second.ledger.trials() if t.fidelity == 2), key=lambda t: t.score, reverse=True)
    longer = {trial.arch for trial in ranking if trial.fidelity == 6}
    assert {trial.arch for trial in short[:4]} <= longer


class Clockwork(Executor):
    """Trains at once, and takes time only by its own clock: some for each network, some for each episode."""

    def __init__(self, fixed_s, episode_s):
        self.now_s, self._fixed_s, self._episode_s = 0.0, fixed_s, episode_s

    def submit(self, work, limit_s, run_job, job, /):
        Path(job.weights).parent.mkdir(exist_ok=True)
        Path(job.weights).write_bytes(b"")
        taken_s = self._fixed_s + self._episode_s * job.training.episodes
        self.now_s += taken_s
        future: Future[Result] = Future()
        future.set_result(Result(Score(sum(op.macs for op in job.ops) % 97 / 100, 0.01, 10), taken_s))
        return future


@pytest.fixture
def ticking(start, problem, monkeypatch):
    """A search in made-up time, and the clock."""

    def make(fixed_s=0.0, **changes):
        search = start(replace(problem, cap=Cost(), rungs=(10, 30, 90), **changes), name="random")
        search.executor, search.workers = (clock := Clockwork(fixed_s, 0.1)), 1
        monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
        return search, clock

    return make


def test_a_search_that_time_ends_has_time_for_halving(ticking):
    search, clock = ticking()
    ranking = search.run(trials=1000, seconds=60.0)
    assert 50 < clock.now_s <= 60
    fidelities = [trial.fidelity for trial in ranking]
    assert fidelities.count(90) == round(len(ranking) / 9)
    assert len(ranking) - fidelities.count(10) == round(len(ranking) / 3)


def test_halving_takes_as_long_as_it_took_before(ticking):
    """Where time is not in proportion to episodes the first guess leaves some over, and the second does not."""
    search, clock = ticking(fixed_s=1.0)
    search.run(trials=1000, seconds=120.0)
    assert 70 < clock.now_s < 110
    again, later = ticking(fixed_s=1.0)
    again.run(trials=1000, seconds=120.0 - clock.now_s)
    assert 110 < clock.now_s + later.now_s <= 120
