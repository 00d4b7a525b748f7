"""A bundle under each of several latency caps, from searches that share what is trained."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple

import numpy as np
import pytest

from edgemeta import config as configs
from edgemeta.errors import BadConfig
from edgemeta.latency import profile as profiles
from edgemeta.latency.table import predictor
from edgemeta.learners.settings import Training
from edgemeta.lowering import bundle
from edgemeta.search import SEARCHERS
from edgemeta.search.jobs import DataSpec
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem
from edgemeta.search.run import Search
from edgemeta.stages import front
from edgemeta.stages.meters import NOWHERE
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Cost
from tests.blobs import blob_pool

CAP_MS = 0.06


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def problem(tmp_path, folder, tiny):
    return problem_in(tmp_path, folder, tiny)


def problem_in(tmp_path, folder, tiny) -> Problem:
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    data = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path / "cache"), (1, 12, 12), 0)
    null = predictor(profiles.load("null"))
    head_kib = partial(bundle.head_kib, "protonet")
    sizes = {"head_kib": head_kib, "rungs": (2, 4), "eval_episodes": 10, "training": Training(way=5, query=2), "way": 4}
    return Problem(tiny, null, Cost(latency_ms=CAP_MS), "protonet", data, folder.weights, device="null", **sizes)


@pytest.fixture
def write(folder, problem):
    return partial(written, folder, problem)


def written(folder: RunFolder, problem: Problem, **settings) -> dict[float, int]:
    """Search under the problem's caps and those of a ladder; the trials that were trained under each."""
    trained: dict[float, int] = {}
    with ThreadPoolExecutor(1) as executor:

        def run(under: Problem):
            ledger = Ledger(folder.ledger, under.space, under.task)
            before = len(ledger.trials())
            searcher = SEARCHERS["random"](under.space, seed=0)
            ranking = Search(under, searcher, "random", ledger, executor, 1, progress=False).run(trials=4, seconds=60)
            trained[under.cap.latency_ms] = len(ledger.trials()) - before
            return ranking

        config = configs.make(configs.Search, {"run": folder.root, "device": "null", "workers": 1} | settings)
        front.write(config, folder, problem, profiles.load("null"), run(problem), run, measure=NOWHERE)
    return trained


class Ladder(NamedTuple):
    folder: RunFolder
    problem: Problem
    trained: dict[float, int]  # trials under each cap


@pytest.fixture(scope="module")
def ladder(tmp_path_factory, tiny) -> Ladder:
    """A front of three caps below the first, which no test changes."""
    root = tmp_path_factory.mktemp("ladder")
    folder = RunFolder(root / "run")
    problem = problem_in(root, folder, tiny)
    return Ladder(folder, problem, written(folder, problem, front=3))


def test_each_cap_has_its_bundle(ladder):
    rows = ladder.folder.read("front")
    caps = [row["cap"] for row in rows]
    assert caps[0] == CAP_MS and caps[1] / caps[0] == pytest.approx(caps[2] / caps[1]) and caps[1] < caps[0]
    for row in rows:
        costs = bundle.read(ladder.folder.root / row["bundle"]).costs
        assert costs.predicted.latency_ms <= row["cap"] == costs.caps.latency_ms
    assert list(ladder.trained) == caps
    shown = str(front.text(rows)).splitlines()
    assert len(shown) == 2 + len(rows) and [line.split()[-1] for line in shown[2:]] == [r["bundle"] for r in rows[::-1]]


@pytest.mark.parametrize("over", ["ram_kib", "flash_kib"])
def test_a_front_of_memory(write, folder, over):
    write(front=1, front_over=over)
    loose, tight = folder.read("front")
    for row in (loose, tight):
        caps = bundle.read(folder.root / row["bundle"]).costs.caps
        assert row["cost"][over] <= row["cap"] == getattr(caps, over) and caps.latency_ms == CAP_MS
    assert tight["cap"] < loose["cap"] and tight["bundle"].endswith("kib")
    assert f"cap_{over.split('_')[0]}" in str(front.text([loose, tight])).replace(" ", "_")


def test_a_network_found_under_a_tighter_cap_counts_under_the_looser_ones(ladder):
    """The best of all searches that fits, furthest trained first: caps that rise never lower it."""
    rows = ladder.folder.read("front")
    judged = [(row["episodes"], row["score"]) for row in rows]
    assert judged == sorted(judged, reverse=True)


def test_a_ladder_again_trains_nothing_again(ladder, tmp_path):
    folder = RunFolder(shutil.copytree(ladder.folder.root, tmp_path / "run"))
    again = written(folder, replace(ladder.problem, weights=folder.weights), front=3)
    assert any(ladder.trained.values()) and again.keys() == ladder.trained.keys() and not any(again.values())


def test_no_ladder_below_the_fastest_network(problem):
    fastest = min(problem.bound(problem.space.sample(rng=Random(seed))).latency_ms for seed in range(3000))
    with pytest.raises(BadConfig, match="raise --latency-ms"):
        front.ladder(problem, "latency_ms", fastest, 3, rng=Random(0))


def test_caps_too_close_to_each_other_to_tell_apart_are_refused(problem):
    low_ms = front.ladder(problem, "latency_ms", CAP_MS, 1, rng=Random(0))[0]
    with pytest.raises(BadConfig, match="no front of 12 below .* lower --front"):
        front.ladder(problem, "latency_ms", 1.1 * low_ms, 12, rng=Random(0))


def test_a_ladder_without_room_is_refused_before_the_search(problem):
    settings = configs.make(configs.Search, {"front": 2})
    front.require(settings, problem)
    with pytest.raises(BadConfig, match="no front of 2 below latency 1e-06 ms"):
        front.require(settings, replace(problem, cap=replace(problem.cap, latency_ms=1e-6)))


def test_the_ladder_keeps_to_the_other_caps(problem):
    """The fastest network of all may need more flash than there is."""
    small = replace(problem, cap=replace(problem.cap, flash_kib=8.0))
    lowest = front.ladder(small, "latency_ms", 0.5, 4, rng=Random(0))[-1]
    fitting = [problem.bound(problem.space.sample(rng=Random(seed))) for seed in range(3000)]
    least = min(bound.latency_ms for bound in fitting if bound.flash_kib <= 8.0)
    assert lowest <= front.SLACK * least * 1.0001
