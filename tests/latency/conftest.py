"""One short profile of the tiny space for all latency tests, and one small kit with the timings of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemeta.latency import kit as kits
from edgemeta.latency import profile, runners
from edgemeta.latency.measure import measure_host
from edgemeta.types import Profile
from tests.boards import board, boards, server  # noqa: F401
from tests.latency.pretend import Lab, lab


@pytest.fixture(scope="session")
def host(tiny) -> Profile:
    return measure_host(tiny, seed=0, nets=24, seconds=5.0, progress=False)


@pytest.fixture(scope="session")
def null() -> Profile:
    return profile.load("null")


@pytest.fixture(scope="session")
def kit(tiny, tmp_path_factory) -> kits.Kit:
    """Every operator of the tiny space, and two networks more."""
    archs, covering = kits.covering_and_random(tiny, 2, seed=0)
    return kits.write(tmp_path_factory.mktemp("kit"), tiny, archs, covering=covering, seed=0)


@pytest.fixture(scope="session")
def timed(kit, tmp_path_factory) -> Path:
    """timings.json of that kit."""
    return runners.local(kit, tmp_path_factory.mktemp("timed") / "timings.json", progress=False)


@pytest.fixture
def record(timed) -> dict:
    """What stands in that file, to be changed at will."""
    return json.loads(timed.read_text())


@pytest.fixture(scope="session")
def cells() -> Lab:
    """Cells of NAS-Bench-201: pruning and parallel paths."""
    return lab("nb201", networks=300, devices=40)


@pytest.fixture(scope="session")
def toys(tiny) -> Lab:
    """Networks of the tiny space."""
    return lab(tiny.name, networks=300, devices=40)
