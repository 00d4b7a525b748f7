"""One short profile of the tiny space for all latency tests."""

from __future__ import annotations

import pytest

from edgemeta.latency import profile
from edgemeta.latency.measure import measure_host
from edgemeta.types import Profile


@pytest.fixture(scope="session")
def host(tiny) -> Profile:
    return measure_host(tiny, seed=0, nets=24, seconds=5.0, progress=False)


@pytest.fixture(scope="session")
def null() -> Profile:
    return profile.load("null")
