"""How the speed of a device moved while its profile was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.plots import BOTTOM, LEFT, RIGHT, TOP, Legend, signed, swatch
from edgemeta.report.svg import Scale, axes, canvas, points, span, tag

Points = Sequence[tuple[float, float]]  # (seconds since the start, ms of the reference network)
FEWEST = 3  # moments of which a line says something


class Band(NamedTuple):
    """The reference network's times: their median, and between which ratios to it eight in ten lie."""

    median_ms: float
    low_ratio: float
    high_ratio: float


def usable(drift: Points) -> list[tuple[float, float]]:
    """Moments that can be drawn, in time order; none where there are too few for a line."""
    known = sorted((at, ms) for at, ms in drift if math.isfinite(at) and 0 < ms < math.inf)
    return known if len(known) >= FEWEST and known[-1][0] > max(0.0, known[0][0]) else []


def band(drift: Points) -> Band:
    """Of usable moments, one at least."""
    times = sorted(ms for _, ms in drift)
    middle = median(times)
    return Band(middle, _quantile(times, 0.1) / middle, _quantile(times, 0.9) / middle)


def line(drift: Points, *, width: int) -> Markup:
    """Percent by which the reference network took more or less than its median, against time."""
    height, found = 240, band(drift)
    percents = [100 * (ms / found.median_ms - 1) for _, ms in drift]
    low, high = (100 * (ratio - 1) for ratio in (found.low_ratio, found.high_ratio))
    x = Scale(min(0.0, drift[0][0]), drift[-1][0], LEFT, width - RIGHT)
    y = Scale(*span([*percents, -1.0, 1.0]), height - BOTTOM, TOP)  # a calm machine is to look calm
    area = tag("rect", x=x.start, y=y(high), width=x.stop - x.start, height=y(low) - y(high), class_="band")
    middle = tag("line", x1=x.start, x2=x.stop, y1=y(0), y2=y(0), class_="equal")
    seconds = x.ticks(max(4, width // 100))
    frame = axes(
        x, y, x_label="since the start [s]", y_label="against its median [%]", x_ticks=seconds, y_format=signed
    )
    path = [(x(at), y(percent)) for (at, _), percent in zip(drift, percents, strict=True)]
    drawn = tag("polyline", points=points(path), class_="course")
    return canvas(width, height, f"Drift of the reference network at {len(drift)} moments", area, frame, middle, drawn)


def legend() -> list[Legend]:
    return [
        Legend(swatch(tag("line", x1=1, x2=17, y1=7, y2=7, class_="course")), "reference network"),
        Legend(swatch(tag("rect", x=1, y=2, width=16, height=10, class_="band")), "10 % to 90 % of its times"),
    ]


def _quantile(ranked: Sequence[float], share: float) -> float:
    """Of sorted values, between neighbours in proportion."""
    at = share * (len(ranked) - 1)
    below, rest = int(at), at - int(at)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + rest * (ranked[above] - ranked[below])
