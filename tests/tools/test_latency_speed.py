"""The benchmark of batched predictions, on a space small enough for a test."""

from __future__ import annotations

import latency_speed
import numpy as np
import pytest

from edgemeta.latency.table import PREDICTORS, predictor
from edgemeta.types import Arch


def test_each_predictor_is_benchmarked_and_both_ways_agree(tiny):
    known = latency_speed._devices(tiny)
    assert set(known) == set(PREDICTORS)
    picks = np.array([[0] * 10, [1] * 10, *([i % 2, 1, 0, i % 4, 0] * 2 for i in range(62))], dtype=np.uint8)
    for name, made in known.items():
        assert isinstance(predictor(made), PREDICTORS[name])  # type: ignore[arg-type]
        row = latency_speed._timed(tiny, made, picks, single=16, repeats=2)
        assert row["largest_difference"] < 1e-5
        assert row["times_faster"] == pytest.approx(row["archs_per_s"] / row["one_by_one_per_s"])
        assert min(row["fit_s"], row["layout_s"], row["archs_per_s"]) > 0


def test_made_up_rates_follow_the_work(tiny, rng):
    """So that what the few-shot device predicts is what the table holds, but for the cost of a run."""
    known = latency_speed._devices(tiny)
    arch = Arch(tiny.name, tuple(options[-1] for options in map(tiny.options, range(10))))
    table = predictor(known["table"]).latency(tiny.ops(arch)).ms
    assert predictor(known["few_shot"]).latency(tiny.ops(arch)).ms == pytest.approx(table, rel=0.3)
