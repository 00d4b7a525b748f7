"""The benchmark of the joint search, in small: what it finds fits, and is trained and tested."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import joint as bench
import numpy as np
import omniglot
import pytest

from edgemeta.learners.settings import Training
from edgemeta.search.jobs import DataSpec
from edgemeta.search.joint import Joint
from edgemeta.space.cells import trainable_nb201
from edgemeta.types import FLOAT_BYTES, KIB, Arch
from tests.blobs import blob_pool

QUICK = Joint(episodes=3, way=4, warmup_way=4, query=2, drawn=1, last_steps=1, width=2, depth=1)


@pytest.fixture
def args():
    """Those of a run of seconds."""
    names = {"most_k": 90.0, "width": 8, "learner": "protonet", "seed": 0, "search_episodes": 3, "minutes": 1e-4}
    others = {"hours": 0.0, "episodes": 3, "split": "test", "also_val": False, "keep": None, "data_root": Path()}
    return argparse.Namespace(**names, **others)


@pytest.fixture
def space():
    return trainable_nb201((1, 12, 12))


def test_what_is_found_fits_and_is_told(tmp_path, args, space):
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    data = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path / "cache"), (1, 12, 12), 0)
    problem = bench.asked(space, data, args)
    assert problem.cap.flash_kib == 90_000 * FLOAT_BYTES / KIB and problem.cap.latency_ms == math.inf
    row = bench.found(problem, QUICK, args)
    arch = Arch(space.name, tuple(row["picks"]))
    assert problem.bound(arch).fits(problem.cap) and row["mmacs"] > 0
    assert row["skips_cell"] == arch.picks.count(1) and row["search_s"] > 0
    assert set(row) >= {"rate_head", "rate_body", "rate_logits", "stopped", "repaired"}


def test_it_is_trained_and_tested_beside_t_nas(monkeypatch, args, space):
    pool = blob_pool(classes=21, seed=1, per_class=20)
    monkeypatch.setattr(omniglot, "omniglot", lambda root, split: pool)
    monkeypatch.setattr(omniglot, "own_recipe", lambda name: Training(way=4))
    row = bench.trained(space, Arch(space.name, (1, 0, 0, 1, 0, 0)), args)
    assert row["5w1s_published"] == 99.36 and "5w5s_published" not in row
    assert 20 < row["5w1s"] <= 100 and row["5w5s_ci95"] >= 0 and not row["transductive"]
    with pytest.raises(AssertionError, match="parameters are more than 1"):
        bench.trained(space, Arch(space.name, (1, 0, 0, 1, 0, 0)), argparse.Namespace(**vars(args) | {"most_k": 1.0}))


def test_episodes_of_the_search_are_an_option(args):
    assert bench.settings_of(args) == replace(Joint(), episodes=3)
