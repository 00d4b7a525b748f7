"""A whole search, small but real: images in a file, the tiny space, a device whose latencies follow from the MACs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from edgemeta.latency import profile
from edgemeta.latency.table import predictor
from edgemeta.learners.settings import Training
from edgemeta.search import SEARCHERS
from edgemeta.search.jobs import DataSpec
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem
from edgemeta.search.run import Search
from edgemeta.space.cells import trainable_nb201
from edgemeta.types import Cost
from tests.blobs import blob_pool


@pytest.fixture
def data(tmp_path):
    """25 classes of 10 images in an .npz file."""
    pool = blob_pool(classes=25, seed=0)
    path = tmp_path / "blobs.npz"
    np.savez(path, x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    return DataSpec("npz", str(path), str(tmp_path / "cache"), (1, 12, 12), 0)


@pytest.fixture
def problem(tmp_path, tiny, data):
    return Problem(
        space=tiny,
        predictor=predictor(profile.load("null")),
        cap=Cost(latency_ms=0.06),
        learner="protonet",
        data=data,
        weights=tmp_path / "weights",
        way=4,
        rungs=(2, 6),
        eval_episodes=10,
        training=Training(way=5, query=2),
    )


@pytest.fixture
def cells():
    return trainable_nb201((1, 12, 12))


@pytest.fixture
def celled(problem, cells):
    """The problem in a space of cells; most architectures fit."""
    return replace(problem, space=cells, cap=Cost(latency_ms=12.0))


@pytest.fixture
def start(tmp_path, tiny):
    """A search of a problem, on worker threads of this process."""
    with ThreadPoolExecutor(2) as executor:

        def make(problem, name="evolution", seed=0):
            ledger = Ledger(tmp_path / "ledger.sqlite", tiny, problem.task)
            searcher = SEARCHERS[name](tiny, seed=seed)
            return Search(problem, searcher, name, ledger, executor, workers=2, progress=False)

        yield make
