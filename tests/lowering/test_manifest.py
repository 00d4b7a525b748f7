from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from edgemeta.lowering.manifest import Caps, FileInfo, Normalisation, Spread
from edgemeta.types import Cost


def test_caps_keep_what_is_finite():
    assert Caps.model_validate(Cost(latency_ms=1.5).to_json()) == Caps(latency_ms=1.5, ram_kib=None, flash_kib=None)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_times_are_finite_and_not_negative(value):
    with pytest.raises(ValidationError):
        Spread(median_ms=value, iqr_ms=0.0, n=1)


def test_sizes_are_bounded():
    with pytest.raises(ValidationError):
        Normalisation(channels=1, height=10**6, width=28)
    with pytest.raises(ValidationError):
        FileInfo(sha256="0" * 64, bytes=2**40)
    with pytest.raises(ValidationError):
        FileInfo(sha256="nonsense", bytes=1)
