"""A pretend device whose energy is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgemeta.latency import profile
from edgemeta.types import Profile


@pytest.fixture
def null_with_energy() -> Profile:
    """1 ms and 2 mJ per million multiply-accumulates."""
    null = profile.load("null")
    return replace(null, overhead={**null.overhead, "per_ms_mj": 2.0})
