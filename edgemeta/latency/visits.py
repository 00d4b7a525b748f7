"""Timings of a kit as a runner wrote them: read with care, and what they amount to for each network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemeta.errors import BadProfile, first_mistake
from edgemeta.types import Timing

from . import checks
from .kit import FORMAT, Kit

MAX_BYTES = 64 * 2**20
WILD = 3.0  # ratio between two timings of one network that no drift explains
WILD_SHARE = 0.01  # of the networks may be so and are left out; more of them, and nothing is to be believed
WILD_SPREAD = 4.0  # ratio between slow and fast moments of the reference beyond which nothing is to be believed
DOUBT_LOAD = 0.5  # cores that other processes keep busy
DOUBT_DRIFT = 1.15  # ratio between the first and the last fifth of the run
DOUBT_SPREAD = 0.15  # share of its median by which the middle half of the reference's timings spreads
SLOW_GOVERNORS = ("powersave", "ondemand", "conservative")
DRIFT_POINTS = 200
_AGAIN = "time the kit again"

_Ms = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]
_From0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class Visit(NamedTuple):
    """One network at one moment, with the reference network at the same moment; milliseconds."""

    net: _Count
    median: _Ms
    iqr: _From0
    reference: _Ms
    at_s: _From0  # since the start of the run


class Timings(BaseModel):
    """What a runner writes; other fields are left alone."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int
    kit: str
    runtime: Annotated[str, Field(min_length=1)]
    versions: dict[str, str]
    cpu: str
    governor: str = "unknown"
    affinity: tuple[_Count, ...] = ()
    cores: int
    system: str
    measured_on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    spent_s: _From0
    visits: tuple[Visit, ...]
    head_ms: _From0 | None
    finished: bool
    load: _From0 | None = None  # cores that other processes kept busy at the start


def read(path: Path | str, kit: Kit) -> Timings:
    """Timings of this kit; a file that is damaged, of another kit or beyond belief is a `BadProfile` in one line."""
    path = Path(path)
    text = _text(path)
    checks.refuse_repeated_keys(text, f"timings {path}")
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or not {"kit", "visits"} <= set(content):
            raise BadProfile(f"{path} is not a timings.json of a runner; give the file that edgemeta_profile wrote")
        timings = Timings.model_validate_json(text)
    except ValidationError as error:
        raise BadProfile(f"timings {path}: {first_mistake(error, 'the file')}; {_AGAIN}") from None
    except (ValueError, RecursionError):
        raise BadProfile(f"timings {path}: cut off or no JSON; {_AGAIN}") from None
    if timings.format != FORMAT:
        raise BadProfile(f"timings {path}: format {timings.format}, here is {FORMAT}; use the runner beside the kit")
    if timings.kit != kit.id:
        raise BadProfile(f"timings {path} are of another kit than {kit.folder}; give --kit the folder that was timed")
    _check(timings, kit, path)
    return timings


def _text(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadProfile(f"{path} is over {MAX_BYTES // 2**20} MiB, too large for timings; give a timings.json")
        return path.read_bytes()
    except OSError as error:
        raise BadProfile(f"cannot read timings {path}: {error.strerror}; give the file the runner wrote") from None


def _check(timings: Timings, kit: Kit, path: Path) -> None:
    visits = timings.visits
    if not visits:
        raise BadProfile(f"timings {path} hold no visit to any network; give the runner more --seconds")
    if (most := max(visit.net for visit in visits)) >= len(kit.archs):
        raise BadProfile(f"timings {path}: network {most} of a kit of {len(kit.archs)}; {_AGAIN}")
    if len(visits) > 2 and len({visit.median for visit in visits}) == 1:
        raise BadProfile(
            f"timings {path}: all {len(visits)} are {visits[0].median:g} ms, so nothing was told apart: "
            "the clock is too coarse, or the file is made up"
        )
    if (spread := _spread([visit.reference for visit in visits])) > WILD_SPREAD:
        raise BadProfile(
            f"timings {path}: the same network took {spread:.1f} times as long at some moments as at others; "
            f"stop what else runs on the device and {_AGAIN}"
        )
    wild = contradictory(visits)
    if len(wild) > WILD_SHARE * len({visit.net for visit in visits}):
        net, found = next(iter(wild.items()))
        raise BadProfile(
            f"timings {path}: network {net} ({kit.archs[net]}) took {min(found):.3g} ms and {max(found):.3g} ms; "
            f"stop what else runs on the device and {_AGAIN}"
        )


def by_net(visits: Sequence[Visit]) -> dict[int, list[Visit]]:
    found: dict[int, list[Visit]] = {}
    for visit in visits:
        found.setdefault(visit.net, []).append(visit)
    return dict(sorted(found.items()))


def at_median_speed(visits: Sequence[Visit]) -> dict[int, list[float]]:
    """Milliseconds of each network at each moment, scaled to the median speed of the machine.

    >>> usual, slow = Visit(net=0, median=2.0, iqr=0.1, reference=1.0, at_s=0.0), Visit(0, 3.0, 0.1, 1.5, 1.0)
    >>> at_median_speed([usual, slow, Visit(1, 4.0, 0.1, 1.0, 2.0)])
    {0: [2.0, 2.0], 1: [4.0]}
    """
    speed = median(visit.reference for visit in visits)
    return {net: [v.median * speed / v.reference for v in found] for net, found in by_net(visits).items()}


def contradictory(visits: Sequence[Visit]) -> dict[int, list[float]]:
    """Networks visited more than once no two of whose timings agree: each is `WILD` times the next, or more."""
    found = {}
    for net, scaled in at_median_speed(visits).items():
        ranked = np.sort(scaled)
        if len(ranked) > 1 and (ranked[1:] >= WILD * ranked[:-1]).all():
            found[net] = scaled
    return found


def per_net(visits: Sequence[Visit]) -> dict[int, Timing]:
    """Each network at the median speed of the machine; the spread is that of its moments or of its runs.

    Networks whose timings contradict one another are left out.
    """
    timings, left_out, seen = {}, contradictory(visits), by_net(visits)
    for net, scaled in at_median_speed(visits).items():
        if net not in left_out:
            between = float(np.subtract(*np.quantile(scaled, (0.75, 0.25))))
            timings[net] = Timing(median(scaled), max(between, median(v.iqr for v in seen[net])), len(scaled))
    return timings


def drift(visits: Sequence[Visit]) -> tuple[tuple[float, float], ...]:
    """(seconds since the start, ms of the reference network), at most `DRIFT_POINTS` of them, in time order.

    Each point is the median of visits in a row.
    """
    ordered = sorted(visits, key=lambda visit: visit.at_s)
    parts = np.array_split(np.arange(len(ordered)), min(DRIFT_POINTS, len(ordered)))
    groups = [[ordered[i] for i in part] for part in parts]
    return tuple((median(v.at_s for v in group), median(v.reference for v in group)) for group in groups)


def doubts(timings: Timings) -> tuple[str, ...]:
    """What speaks against these timings, a sentence each."""
    found, visits = [], sorted(timings.visits, key=lambda visit: visit.at_s)
    if timings.load is not None and timings.load > DOUBT_LOAD:
        found.append(f"other processes kept {timings.load:.1f} cores busy at the start")
    if slow := set(timings.governor.split("+")) & set(SLOW_GOVERNORS):
        found.append(f"frequency governor {', '.join(sorted(slow))}: the clock may have changed meanwhile")
    references = np.array([visit.reference for visit in visits])
    fifth = max(1, len(references) // 5)
    change = float(np.median(references[-fifth:]) / np.median(references[:fifth]))
    if len(references) > 1 and not 1 / DOUBT_DRIFT < change < DOUBT_DRIFT:
        found.append(f"the reference network took {change - 1:+.0%} at the end of the run, compared with its start")
    low, middle, high = np.quantile(references, (0.25, 0.5, 0.75))
    if high - low > DOUBT_SPREAD * middle:
        found.append(f"the middle half of the reference network's timings spreads over {(high - low) / middle:.0%}")
    found += checks.clock_doubts([visit.median for visit in visits])
    if left_out := contradictory(visits):
        found.append(f"{len(left_out)} networks left out, their timings contradict one another: {sorted(left_out)[:5]}")
    return tuple(found)


def _spread(references: Sequence[float]) -> float:
    """90th over 10th percentile."""
    return float(np.quantile(references, 0.9) / np.quantile(references, 0.1))


def slow_ratio(visits: Sequence[Visit]) -> float:
    """How much slower than usual the machine was at its slow moments: 90th percentile of the reference over median."""
    references = [visit.reference for visit in visits]
    return float(np.quantile(references, 0.9) / np.median(references))


def drift_ratio(visits: Sequence[Visit]) -> float:
    """How far the speed of the machine moved: 90th over 10th percentile of the reference network."""
    return _spread([visit.reference for visit in visits])
