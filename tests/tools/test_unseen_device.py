"""The benchmark of unseen devices: its splits, its scores, and one split in small."""

from __future__ import annotations

import math

import numpy as np
import pytest
import unseen_device as bench
from tqdm import tqdm

from edgemeta.latency import basis, fewshot, public, simulate
from tests.latency.pretend import lab


@pytest.fixture(scope="module")
def table() -> bench.Table:
    """Cells and seven pretend devices under the names of a split."""
    made = lab("nb201", networks=200, devices=7)
    few = simulate.draw(200, rng=np.random.default_rng(0))
    of = basis.build(made.ground.typical, few)
    macs = np.array([sum(op.macs for op in made.ground.space.ops(arch)) for arch in made.archs], float)
    names = ["a", "b", "c", "d", "e", "f", "g"]
    latency_ms = {name: made.ms[:, i] for i, name in enumerate(names)}
    return bench.Table(made.ground.typical, of, of[0](made.parts), simulate.physical(made.parts), macs, latency_ms)


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(bench, "SPLITS", {"T": bench.Split("nb201", 80, "a b c d e", "f g")})
    monkeypatch.setattr(bench, "POOL", 50)
    monkeypatch.setattr(bench, "COVERED", 60)
    monkeypatch.setattr(bench, "TIMINGS", (3, 10))


def test_no_device_both_teaches_and_is_predicted():
    for split in bench.SPLITS.values():
        sources, targets = split.sources.split(), split.targets.split()
        assert len(set(sources)) == len(sources) and len(set(targets)) == len(targets)
        assert not set(sources) & set(targets)
        assert split.space in bench.FILES and split.pool >= bench.POOL >= max(bench.TIMINGS)


def test_splits_name_devices_of_the_tables(data_root):
    for space, file in bench.FILES.items():
        known = {row["device"] for row in public.devices(data_root / file, space)}
        for split in bench.SPLITS.values():
            if split.space == space:
                assert {*split.sources.split(), *split.targets.split()} <= known


@pytest.mark.parametrize("name", bench.SPLITS)
def test_what_may_be_timed_is_not_scored(name):
    split = bench.SPLITS[name]
    pool, held = bench._held_out(split, 5000)
    assert len(pool) == split.pool
    assert sorted([*pool, *held]) == list(range(5000))


def test_a_perfect_prediction_scores_perfectly():
    ms = np.random.default_rng(0).uniform(1, 9, 50)
    assert bench._score(np.log(ms), ms) == pytest.approx(
        {"spearman": 1, "kendall_b": 1, "within10": 1, "median_ape": 0}, abs=1e-9
    )
    off = bench._score(np.log(1.2 * ms), ms)
    assert off["spearman"] == pytest.approx(1) and off["within10"] == 0
    assert off["median_ape"] == pytest.approx(0.2)
    assert bench._score(-ms, ms, ranks_only=True) == pytest.approx({"spearman": -1, "kendall_b": -1})


def test_supports_lie_in_the_pool_and_differ(table, small):
    split = bench.SPLITS["T"]
    pool, _ = bench._held_out(split, 200)
    prior = fewshot.prior(table.typical, (), basis_of=table.of)
    for supports in (bench._random(pool, 4), bench._active(prior, table.features, pool, 4)):
        assert len(supports) == 4 and len({tuple(rows) for rows in supports}) == 4
        for rows in supports:
            assert len(set(rows)) == max(bench.TIMINGS) and set(rows) <= set(pool)


def test_a_ridge_finds_a_linear_law():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(80, 3))
    ms = np.exp(2 + columns @ [0.1, -0.2, 0.05])
    rows, held = np.arange(40), np.arange(40, 80)
    predicted = bench._ridge(bench._standard(columns), ms, rows, held)
    assert predicted == pytest.approx(np.log(ms[held]), abs=0.01)


def test_source_components_explain_a_mixture_of_sources(table):
    """A device that lies between its sources is found by their components."""
    logs = np.log(np.array([table.latency_ms[name] for name in "abcde"]))
    columns, penalty = bench._components(logs)
    assert columns.shape == (200, len(penalty)) and np.isfinite(columns).all()
    ms = np.exp(logs.mean(0))
    predicted = bench._ridge((columns, penalty), ms, np.arange(40), np.arange(40, 200))
    assert bench._score(predicted, ms[40:])["spearman"] > 0.95


def test_a_split_end_to_end(table, small):
    fit_ms: list[float] = []
    rows = list(bench._split_rows("T", table, 2, fit_ms, tqdm(disable=True)))
    methods = {"random", "active", "ridge_sources", "ridge_physical"}
    assert {(row["device"], row["k"], row["method"]) for row in rows} == {
        (device, k, method) for device in "fg" for k in (3, 10) for method in methods
    } | {("f", 0, "flops"), ("g", 0, "flops")}
    assert len(fit_ms) == 2 * 2 * 2 * 2
    mean = {(row["k"], row["method"]): row for row in bench._mean_rows(rows)}
    assert mean[10, "active"]["spearman"] > max(0.9, mean[0, "flops"]["spearman"])
    values = bench._values(list(mean.values()), {"fit_ms_median": 1.0})
    assert values["t_k10_spearman"] == mean[10, "active"]["spearman"]
    assert values["mean_k3_spearman"] == mean[3, "active"]["spearman"]
    assert 0 <= values["coverage90_min"] <= values["coverage90_max"] <= 1
    assert all(math.isfinite(value) for value in values.values())


def test_means_are_over_devices_of_one_split_timings_and_method():
    rows = [
        {"split": s, "device": d, "k": 3, "method": "random", "spearman": value}
        for s, d, value in (("A", "x", 0.2), ("A", "y", 0.4), ("B", "x", 1.0))
    ]
    found = {row["split"]: row["spearman"] for row in bench._mean_rows(rows)}
    assert found == pytest.approx({"A": 0.3, "B": 1.0})
