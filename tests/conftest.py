"""Fixtures every folder shares. One thread: the suite runs on small machines beside other work."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# The suite starts hundreds of processes: without bytecode each would compile all of edgemeta again.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

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


# The files that take longest, and thus begin first: one that began last would leave the other processes waiting.
LONGEST = (
    "docs/test_pages.py", "test_wheel.py", "test_pipeline.py", "stages/test_farm.py", "learners/test_contract.py",
    "export/test_edgemeta_profile.py", "export/test_every_learner.py", "search/test_join.py",
    "stages/test_searching.py", "latency/test_runners.py", "export/test_web_page.py", "test_torchrun.py",
    "stages/test_front.py", "tools/test_edge_front.py", "search/test_darts.py", "search/test_joint.py",
    "export/test_c_driver.py",
)  # fmt: skip


def pytest_configure(config):
    """Not in the order of pytest-xdist: files of many tests first, however short these are."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
