"""When to time which network, and what its timings at several moments amount to; kept on disk as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

import numpy as np

from edgemeta.files import write_json
from edgemeta.types import Timing

PASSES = 2  # moments at which each network is timed
MAX_PASSES = 4  # for those whose timings disagree
DISAGREE = 1.08  # ratio between the moments of one network that asks for another
SAVE_EVERY_S = 1.0
VALID_S = 3600.0  # a machine an hour later is another machine


class Visit(NamedTuple):
    """One network at one moment, with the reference network at the same moment; milliseconds."""

    net: int
    median: float
    iqr: float
    reference: float


def order(count: int, visits: Sequence[Visit], *, seed: int) -> Iterator[int]:
    """Networks to time next: all in random order, again in another, then those whose timings disagree.

    Each pass skips what `visits` holds already, and sees what is appended to it meanwhile.
    """
    for turn in range(MAX_PASSES):
        shuffled = list(range(count))
        Random(f"{seed}/{turn}").shuffle(shuffled)
        seen = by_net(visits)
        for net in shuffled:
            found = seen.get(net, [])
            if len(found) <= turn and (turn < PASSES or (len(found) == turn and disagree(found))):
                yield net


def by_net(visits: Sequence[Visit]) -> dict[int, list[Visit]]:
    found: dict[int, list[Visit]] = {}
    for visit in visits:
        found.setdefault(visit.net, []).append(visit)
    return found


def disagree(visits: Sequence[Visit]) -> bool:
    ratios = [visit.median / visit.reference for visit in visits]
    return max(ratios) > DISAGREE * min(ratios)


def per_net(visits: Sequence[Visit]) -> dict[int, Timing]:
    """Each network at the median speed of the machine; the spread is that of its moments or of its runs."""
    speed = median(visit.reference for visit in visits)
    timings = {}
    for net, found in by_net(visits).items():
        scaled = [visit.median * speed / visit.reference for visit in found]
        between = float(np.subtract(*np.quantile(scaled, (0.75, 0.25))))
        timings[net] = Timing(median(scaled), max(between, median(v.iqr for v in found)), len(found))
    return timings


def keep(partial: Path | None, header: Mapping, visits: Sequence[Visit], spent: float) -> None:
    if partial is not None:
        write_json(partial, {**header, "saved_at": time.time(), "spent_s": spent, "visits": visits})


def resume(partial: Path | None, header: Mapping) -> tuple[list[Visit], float]:
    """Timings of a run with the same header that was killed less than an hour ago, and the seconds it took."""
    if partial is None or not partial.exists():
        return [], 0.0
    try:
        data = json.loads(partial.read_text())
        fresh = all(data[name] == value for name, value in header.items())
        fresh = fresh and 0 <= time.time() - data["saved_at"] < VALID_S
        return ([Visit(*visit) for visit in data["visits"]], float(data["spent_s"])) if fresh else ([], 0.0)
    except (ValueError, KeyError, TypeError):
        return [], 0.0  # not ours or not whole: measured again
