"""The benchmark of fronts, in small: who has how much time, what a front is, and what it is judged by."""

from __future__ import annotations

import argparse
import json
import math
import sys
from types import SimpleNamespace

import _equal_latency as equal
import edge_front as bench
import numpy as np
import omniglot
import pytest
import torch

from edgemeta import config as configs
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.nets.build import build
from edgemeta.report.front import finished
from edgemeta.search.jobs import data_pool, load_weights
from edgemeta.search.ledger import Ledger
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch
from tests.blobs import blob_pool

EPISODES = 20


@pytest.fixture
def ask(tmp_path):
    """Settings of a search that a number of networks ends."""
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    same = {"data": "npz", "root": tmp_path / "blobs.npz", "cache": tmp_path, "in_shape": (1, 12, 12), "way": 4}
    same |= {"space": "tiny", "device": "null", "latency_ms": 0.06, "rungs": (2, 4), "eval_episodes": 10}
    same |= {"run": tmp_path / "run" / "one", "trials": 4, "workers": 1, "progress": False, "searcher": "random"}
    return lambda **settings: configs.make(configs.Search, same | settings)


@pytest.fixture
def args(tmp_path):
    names = {
        "searchers": ["random", "metapolicy"],
        "seeds": 2,
        "seconds": 9.0,
        "rungs": [2, 4],
        "front": 3,
        "test_episodes": 600,
    }
    names |= {"third_trials": bench.TRIALS, "third_rungs": list(bench.RUNGS), "profile": None}
    others = {"learner": "protonet", "minutes": 1.0, "jobs": 1, "episodes": 10, "run": tmp_path, "cache": tmp_path}
    return argparse.Namespace(**names, **others, data_root=tmp_path)


def test_the_ladder_shares_the_time_and_what_one_takes_too_long_all_others_pay(ask, monkeypatch):
    now, given = [5.0], []

    class Slow:
        def __init__(self, problem, *_, **__):
            self.cap_ms = problem.cap.latency_ms

        def run(self, *, trials, seconds):
            given.append((self.cap_ms, seconds))
            now[0] += 40.0 if len(given) == 1 else seconds

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(bench, "Search", Slow)
    config = ask(front=2, seconds=90.0)
    assert bench.searched(bench.problem_of(config), config) == ([], 90.0)
    caps_ms, seconds = zip(*given, strict=True)
    assert seconds == (30.0, 25.0, 25.0)
    assert caps_ms[0] == config.latency_ms and list(caps_ms) == sorted(set(caps_ms), reverse=True)
    bench.searched(bench.problem_of(config), ask(seconds=90.0))
    assert given[3:] == [(config.latency_ms, 90.0)]


def test_a_front_is_not_dominated_and_judged_with_the_weights_of_its_search(ask):
    config = ask(front=1, searcher="evolution")
    row, problem = bench.row_of(config, EPISODES), bench.problem_of(config)
    ledger = Ledger(RunFolder(config.run).ledger, problem.space, problem.task)
    points = [(trial.cost.latency_ms, trial.score) for trial in finished(ledger.trials())]
    assert row["networks"] == len(points) > 4 and row["searcher"] == "evolution ladder" and row["elapsed_s"] > 0
    for net in row["front"]:
        assert not any(ms <= net["latency_ms"] and score > net["val"] for ms, score in points)
        arch = Arch(problem.space.name, tuple(net["picks"]))
        assert problem.bound(arch).fits(problem.cap)
        learner = LEARNERS["protonet"](build(problem.space.ops(arch)))
        slow, judge = load_weights(problem.weights_of(arch, net["episodes"])), data_pool(problem.data, "test")
        task = {"way": 4, "shot": 1, "query": 9, "episodes": EPISODES, "rng": np.random.default_rng([0, 1])}
        assert evaluate(learner, slow, judge, features(learner, slow, judge), **task).mean == net["test"]


def test_equal_seeds_find_equal_fronts_and_what_was_left_of_a_killed_search_is_not_used(ask):
    config = ask(front=1)
    first = bench.row_of(config, EPISODES)
    (config.run / "row.json").unlink()
    again = bench.row_of(config, EPISODES)
    assert first.pop("elapsed_s") and again.pop("elapsed_s") and first == again
    assert len(list(RunFolder(config.run).weights.iterdir())) >= first["networks"] > 4


def test_a_search_that_is_done_is_not_done_again(ask, monkeypatch):
    row = bench.row_of(ask(), EPISODES)
    monkeypatch.setattr(bench, "searched", None)
    assert bench.row_of(ask(), EPISODES) == row


def test_the_reference_is_a_network_that_nothing_was_taught(ask, tiny):
    arch = tiny.arch([{"width": 8}, {"width": 8}])
    floor = bench.untrained(ask(), arch, EPISODES)
    problem = bench.problem_of(ask())
    learner = LEARNERS["protonet"](build(tiny.ops(arch)))
    slow, judge = learner.init(rng=torch.Generator().manual_seed(0)), data_pool(problem.data, "test")
    task = {"way": 4, "shot": 1, "query": 9, "episodes": EPISODES, "rng": np.random.default_rng([0, 1])}
    assert floor == evaluate(learner, slow, judge, features(learner, slow, judge), **task).mean


def test_everyone_has_the_same_settings_but_for_searcher_and_ladder(args):
    asked = bench.searches(args, "null", 0.1)
    assert [bench.label(config) for config in asked[:3]] == ["random", "random ladder", "metapolicy ladder"]
    assert len(asked) == 2 * 2 * 3 == len({config.run for config in asked})
    assert {(config.seconds, config.latency_ms, config.rungs) for config in asked} == {(9.0, 0.1, (2, 4))}
    longer = bench.searches(argparse.Namespace(**vars(args) | {"test_episodes": 700}), "null", 0.1)
    assert not {config.run for config in asked} & {config.run for config in longer}


def test_hypervolumes_are_shares_of_what_is_left_above_the_references():
    def row(searcher, seed, *points, elapsed_s):
        front = [{"latency_ms": ms, "test": test} for ms, test in points]
        named = {"data": "glyphs", "searcher": searcher, "seed": seed}
        return named | {"front": front, "networks": 9, "elapsed_s": elapsed_s}

    found = [
        row("random", 0, (1.0, 0.8), elapsed_s=10.0),
        row("random", 1, (1.0, 0.8), (1.5, 0.7), elapsed_s=10.0),  # the second is worse on test classes
        row(bench.OURS, 0, (1.0, 0.9), elapsed_s=11.0),
        row(bench.OURS, 1, (0.5, 0.8), (1.0, 0.9), elapsed_s=11.0),
    ]
    floors = {"glyphs": 0.6}
    assert [bench.volume(of, 0.6, 2.0) for of in found] == pytest.approx([0.25, 0.25, 0.375, 0.5])
    told = bench.values(found, floors, 2.0)
    assert told["hypervolume_ratio_vs_random"] == pytest.approx((1.5 + 2.0) / 2)
    assert told["hypervolume_ratio_from_chance"] == pytest.approx((0.7 / 0.6 + 1.0 / 0.6) / 2)
    assert told["seconds_vs_random"] == pytest.approx(1.1)
    random, ours = bench.summary(found, floors, 2.0)
    assert random["ratio"] == 1.0 and random["ratio_sd"] == 0.0
    assert ours["ratio_least"] == pytest.approx(1.5) and ours["ratio_sd"] == pytest.approx(0.5 / math.sqrt(2))
    assert bench.our_front(found) == {}
    with pytest.raises(SystemExit, match="glyphs, seed 0, beats an untrained one; raise --seconds"):
        bench.values(found, {"glyphs": 0.85}, 2.0)


@pytest.fixture
def timed(monkeypatch):
    """Latencies and accuracies of networks as they were made up; the networks that were trained."""
    trained: list = []

    def measured(name, settings, net, args):
        trained.append(net)
        return {"5w1s": 100.0 - len(trained), "5w1s_published": 98.8, "source": ""}

    monkeypatch.setattr(omniglot, "measured", measured)
    space = edge()
    known = dict(zip(LANDMARKS, (LANDMARKS[name](space) for name in LANDMARKS), strict=True))
    ms = {known["conv4-64"]: 0.12, known["tapered"]: 0.05, known["mobile"]: 0.3}
    return space, ms, trained


def test_each_well_known_network_meets_the_best_found_one_that_takes_no_longer(args, timed, monkeypatch):
    space, ms, trained = timed
    small, large, slow = (space.arch([{"width": 8}, {}, {}, {"width": w}]) for w in (48, 64, 96))
    ms |= {small: 0.03, large: 0.06, slow: 0.13}
    monkeypatch.setattr(equal, "latencies_ms", lambda space, archs, args: {arch: ms[arch] for arch in archs})
    monkeypatch.setattr(equal, "found_under", lambda limit_ms, args: small if limit_ms == 0.12 / 3 else slow)
    rows = equal.against({small: 0.90, large: 0.95, slow: 0.97}, args, bench.Here())
    found = {row["network"]: row for row in rows}
    picks = {name: row["picks"] for name, row in found.items()}
    assert picks["found, as tapered"] == picks[equal.THIRD] == ".".join(map(str, small.picks))
    assert (
        picks["found, as conv4-64"] == ".".join(map(str, large.picks))
        and found["found, as mobile"]["latency_ms"] == 0.13
    )
    assert len(rows) == 7 and len(trained) == 6 and "5w1s_published" not in rows[0]
    told = equal.margins(rows)
    assert told["found_vs_conv4_latency_ratio"] == pytest.approx(0.25)
    assert told["found_vs_conv4_accuracy"] == found[equal.THIRD]["5w1s"] - found["conv4-64"]["5w1s"]
    assert told["gain_at_conv4_64"] == found["found, as conv4-64"]["5w1s"] - found["conv4-64"]["5w1s"]
    assert equal.against({small: 0.90, large: 0.95, slow: 0.97}, args, bench.Here()) == rows and len(trained) == 6


def test_a_network_that_is_too_slow_stands_against_none(args, timed, monkeypatch):
    space, ms, _ = timed
    ms[slow := space.arch([{}, {}, {}, {"width": 96}])] = 0.2
    monkeypatch.setattr(equal, "latencies_ms", lambda space, archs, args: ms)
    monkeypatch.setattr(equal, "found_under", lambda limit_ms, args: LANDMARKS["tapered"](space))
    rows = equal.against({slow: 0.97}, args, bench.Here())
    assert [row["network"] for row in rows] == [*LANDMARKS, "found, as mobile", equal.THIRD]
    assert [name for name in equal.margins(rows) if name.startswith("gain")] == ["gain_at_mobile"]


def test_the_search_below_a_latency_is_the_products_own_and_done_once(args, monkeypatch):
    asked, picks = [], [0] * len(edge().slots)

    def search(**given):
        asked.append(given)
        given["run"].mkdir(parents=True)
        (given["run"] / "search.json").write_text(json.dumps({"winner": {"picks": picks}}))

    monkeypatch.setattr(equal.pipeline, "search", search)
    assert equal.found_under(0.04, args) == equal.found_under(0.04, args) == Arch(edge().name, tuple(picks))
    (given,) = asked
    assert given["latency_ms"] > 0.04 and given["searcher"] == "metapolicy" and given["rungs"] == equal.RUNGS


def test_latencies_are_measured_once(args, timed, monkeypatch):
    space, ms, _ = timed
    monkeypatch.setattr(equal, "timed", lambda *_, **__: SimpleNamespace(ms=ms))
    assert equal.latencies_ms(space, list(ms), args) == ms
    monkeypatch.setattr(equal, "timed", None)
    assert equal.latencies_ms(space, list(ms), args) == ms


def test_it_says_what_is_missing_where_there_is_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["edge_front.py", "--data-root", str(tmp_path), "--run", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="no omniglot/ below .*--data-root"):
        bench.main()
    assert not (tmp_path / "run").exists()
