"""Latencies of chosen networks on this machine: all of them, or none."""

from __future__ import annotations

import sys
from collections.abc import Collection
from statistics import median
from typing import Any, NamedTuple

from edgemeta.latency import measure
from edgemeta.space.space import Space
from edgemeta.types import Arch

GOES = 4


class Timed(NamedTuple):
    ms: dict[Arch, float]
    reference_ms: float  # what the network took that is timed in between: how fast the machine was


def timed(space: Space, archs: Collection[Arch], *, seed: int, **how: Any) -> Timed:
    """Medians in turns. Those left out, because visits contradicted each other or time was up, are timed again and
    carried to the speed of the first go; ends with a line where some cannot be timed."""
    ms: dict[Arch, float] = {}
    reference_ms, missing = 0.0, sorted(archs, key=str)
    for go in range(GOES):
        made = measure.measure_nets(space, missing, seed=seed + go, **how)
        now_ms = median(ms for _, ms in made.drift)
        reference_ms = reference_ms or now_ms
        ms |= {net.arch: net.timing.median_ms * reference_ms / now_ms for net in made.nets}
        missing = [arch for arch in missing if arch not in ms]
        if not missing:
            return Timed(ms, reference_ms)
    sys.exit(f"{len(missing)} of {len(archs)} networks have no timing after {GOES} goes; raise --seconds or quieten it")
