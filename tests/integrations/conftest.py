"""What the tests of NNI share: a problem of moments, and its data in a file."""

from pathlib import Path

import numpy as np
import pytest

from edgemeta.latency import profile as profiles
from edgemeta.latency.table import predictor
from edgemeta.learners.settings import Training
from edgemeta.search.jobs import DataSpec
from edgemeta.search.problem import Problem
from edgemeta.types import Cost
from tests.blobs import blob_pool


@pytest.fixture
def blobs(tmp_path) -> Path:
    """25 classes of 10 images."""
    pool = blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    return tmp_path / "blobs.npz"


@pytest.fixture
def problem(tmp_path, tiny, blobs) -> Problem:
    return Problem(
        space=tiny,
        predictor=predictor(profiles.load("null")),
        cap=Cost(latency_ms=0.06),
        learner="protonet",
        data=DataSpec("npz", str(blobs), str(tmp_path / "cache"), (1, 12, 12), 0),
        weights=tmp_path / "weights",
        way=4,
        rungs=(2, 6),
        eval_episodes=10,
        training=Training(way=5, shot=(1, 2), query=2),
    )
