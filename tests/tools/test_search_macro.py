"""What a search returns, what the oracle is, and what counts as broken, on made-up timings."""

from __future__ import annotations

import numpy as np
import pytest
import search_macro as bench

from edgemeta.latency import profile
from edgemeta.search.tabular import Table
from edgemeta.types import Arch

ARCHS = tuple(Arch("macro", (0,) * 7 + (pick,)) for pick in range(3))


@pytest.fixture
def here():
    """Three networks: the more accurate, the slower."""
    table = Table(
        ARCHS,
        {bench.TASK: np.array([60.0, 70.0, 80.0])},
        {},
        0.0,
        {bench.DEVICE: np.array([1.0, 2.0, 3.0])},
    )
    return bench.Here(table, profile.load("null"), (2.1,))


def test_the_first_that_was_timed_below_the_budget_is_returned():
    search = bench.Found("random", 0, 2.1, ARCHS[::-1])
    assert bench._first_fitting(search, {ARCHS[2]: 2.2, ARCHS[1]: 2.0, ARCHS[0]: 1.0}) == ARCHS[1]
    assert bench._first_fitting(search, {ARCHS[2]: 2.1, ARCHS[1]: 2.09, ARCHS[0]: 1.0}) == ARCHS[0]  # too close
    assert bench._first_fitting(search, {ARCHS[2]: 3.0}) is None


def test_the_oracle_is_judged_by_the_last_timings(here):
    assert bench._oracle(here, 2.1, {ARCHS[0]: 1.0, ARCHS[1]: 2.0, ARCHS[2]: 2.1}) == 80.0
    assert bench._rivals(here, 2.1, bench.ORACLES) == [ARCHS[1], ARCHS[0]]
    assert bench._rivals(here, 3.0 / bench.FURTHER + 1e-6, bench.ORACLES)[0] == ARCHS[2]


def test_a_row_tells_regret_and_broken_budgets(here):
    search = bench.Found("random", 0, 2.1, ARCHS)
    row = bench._row(here, search, ARCHS[0], {ARCHS[0]: 2.2}, 80.0)
    assert row["regret"] == 20.0 and row["broken"] and row["measured_ms"] == 2.2
    nothing = bench._row(here, search, None, {}, 80.0)
    assert nothing["regret"] == 20.0 and not nothing["broken"]
    mean = bench._means([row, nothing])
    assert len(mean) == 1 and mean[0]["broken"] == 1 and mean[0]["measured_ms"] == 2.2
