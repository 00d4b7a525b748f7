"""The benchmark of searches under a cap: its rows, its accounting, and one search in small."""

from __future__ import annotations

import itertools
import math
from functools import partial

import constrained_search as bench
import numpy as np
import pytest
from unseen_device import SPLITS

from edgemeta.search import tabular
from edgemeta.search.metapolicy import meta_train
from edgemeta.search.tabular import Table, Tabular
from edgemeta.types import Arch

ORACLE = (70.87, 71.63, 72.28, 69.33, 71.50, 72.75, 71.52, 71.83, 73.04, 71.63, 73.48, 73.48, 71.63, 72.28, 73.48)
WORTH = np.array([0.0, 2.0, 5.0, 7.0, 1.0])  # points of each operator of a cell
TAKES = np.array([0.1, 0.2, 1.0, 2.0, 0.6])  # ms


@pytest.fixture(scope="module")
def table():
    """All cells: accuracies and latencies are sums over the edges, with noise of their own."""
    picks = np.array(list(itertools.product(range(5), repeat=6)))
    rng = np.random.default_rng(0)

    def points(scale):
        return 40 + scale * WORTH[picks].sum(1) + 0.2 * rng.normal(size=len(picks))

    accuracy = {task: points(scale) for task, scale in (("cifar10", 1.0), ("imagenet16_120", 0.7), ("cifar100", 0.9))}
    cheap = {task: 0.5 * values + rng.normal(size=len(picks)) for task, values in accuracy.items()}
    devices = ("one", "two", "three")
    ms = {name: 1 + TAKES[picks] @ rng.uniform(0.8, 1.2, 6) * rng.uniform(0.5, 2) for name in devices}
    archs = tuple(Arch("nb201", tuple(row)) for row in picks.tolist())
    return Table(archs, accuracy, cheap, 0.06, ms)


@pytest.fixture(scope="module")
def world(table):
    few = {"DEVICES": 60, "TYPICAL": 80, "POOL": 120, "meta_train": partial(meta_train, triples=60, steps=(10, 40, 10))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in few.items():
            patch.setattr(bench, name, value)
        return bench.world_of(table, ["cifar10", "imagenet16_120"], ["one", "two"], seed=0)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench, "DRAWN", 30)
    monkeypatch.setattr(bench, "PROPOSALS", 150)
    monkeypatch.setattr(bench, "CAPS_MS", {"fpga": (4, 5, 6)})


@pytest.fixture
def problem(table):
    return Tabular(table, "cifar100", "three", float(np.quantile(table.latency_ms["three"], 0.4)))


def test_rows_are_those_of_the_issue_and_their_devices_teach_nothing(data_root):
    split = SPLITS["ND"]
    assert set(bench.CAPS_MS) <= set(split.targets.split()) and not set(bench.CAPS_MS) & set(split.sources.split())
    assert set(bench.HELP) == set(bench.CAPS_MS) and len(bench._searches()) == len(ORACLE)
    real = tabular.nb201(data_root)
    found = [Tabular(real, bench.TARGET, device, cap).oracle for device, cap in bench._searches()]
    assert found == pytest.approx(ORACLE, abs=0.0051)


def test_the_target_does_not_teach():
    assert bench._teachers("cifar100") == ["cifar10", "imagenet16_120"]
    assert bench._teachers("cifar10") == ["imagenet16_120"]


@pytest.mark.parametrize("queries", [0, 3])
def test_the_metapolicy_keeps_its_budgets(world, small, problem, queries):
    found = bench.metapolicy(world, problem, seed=0, queries=queries)
    assert not found.broken and found.timings <= bench.TIMINGS and found.queries <= queries
    assert found.accuracy + found.regret == pytest.approx(problem.oracle)
    fitting = problem.table.accuracy["cifar100"][problem.table.latency_ms["three"] <= problem.cap_ms]
    assert found.accuracy > np.quantile(fitting, 0.97)


def test_nothing_of_the_target_is_read_for_free(world, small, table):
    """What was never paid for has no say: other answers to it leave the search as it was."""
    cap = float(np.quantile(table.latency_ms["three"], 0.5))
    problem = Tabular(table, "cifar100", "three", cap)
    first = bench.metapolicy(world, problem, seed=1, queries=2)
    rng = np.random.default_rng(5)
    asked = [table.row[arch] for arch in problem._points]
    timed = [table.row[arch] for arch in problem.timed]
    accuracy, ms = rng.permutation(table.accuracy["cifar100"]), rng.permutation(table.latency_ms["three"])
    accuracy[asked], ms[timed] = table.accuracy["cifar100"][asked], table.latency_ms["three"][timed]
    other = Table(table.archs, {"cifar100": accuracy}, {}, 0.06, {"three": ms})
    again = bench.metapolicy(world, Tabular(other, "cifar100", "three", cap), seed=1, queries=2)
    assert (again.accuracy, again.timings, again.queries) == (first.accuracy, first.timings, first.queries)


def test_the_naive_baseline_times_until_enough_fit(world, small, table):
    problem = Tabular(table, "cifar100", "three", float(np.quantile(table.latency_ms["three"], 0.95)))
    found = bench.naive(world, problem, seed=0, queries=2)
    assert not found.broken and found.queries == 2
    assert found.timings >= bench.NAIVE_FIRST + 2


def test_returning_nothing_breaks_the_budget(problem):
    found = bench._outcome(problem, None)
    assert found.broken and found.regret == problem.oracle


def test_values_count_what_is_worst_and_the_cheapest_rival(small):
    one, two = bench.Outcome(70.0, 0.2, False, 18, 5.0), bench.Outcome(69.0, 0.4, False, 20, 4.0)
    found = {name: {("fpga", 4): [one, two]} for name in ("metapolicy", "metapolicy_0q", "naive", "naive_0q")}
    curves = {"slow": {("fpga", 4): [[2.0, 1.0, 0.5]]}, "quick": {("fpga", 4): [[1.0, 0.3], [2.0, 0.3]]}}
    values, needed = bench._values(found, curves)
    assert values["metapolicy_timings"] == 20 and values["metapolicy_queries"] == 5
    assert values["metapolicy_regret"] == pytest.approx(0.3) and values["metapolicy_broken"] == 0
    assert needed == {"slow": math.inf, "quick": 2.0}
    assert values["query_ratio_best_other"] == pytest.approx(2 / 5)
    assert bench._values(found, {"slow": curves["slow"]})[0]["query_ratio_best_other"] == pytest.approx(4 / 5)


def test_a_row_stands_beside_the_published_one(small):
    places = bench._searches()
    one = bench.Outcome(71.0, 0.5, False, 18, 5.0)
    found = {name: {at: [one] for at in places} for name in ("metapolicy", "metapolicy_0q", "naive", "naive_0q")}
    rows = list(bench._rows(found, {"random": {at: [[3.0, 2.0]] for at in places}}))
    assert [row["help_accuracy"] for row in rows] == [70.2, 71.8, 73.5]
    assert [row["help_over_cap"] for row in rows] == [False, False, True]
    assert rows[0]["oracle"] == 71.5 and rows[0]["random_at_5q"] == 2.0


def test_curves_of_any_searcher(small, table, monkeypatch):
    monkeypatch.setattr(bench, "TARGET", "cifar100")
    monkeypatch.setattr(bench, "CAPS_MS", {"three": (5, 6, 7)})
    curves = bench._curves(table, ["random"], 2, 4)["random"]
    assert set(curves) == {("three", cap) for cap in (5, 6, 7)}
    for rows in curves.values():
        assert [len(curve) for curve in rows] == [4, 4]
        assert all(a >= b for curve in rows for a, b in itertools.pairwise(curve))
