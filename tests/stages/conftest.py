"""A pretend device whose energy is known, and this machine as it is timed in a moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgemeta.latency import measure
from edgemeta.latency import profile as profiles
from edgemeta.space.presets import tiny
from edgemeta.types import Profile
from tests.boards import board, boards, server  # noqa: F401


@pytest.fixture(scope="session")
def profile() -> Profile:
    """Of the tiny space."""
    return measure.measure_host(tiny(), seed=0, nets=4, seconds=3, progress=False)


@pytest.fixture
def null_with_energy() -> Profile:
    """1 ms and 2 mJ per million multiply-accumulates."""
    null = profiles.load("null")
    return replace(null, overhead={**null.overhead, "per_ms_mj": 2.0})
