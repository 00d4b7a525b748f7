"""The benchmark of DARTS against random cells: which cells it compares with, and what it says of them."""

from pathlib import Path
from random import Random

import darts_cells as bench
import pytest

from edgemeta.latency import profile
from edgemeta.latency.table import predictor
from edgemeta.search.jobs import DataSpec
from edgemeta.search.problem import Problem
from edgemeta.space.cells import trainable_nb201
from edgemeta.types import Cost


@pytest.fixture
def problem():
    cells = trainable_nb201((1, 12, 12))
    data = DataSpec("glyphs", None, "", cells.in_shape, 0)
    return Problem(cells, predictor(profile.load("null")), Cost(), "protonet", data, Path("weights"))


def test_only_other_networks_of_equal_latency_are_compared_with(problem):
    cell = problem.space.sample(rng=Random(3))
    found = bench.equals(problem, cell, 3, 0.2, rng=Random(0))
    target_ms = problem.cost(cell).latency_ms
    assert all(abs(problem.cost(arch).latency_ms / target_ms - 1) <= 0.2 for arch in found)
    assert len({problem.space.ops(arch) for arch in (cell, *found)}) == 4
    slots = problem.space.slots
    chosen = {options[pick] for arch in found for (_, options), pick in zip(slots, arch.picks, strict=True)}
    assert "none" not in chosen  # DARTS derives no such cell


def test_too_few_equals_are_an_error_that_says_what_to_do(problem, monkeypatch):
    monkeypatch.setattr(bench, "TRIES", 50)
    cell = problem.space.sample(rng=Random(3))
    with pytest.raises(SystemExit, match="of 50 random cells .*; raise --band or ask for fewer --cells"):
        bench.equals(problem, cell, 400, 0.001, rng=Random(0))


def test_the_found_cell_is_held_against_the_mean_of_the_others():
    of = {"found": (96.0, 90.0, 2.0), "random 1": (97.0, 80.0, 1.0), "random 2": (93.0, 84.0, 3.0)}
    rows = [{"cell": name, "5w1s": a, "20w1s": b, "measured_ms": ms} for name, (a, b, ms) in of.items()]
    made = bench.values(rows)
    assert made["gain_5w1s"] == pytest.approx(1.0) and made["rank_5w1s"] == 2
    assert made["gain_20w1s"] == pytest.approx(8.0) and made["rank_20w1s"] == 1
    assert made["latency_ratio"] == pytest.approx(1.0)
    assert made["spreads_5w1s"] == pytest.approx(1 / 8**0.5)
