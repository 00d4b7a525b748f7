"""How a search went: the hypervolume that its trials dominate, training by training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from edgemeta.report.pareto import hypervolumes
from edgemeta.report.plots import BOTTOM, LEFT, RIGHT, TOP, Legend, swatch
from edgemeta.report.svg import Scale, axes, canvas, join, points, tag
from edgemeta.types import Cost, Trial

FEWEST = 3  # trainings of which a line says something
ROOM = 1.001  # above the slowest network, where no cap says what is too slow


def courses(trials: Sequence[Trial], cap: Cost) -> dict[str, list[float]]:
    """Searcher -> hypervolume after each of its trained trials, 1 being the largest of all."""
    found = volumes(trials, cap)
    largest = max((own[-1] for own in found.values()), default=0.0)
    return {name: [volume / largest for volume in own] for name, own in found.items()} if largest else {}


def volumes(trials: Sequence[Trial], cap: Cost) -> dict[str, list[float]]:
    """Searcher -> hypervolume after each of its trained trials, where there are FEWEST of them or more.

    The volume is that of accuracy above chance by cost below the caps on latency, RAM and flash; without a cap on
    latency the slowest network takes its place.
    """
    scored = [t for t in trials if t.score is not None and math.isfinite(t.score) and t.cost.latency_ms < math.inf]
    if not scored:
        return {}
    slowest_ms = ROOM * max(trial.cost.latency_ms for trial in scored)
    reference = replace(cap, latency_ms=min(cap.latency_ms, slowest_ms), energy_mj=math.inf)
    own = {name: [t for t in scored if t.searcher == name] for name in dict.fromkeys(t.searcher for t in scored)}
    return {name: hypervolumes(of, reference) for name, of in own.items() if len(of) >= FEWEST}


def lines(found: Mapping[str, Sequence[float]], *, width: int) -> Markup:
    """Percent of the largest volume against trainings: a stair for each searcher."""
    height, longest = 240, max(map(len, found.values()))
    low = min(shares[0] for shares in found.values())
    x = Scale(1.0, float(max(longest, 2)), LEFT, width - RIGHT)
    y = Scale(100 * min(low, 0.9), 100.0, height - BOTTOM, TOP)
    frame = axes(x, y, x_label="trainings", y_label="of the largest hypervolume [%]", x_ticks=_whole(x, width))
    parts = [
        tag("polyline", points=points(_stair(shares, x, y)), class_=f"curve s{at % 6}", data_tip=_tip(name, shares))
        for at, (name, shares) in enumerate(found.items())
    ]
    return canvas(width, height, f"Hypervolume against trainings of {len(found)} searchers", frame, join(parts))


def legend(found: Mapping[str, Sequence[float]]) -> list[Legend]:
    return [
        Legend(swatch(tag("line", x1=1, x2=17, y1=7, y2=7, class_=f"curve s{at % 6}")), name)
        for at, name in enumerate(found)
    ]


def _stair(shares: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Corners: each training moves right at the level before it, then up."""
    before = [shares[0], *shares]
    steps = enumerate(zip(before, shares, strict=False), start=1)
    return [(x(at), y(100 * level)) for at, step in steps for level in step]


def _whole(x: Scale, width: int) -> list[float]:
    return [tick for tick in x.ticks(max(4, width // 100)) if tick == round(tick)]


def _tip(name: str, shares: Sequence[float]) -> str:
    half = next(at for at, share in enumerate(shares, start=1) if share >= shares[-1] / 2)
    return f"{name}\n{100 * shares[-1]:.0f} % after {len(shares)} trainings\nhalf of it after {half}"
