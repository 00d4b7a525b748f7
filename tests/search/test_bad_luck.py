"""Trainings that crash, hang, score nothing or take their process along: the search goes on, or says why not."""

import math
import os
import threading
import time
from collections import Counter
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from edgemeta.errors import BadData, Diverged, EdgemetaError
from edgemeta.learners.evaluate import Score
from edgemeta.search import under_way
from edgemeta.search.feasible import require_feasible
from edgemeta.search.jobs import Result
from edgemeta.search.ledger import Ledger
from edgemeta.search.limits import within
from edgemeta.search.under_way import UnderWay
from edgemeta.search.workers import worker_pool
from edgemeta.space.named import named
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Cost


def trained(job, mean=0.5):
    """A training that takes no time."""
    Path(job.weights).parent.mkdir(exist_ok=True)
    Path(job.weights).write_bytes(b"")
    return Result(Score(mean, 0.01, 10), 0.1)


class Killed(BaseException):
    """Takes the process along."""


class Pool(Executor):
    """Works at once, in this thread; broken for good by what is killed."""

    broken = False

    def submit(self, work, /, *given):
        if self.broken:
            raise BrokenProcessPool("broken")
        future = Future()
        try:
            future.set_result(work(*given))
        except Killed:
            self.broken = True
            future.set_exception(BrokenProcessPool("broken"))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def search(start, problem, monkeypatch):
    """Of trainings that take no time; `outcome` decides what becomes of the n-th."""

    def make(outcome, **changes):
        count = Counter()

        def run_job(job):
            count["jobs"] += 1
            return outcome(count["jobs"], job)

        @contextmanager
        def pools(workers):
            count["pools"] += 1
            yield Pool()

        monkeypatch.setattr(under_way, "run_job", run_job)
        monkeypatch.setattr(under_way, "worker_pool", pools)
        made = start(replace(problem, rungs=(2,), **changes), name="random")
        made.executor, made.counted = Pool(), count
        return made

    return make


def statuses(search):
    return [trial.status for trial in search.ledger.trials()]


def test_a_crash_is_a_failed_trial_and_the_search_goes_on(search):
    def outcome(n, job):
        if n == 2:
            raise RuntimeError("out of luck\nand of lines")
        return trained(job)

    found = search(outcome)
    assert len(found.run(trials=5, seconds=100)) == 4
    assert statuses(found) == ["ok", "failed: crashed, RuntimeError: out of luck", "ok", "ok", "ok"]


@pytest.mark.parametrize("mean", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_told_and_kept_as_a_failure(search, mean):
    found = search(lambda n, job: trained(job, mean if n == 1 else 0.5))
    told = []
    found.searcher.tell = told.append
    assert [trial.score for trial in found.run(trials=3, seconds=100)] == [0.5, 0.5]
    assert statuses(found) == [f"failed: score is {mean}", "ok", "ok"]
    assert [trial.score for trial in told if trial.status != "infeasible"] == [None, 0.5, 0.5]


def test_a_training_that_takes_too_long_has_failed(search):
    found = search(lambda n, job: time.sleep(5) if n == 2 else trained(job))
    found.trial_seconds = 0.2
    found.run(trials=3, seconds=100)
    assert statuses(found) == ["ok", "failed: took more than 0.2 s", "ok"]


def test_trainings_that_are_all_too_long_are_no_crashes(search):
    found = search(lambda n, job: time.sleep(5))
    found.trial_seconds = 0.02
    assert found.run(trials=7, seconds=100) == [] and statuses(found) == ["failed: took more than 0.02 s"] * 7


@pytest.mark.parametrize("more_time", [False, True])
def test_a_search_that_goes_on_trains_what_crashed_again_and_what_failed_for_good_not(search, more_time):
    def outcome(n, job):
        if n == 2:
            raise RuntimeError("out of luck")
        if n == 3:
            raise Diverged("loss is nan")
        return time.sleep(5) if n == 4 else trained(job)

    def asked(found):
        found.trial_seconds = 0.2
        found.run(trials=6, seconds=100)
        return [trial.arch for trial in found.ledger.trials()]

    first = asked(search(outcome))
    again = search(lambda n, job: trained(job))
    again.trial_seconds = 0.4 if more_time else 0.2
    told = []
    again.searcher.tell, tell = lambda trial: (told.append(trial), tell(trial)), again.searcher.tell
    again.run(trials=6, seconds=100)
    trials = again.ledger.trials()
    assert [trial.arch for trial in trials] == [*first, first[1], *([first[3]] if more_time else [])]
    assert [trial.status for trial in trials[6:]] == ["ok"] * (1 + more_time)
    assert [trial.arch for trial in told if trial.status != "infeasible"] == first  # in the order of the first time


def test_crashes_in_a_row_end_the_search_with_everything_recorded(search):
    def outcome(n, job):
        if n > 1:
            raise MemoryError
        return trained(job)

    found = search(outcome)
    with pytest.raises(EdgemetaError, match="5 trainings in a row broke, the last with MemoryError; ") as caught:
        found.run(trials=20, seconds=100)
    assert "\n" not in str(caught.value)
    first, *others = statuses(found)
    assert first == "ok" and len(others) >= 5 and set(others) == {"failed: crashed, MemoryError"}


def test_a_training_that_diverges_is_no_crash(search):
    def outcome(n, job):
        raise Diverged("loss is nan")

    found = search(outcome)
    assert found.run(trials=7, seconds=100) == [] and statuses(found) == ["failed: loss is nan"] * 7


def test_what_the_user_can_mend_ends_the_search_at_once(search):
    def outcome(n, job):
        raise BadData("no images")

    found = search(outcome)
    with pytest.raises(BadData, match="no images"):
        found.run(trials=3, seconds=100)
    assert statuses(found) == []


def test_a_network_that_kills_its_worker_twice_has_failed(search):
    victims = []

    def outcome(n, job):
        victims.extend([job] if n == 2 else [])
        if job in victims:
            raise Killed
        return trained(job)

    found = search(outcome)
    assert len(found.run(trials=6, seconds=100)) == 5
    broke = "failed: crashed, RuntimeError: its worker process was killed twice, the second time working alone"
    assert Counter(statuses(found)) == {"ok": 5, broke: 1}
    assert found.counted["pools"] == 2  # one for the victim alone, one for all that followed


def test_a_network_that_was_killed_in_company_is_trained_alone(search):
    def outcome(n, job):
        if n == 2:
            raise Killed
        return trained(job)

    found = search(outcome)
    assert len(found.run(trials=6, seconds=100)) == 6 and statuses(found) == ["ok"] * 6
    again = found.run(trials=8, seconds=100)  # its first pool is broken for good
    assert len(again) >= 8


@pytest.mark.slow
def test_real_workers_that_are_killed_are_replaced(search, monkeypatch):
    found = search(trained)
    monkeypatch.setattr(under_way, "worker_pool", worker_pool)
    monkeypatch.setattr(under_way, "run_job", os._exit)
    with (
        worker_pool(1) as executor,
        UnderWay(found.problem, found.name, found.ledger, executor, 1, math.inf, None, print) as networks,
    ):
        with pytest.raises(RuntimeError, match="killed twice"):
            networks._result(3, networks._submit(3))
        monkeypatch.setattr(under_way, "run_job", abs)
        assert networks._submit(-3).result() == 3


def test_a_search_of_an_exhausted_space_ends_with_what_it_has(search, tmp_path):
    few = staged("few", (1, 12, 12), (Stage(depth=(1,), width=(4, 8), kernel=(3,), kind=("conv",)),))
    found = search(lambda n, job: trained(job), space=few, cap=Cost())
    found.ledger = Ledger(tmp_path / "few.sqlite", few, found.problem.task)
    asked, ask = [], found.searcher.ask

    def counted():
        asked.append(ask())
        return asked[-1]

    found.searcher._space, found.searcher.ask = few, counted
    assert len(found.run(trials=50, seconds=100)) == 4
    assert len(asked) < 60  # of 50 x 300 tries


def test_a_limit_leaves_other_alarms_and_threads_alone():
    assert within(5.0, abs, -3) == 3 and within(math.inf, abs, -4) == 4
    with pytest.raises(TimeoutError, match="took more than 0.05 s"):
        within(0.05, time.sleep, 5)
    results = []
    thread = threading.Thread(target=lambda: results.append(within(0.01, lambda s: time.sleep(s) or "done", 0.1)))
    thread.start()
    thread.join()
    assert results == ["done"]


def test_a_vast_space_gives_a_first_proposal_for_the_price_of_a_few_slots():
    """9^22 architectures and a cap that a random one in thousands meets: counted in costs, which are all that takes."""
    space, rng = named("fbnet"), Random(0)
    assert space.size > 1e13
    worth = [[rng.random() for _ in options] for _, options in space.slots]

    def latency_ms(arch):
        return sum(row[pick] for row, pick in zip(worth, arch.picks, strict=True))

    calls = 0

    def cost(arch):
        nonlocal calls
        calls += 1
        return Cost(latency_ms(arch), 1.0, 1.0)

    cap = Cost(latency_ms=min(latency_ms(space.sample(rng=rng)) for _ in range(3000)))
    for seed in range(10):
        found = require_feasible(space, cost, cap, rng=Random(seed))
        assert latency_ms(found) <= cap.latency_ms
    assert calls < 10 * 300
