"""A search whose answers stand in a table: what is asked is paid for, and what is missed is known."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest

from edgemeta.errors import BadData, Infeasible
from edgemeta.search import tabular
from edgemeta.search.random_search import RandomSearch
from edgemeta.search.tabular import Guess, Table, Tabular, decide, queries_until, run
from edgemeta.types import Arch

SLOTS = 3


class Toy:
    """A space of 3 x 3 x 3 networks. Accuracy and latency are sums of picks, so that both are known by hand."""

    name = "toy"
    slots = tuple((f"slot{i}", ("a", "b", "c")) for i in range(SLOTS))

    def options(self, slot):
        return range(3)

    def sample(self, *, rng):
        return Arch(self.name, tuple(rng.randrange(3) for _ in range(SLOTS)))


class Known:
    """A belief that knows each latency up to a factor, and what it was shown exactly."""

    def __init__(self, table, factor=1.0):
        self.table, self.factor, self.seen = table, factor, {}

    def see(self, timed):
        self.seen = dict(timed)

    def chance(self, archs, cap_ms):
        ms = [self.seen.get(a, self.factor * self.table.latency_ms["slow"][self.table.row[a]]) for a in archs]
        return np.where(np.array(ms) <= cap_ms, 0.9, 0.1)


@pytest.fixture
def table():
    archs = tuple(Arch("toy", picks) for picks in itertools.product(range(3), repeat=SLOTS))
    total = np.array([sum(arch.picks) for arch in archs], float)
    accuracy = 50 + 5 * total + 0.01 * np.arange(27)
    return Table(archs, {"t": accuracy}, {"t": accuracy / 2}, 0.06, {"slow": 1 + total})


@pytest.fixture
def problem(table):
    return Tabular(table, "t", "slow", 4.0)


def test_what_is_asked_is_paid_for_once(problem):
    one, two = problem.table.archs[:2]
    assert problem.spent == (0, 0)
    assert problem.time_ms(two) == problem.time_ms(two) == 2.0
    assert problem.query(one) == 50.0 and problem.query(one) == 50.0
    assert problem.spent == (1, 1)
    assert problem.cheap(two) == pytest.approx(problem.query(two) / 2)
    assert problem.spent == (1, pytest.approx(2.06))


def test_the_oracle_is_the_best_under_the_cap_and_judging_costs_nothing(problem):
    fitting = [arch for arch in problem.table.archs if 1 + sum(arch.picks) <= 4]
    best = max(fitting, key=lambda arch: problem.table.accuracy["t"][problem.table.row[arch]])
    assert problem.oracle == problem.table.accuracy["t"][problem.table.row[best]]
    assert problem.regret(best) == 0 and problem.regret(Arch("toy", (0, 0, 0))) == pytest.approx(problem.oracle - 50)
    assert problem.broken(Arch("toy", (2, 2, 2))) and not problem.broken(best)
    assert problem.spent == (0, 0)


def test_what_was_not_timed_is_not_known_to_fit(problem):
    arch = Arch("toy", (1, 1, 1))
    problem.query(arch)
    assert not problem.fits(arch) and problem.best() is None
    problem.time_ms(arch)
    assert problem.fits(arch) and problem.best() == arch


def test_a_searcher_pays_for_what_fits_and_its_regret_never_rises(problem):
    regrets = run(RandomSearch(Toy(), seed=0), problem, queries=8)
    assert len(regrets) == 8 == problem.spent.queries
    assert problem.spent.timings >= 8
    assert regrets == sorted(regrets, reverse=True) and regrets[-1] == problem.regret(problem.best())


def test_an_exhausted_space_ends_the_run(table):
    regrets = run(RandomSearch(Toy(), seed=0), Tabular(table, "t", "slow", 2.0), queries=20, asks=20)
    assert len(regrets) == 4 and regrets[-1] == 0  # four networks fit


def test_over_the_cap_is_told_as_infeasible(problem):
    told = []

    class Always(RandomSearch):
        def ask(self):
            return Arch("toy", (2, 2, 2))

        def tell(self, trial):
            told.append(trial)

    assert run(Always(Toy(), seed=0), problem, queries=1, asks=3) == []
    assert {(trial.status, trial.score) for trial in told} == {("infeasible", None)}
    assert problem.spent == (1, 0)


def test_queries_until_a_mean_regret():
    assert queries_until([[3.0, 1.0, 1.0], [1.0, 1.0, 0.0]], 1.0) == 2
    assert queries_until([[3.0], [1.0, 0.0]], 1.5) == 2
    assert queries_until([[3.0, 2.0]], 1.0) == math.inf
    assert queries_until([[], [1.0]], 1.0) == math.inf


def test_bad_questions_say_what_is_there(table, problem):
    with pytest.raises(BadData, match="no 'slw'; did you mean 'slow'"):
        Tabular(table, "t", "slw", 1.0)
    with pytest.raises(BadData, match="not in the table of toy"):
        problem.query(Arch("other", (0, 0, 0)))
    with pytest.raises(Infeasible, match=r"no network of the table takes 0.5 ms on slow; the fastest 1 ms"):
        _ = Tabular(table, "t", "slow", 0.5).oracle


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("queries", [0, 1, 3])
def test_a_decision_keeps_its_budgets_and_the_cap(table, factor, queries):
    """However wrong the belief of the device is."""
    problem = Tabular(table, "t", "slow", 4.0)
    first = table.archs[0]
    problem.time_ms(first)
    expected = np.array([sum(arch.picks) for arch in table.archs], float)
    found = decide(problem, table.archs, expected, Known(table, factor), unit=1.0, timings=14, queries=queries)
    assert found is not None and not problem.broken(found)
    assert problem.spent.timings <= 14 and problem.spent.queries <= queries
    if factor == 1.0:
        assert problem.regret(found) < 0.3


def test_nothing_that_fits_is_nothing_returned(table):
    problem = Tabular(table, "t", "slow", 0.5)
    assert decide(problem, table.archs, np.ones(27), Known(table), unit=1.0, timings=5, queries=2) is None
    assert problem.spent.timings == 5 and problem.spent.queries == 0


def test_a_query_corrects_like_networks_most():
    picks = np.array([[0, 0, 0], [0, 0, 1], [2, 2, 2]])
    guess = Guess(picks, np.zeros(3), 1.0)
    guess.see(0, 0.0)
    _, before = guess()
    guess.see(2, 1.0)
    mean, sd = guess()
    assert mean[2] > mean[1] > mean[0]
    assert sd[0] < sd[1] and sd[2] < before[2] and (sd > tabular.NOISE).all()


def test_a_level_that_nobody_expected_changes_no_order():
    picks, expected = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([3.0, 2.0, 1.0, 0.0])
    guess = Guess(picks, expected, 1.0)
    guess.see(0, 50.0)
    mean, _ = guess()
    assert mean == pytest.approx(expected + 47.0, abs=0.1)


def test_a_guess_is_the_posterior_of_its_gaussian_process():
    rng = np.random.default_rng(0)
    picks, expected = rng.integers(0, 3, (6, 4)), rng.normal(size=6)
    guess = Guess(picks, expected, 2.0)
    for row, points in ((1, 0.5), (4, -1.0)):
        guess.see(row, points)
    k = tabular.LEVEL**2 + (2 * tabular.STRUCTURE) ** 2 * np.exp(-(picks[:, None] != picks).sum(-1) / tabular.REACH)
    noise = (2 * tabular.NOISE) ** 2
    inverse = np.linalg.inv(k[np.ix_([1, 4], [1, 4])] + noise * np.eye(2))
    mean, sd = guess()
    assert mean == pytest.approx(expected + k[:, [1, 4]] @ inverse @ (np.array([0.5, -1.0]) - expected[[1, 4]]))
    assert sd**2 == pytest.approx(np.diag(k) - np.diag(k[:, [1, 4]] @ inverse @ k[[1, 4]]) + noise)


def test_the_public_table_has_the_published_oracles(data_root):
    """The accuracies of the best networks under the budgets that HELP's searches were given."""
    table = tabular.nb201(data_root)
    assert len(table.archs) == 15625 and table.archs[0].picks == (4, 2, 1, 2, 1, 1)
    found = [
        round(Tabular(table, "cifar100", device, cap).oracle, 2)
        for device, cap in (("titan_rtx_256", 18), ("gold_6226", 14), ("pixel2", 22), ("eyeriss", 5), ("fpga", 6))
    ]
    assert found == [70.87, 72.75, 73.04, 71.63, 73.48]
    some = table.archs[Random(0).randrange(15625)]
    problem = Tabular(table, "cifar100", "fpga", 4.0)
    assert problem.cheap(some) < problem.query(some) and problem.spent.queries == pytest.approx(1.06)
