"""Energy of an inference, where the kernel shows what the processor draws; "not measured" everywhere else.

RAPL counts the whole processor package: cores, caches and its share of idling, but no memory modules, screen or power
supply. What other programs draw meanwhile is in it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgemeta.errors import BadConfig
from edgemeta.space.space import Space
from edgemeta.types import NetTiming, Profile

from .measure import RUNTIME, session
from .onnx_net import to_onnx

ROOT = Path("/sys/class/powercap")
RATE = "per_ms_mj"  # of a profile's overhead: mJ per ms of inference
FEWEST_NETS, NETS = 10, 12
SECONDS = 6.0  # in loops, over all networks; the counter moves about once a millisecond
UNSTEADY = 1.25  # ratio between the power of two networks past which one rate for all is doubtful


class Package(NamedTuple):
    """The energy counter of one processor package."""

    counter: Path  # holds micro-joules
    wraps_uj: int  # where it starts again at 0


class Draw(NamedTuple):
    """A network run in a loop."""

    ms: float
    mj: float


def packages(root: Path = ROOT) -> tuple[Package, ...]:
    """The packages whose counters this process can read. Zones inside them, and `psys` around them, count twice."""
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                int((zone / "energy_uj").read_text())
                found.append(Package(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())))
        except (OSError, ValueError):
            continue
    return tuple(found)


def why_not(root: Path = ROOT) -> str:
    """Why energy is not measured here; "" where it is."""
    if packages(root):
        return ""
    if not any(root.glob("intel-rapl:*")):
        return f"not measured: no energy counter in {root}"
    for zone in root.glob("intel-rapl:*"):
        try:
            (zone / "energy_uj").read_text()
        except PermissionError:
            return f"not measured: {zone / 'energy_uj'} is for the administrator; make it readable"
        except OSError as error:
            return f"not measured: {zone / 'energy_uj'}: {error.strerror}"
    return f"not measured: no counter of a processor package in {root}"


def added(profile: Profile, space: Space, *, root: Path = ROOT, seconds: float = SECONDS) -> Profile:
    """The profile with `per_ms_mj`, where energy can be measured; else as it is, and it says so by carrying none.

    One rate stands for every network: energy_mj = per_ms_mj x latency_ms.
    """
    counters, timed = packages(root), spread(profile.nets)  # the loops run in RUNTIME: only its profiles get a rate
    if not counters or len(timed) < FEWEST_NETS or (profile.runtime, profile.precision) != (RUNTIME, "fp32"):
        return profile
    feeds = {"x": np.random.default_rng(0).standard_normal((1, *space.in_shape), dtype=np.float32)}
    drawn = []
    for net in timed:
        opened = session(to_onnx(space.ops(net.arch), batch=1).SerializeToString(), threads=profile.threads)
        drawn.append(draw(lambda opened=opened: opened.run(None, feeds), counters, seconds=seconds / len(timed)))  # type: ignore[misc]
    return with_rate(profile, drawn)


def spread(nets: Sequence[NetTiming]) -> list[NetTiming]:
    """At most NETS networks from the fastest to the slowest, evenly over their ranks."""
    ranked = sorted(nets, key=lambda net: net.timing.median_ms)
    places = sorted(set(np.linspace(0, len(ranked) - 1, min(NETS, len(ranked))).round().astype(int).tolist()))
    return [ranked[place] for place in places]


def draw(
    run: Callable[[], object],
    counters: Sequence[Package],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Draw:
    """What a loop of `run` takes; a counter that passed its end once in the meantime started again at 0."""
    run()
    before, begin = [_uj(package) for package in counters], clock()
    while (now := clock()) - begin < seconds:
        run()
    spent = (_moved(package, old, _uj(package)) for package, old in zip(counters, before, strict=True))
    return Draw(1e3 * (now - begin), sum(spent) / 1e3)


def with_rate(profile: Profile, drawn: Sequence[Draw]) -> Profile:
    """The profile with the rate of all loops together, and a doubt where the networks draw unlike power."""
    total = sum(loop.mj for loop in drawn)
    if not total > 0:
        return profile  # a counter that stands still, as some virtual machines have
    rates = [loop.mj / loop.ms for loop in drawn]
    doubts = profile.doubts
    if max(rates) > UNSTEADY * min(rates):
        doubts += (f"energy: networks drew {min(rates):.3g} to {max(rates):.3g} W; one rate stands for all",)
    rate = total / sum(loop.ms for loop in drawn)
    return replace(profile, overhead={**profile.overhead, RATE: rate}, doubts=doubts)


def require(profile: Profile, cap_mj: float) -> None:
    """Refuse a cap on energy for a device that carries none."""
    if RATE not in profile.overhead:
        raise BadConfig(
            f"setting energy_mj = {cap_mj:g}: the energy of {profile.device!r} is not measured; leave --energy-mj out "
            "and cap --latency-ms, or name a device whose profile has it (`edgemeta devices`)"
        )


def _uj(package: Package) -> int:
    return int(package.counter.read_text())


def _moved(package: Package, before: int, after: int) -> int:
    return after - before if after >= before else after - before + package.wraps_uj + 1
