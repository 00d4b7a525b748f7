"""Fixtures every folder shares. One thread: the suite runs on small machines beside other work."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest
import torch

from edgemeta.space.presets import tiny as tiny_space
from edgemeta.space.space import Space
from tests import postgres

torch.set_num_threads(1)
# Derandomised, so that a failure is found again; no deadline, because a busy machine is not a bug.
hypothesis.settings.register_profile("edgemeta", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.load_profile("edgemeta")


def pytest_addoption(parser):
    parser.addoption(
        "--data-root",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "shared" / "data",
        help="folder of real data sets; tests that need one skip where it is absent",
    )


@pytest.fixture
def data_root(request) -> Path:
    """The folder of real data sets, read in place."""
    root = request.config.getoption("--data-root")
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; name its folder with --data-root")
    return root


@pytest.fixture(scope="session")
def tiny() -> Space:
    """The smallest space with every kind of layer."""
    return tiny_space()


@pytest.fixture
def rng() -> Random:
    return Random(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def postgresql():
    """A server that knows nothing."""
    with postgres.server() as running:
        yield running
