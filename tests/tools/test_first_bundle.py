"""Scans as a user has them, equal tasks for both sides, and what a difference of accuracies amounts to."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import first_bundle as bench
import numpy as np
import pytest
import torch

from edgemeta.data.episode import draw
from edgemeta.learners import LEARNERS
from edgemeta.nets.build import build
from edgemeta.search.jobs import DataSpec, load_data
from edgemeta.space.presets import tiny
from tests.blobs import blob_pool


@pytest.fixture
def learner():
    return LEARNERS["protonet"](build(tiny().ops(tiny().sample(rng=Random(0)))))


def net(learner, pool, known: float, *, right: bool) -> bench.Trained:
    """Features that tell all classes apart, or none."""
    label = np.concatenate([np.full(len(own), i) for i, own in enumerate(pool.by_class)])
    z = torch.eye(len(pool.by_class))[torch.from_numpy(label)] if right else torch.ones(len(pool.x), 20)
    noise = torch.rand(z.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    return bench.Trained(learner, {"head.log_temperature": torch.tensor(5.0)}, z + noise, known)


def args(**more) -> SimpleNamespace:
    return SimpleNamespace(**{"seed": 0, "draws": 4, "tasks": 2} | more)


def test_scans_are_ink_on_paper_and_read_back_as_they_were(tmp_path):
    pool = blob_pool(classes=6, seed=0)
    task = draw(pool, bench.WAY, bench.SHOT, 3, rng=np.random.default_rng(0))
    bench.write_scans(tmp_path / "scans", pool, task)
    data = load_data(DataSpec("folder", str(tmp_path / "scans"), "", (1, 12, 12), 0))
    assert len(data.images) == bench.WAY * bench.SHOT and data.class_names[0] == "class0"
    first = {bytes(255 - image) for image in data.images[data.labels == 0]}
    assert first == {bytes(pool.x[i].numpy()) for i in task.support[0]}


def test_the_gap_is_scratch_minus_zoo_in_points(learner):
    pool = blob_pool(classes=20, seed=0, per_class=15)
    good, bad = net(learner, pool, 0.5, right=True), net(learner, pool, 0.5, right=False)
    row = bench.compared("blobs", [bad], good, pool, args())
    assert row["scratch_percent"] == 100.0 and row["zoo_percent"] < 50
    assert row["gap_percent"] == pytest.approx(100 - row["zoo_percent"])
    same = bench.compared("blobs", [good], good, pool, args())
    assert same["gap_percent"] == same["gap_ci95"] == 0.0 and same["zoo_percent"] == 100.0


def test_the_support_decides_among_networks_that_are_said_to_be_near(learner):
    """Known accuracies 2 points apart, and images that only one of them can tell."""
    pool = blob_pool(classes=20, seed=0, per_class=15)
    good, bad = net(learner, pool, 0.90, right=True), net(learner, pool, 0.92, right=False)
    assert bench.compared("blobs", [bad, good], None, pool, args())["zoo_percent"] == 100.0
    sure = net(learner, pool, 0.99, right=False)
    doubted = net(learner, pool, 0.5, right=True)
    assert bench.compared("blobs", [sure, doubted], None, pool, args())["zoo_percent"] < 50


def test_interval_over_draws():
    assert bench.ci95(np.array([1.0, 3.0])) == pytest.approx(1.96)
