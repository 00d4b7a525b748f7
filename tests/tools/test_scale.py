"""The benchmark of growth: its ledgers are ledgers, its searches searches."""

import argparse
from contextlib import closing

import pytest
import scale as bench

from edgemeta.search.ledger import Ledger
from edgemeta.space.presets import edge


@pytest.mark.parametrize("count", [5, 40])
def test_a_ledger_that_is_filled_at_once_reads_like_any_other(tmp_path, count):
    path = tmp_path / "ledger.sqlite"
    bench.filled(path, count)
    with closing(Ledger(path, edge(), "bench")) as ledger:
        trials = ledger.trials()
        ledger.record(trials[0])
        assert len(trials) == count and len(ledger.trials()) == count + 1
    assert set(trials) <= set(bench.trials_of(10))


def test_asks_are_timed_after_so_many_trials(monkeypatch):
    monkeypatch.setattr(bench, "ASKED", ("random", "evolution"))
    rows = [row for row, _ in bench.asks(argparse.Namespace(told=10_000))]
    assert [row["searcher"] for row in rows] == ["random", "evolution"]
    assert all(row["ask_ms_100"] > 0 and row["ask_ms_10000"] > 0 for row in rows)
