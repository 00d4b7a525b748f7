"""Plots of latency checks and of accuracy against shots, and what all plots share.

Each plot draws itself at a given width, so that a phone gets its own drawing and not a shrunk one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.story import Check, Score
from edgemeta.report.svg import Scale, axes, canvas, join, points, span, tag

LEFT, RIGHT, TOP, BOTTOM = 52, 18, 40, 46  # px around the plotting area
WITHIN = 0.10  # the band that predictions should keep to


class Legend(NamedTuple):
    """A mark as it stands in the plot, and what it means."""

    mark: Markup
    label: str


def milliseconds(value: float) -> str:
    """Three significant digits, at least microseconds: 0.187 ms, 12.3 ms."""
    return f"{value:.3g} ms" if value >= 0.001 else f"{value * 1000:.2g} µs"


def percent(share: float, ci: float | None = None) -> str:
    return f"{100 * share:.1f} %" if ci is None else f"{100 * share:.1f} ± {100 * ci:.1f} %"


# ---- predicted against measured -----------------------------------------------------------------------------------


def agreement(checks: Sequence[Check], *, width: int) -> Markup:
    """Predicted against measured latency, both logarithmic, with the band of +-10 %."""
    height = min(width, 520)
    ends = [v for c in checks for v in (c.predicted.low_ms, c.predicted.high_ms, c.predicted.ms, c.measured_ms)]
    low, high = span([v for v in ends if 0 < v < math.inf], log=True)
    x, y = Scale(low, high, LEFT, width - RIGHT, True), Scale(low, high, height - BOTTOM, TOP, True)
    up, down = 1 + WITHIN, 1 - WITHIN
    outline = [(low, low), (low, up * low), (high / up, high), (high, high), (high, down * high), (low / down, low)]
    band = tag("polygon", points=points((x(a), y(b)) for a, b in outline), class_="band")
    equal = tag("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="equal")
    frame = axes(x, y, x_label="predicted [ms]", y_label="measured [ms]", y_format="{:.4g}".format)
    parts = [band, frame, equal, *(_check(c, x, y) for c in sorted(checks, key=lambda c: c.group))]
    return canvas(width, height, f"Predicted against measured latency of {len(checks)} networks", *parts)


def agreement_legend(checks: Sequence[Check]) -> list[Legend]:
    legend = [Legend(swatch(_shape(group, 9, 7)), _GROUPS.get(group, group)) for group in _groups(checks)]
    legend.append(Legend(swatch(tag("rect", x=1, y=2, width=16, height=10, class_="band")), "within ±10 %"))
    return legend


_GROUPS = {"profile": "reference network of the profile", "search": "candidate of the search"}


def _groups(checks: Sequence[Check]) -> list[str]:
    return sorted({check.group for check in checks})


def usable(checks: Sequence[Check]) -> list[Check]:
    """Those with positive finite times: a logarithmic axis has no place for the others."""
    return [c for c in checks if 0 < c.predicted.ms < math.inf and 0 < c.measured_ms < math.inf]


def hits(checks: Sequence[Check]) -> int:
    """How many networks were measured within 10 % of their prediction."""
    return sum(abs(c.predicted.ms - c.measured_ms) <= WITHIN * c.measured_ms for c in checks)


def _check(check: Check, x: Scale, y: Scale) -> Markup:
    off = check.predicted.ms / check.measured_ms - 1
    low, high = check.predicted.low_ms, check.predicted.high_ms
    tip = (
        f"{check.name}\n{_GROUPS.get(check.group, check.group)}\npredicted {milliseconds(check.predicted.ms)} "
        f"({milliseconds(low)} to {milliseconds(high)})\nmeasured {milliseconds(check.measured_ms)}\noff by {off:+.1%}"
    )
    at = y(check.measured_ms)
    whisker = tag("line", x1=x(low), x2=x(high), y1=at, y2=at, class_="whisker") if 0 < low < high < math.inf else ""
    return join([whisker, _shape(check.group, x(check.predicted.ms), at, tip)])


def _shape(group: str, across: float, up: float, tip: str | None = None) -> Markup:
    if group == "profile":
        return tag("circle", cx=across, cy=up, r=4.5, class_="dot s0", data_tip=tip)
    return tag("rect", x=across - 4.5, y=up - 4.5, width=9, height=9, rx=1.5, class_="dot s1", data_tip=tip)


# ---- accuracy against shots ---------------------------------------------------------------------------------------


def usual_way(scores: Sequence[Score]) -> int:
    """The number of classes that most scores were taken with: curves must not mix them."""
    return Counter(score.way for score in scores).most_common(1)[0][0]


def curves(scores: Sequence[Score]) -> dict[tuple[str, str], list[Score]]:
    """(learner, test set) -> its scores by shots; those with at least two points."""
    way = usual_way(scores)
    found: dict[tuple[str, str], list[Score]] = {}
    known = (s for s in scores if s.way == way and s.shot > 0 and math.isfinite(s.accuracy) and math.isfinite(s.ci))
    for score in sorted(known, key=lambda s: s.shot):
        found.setdefault((score.learner, score.test_set), []).append(score)
    return {name: curve for name, curve in found.items() if len(curve) > 1}


def shots(scores: Sequence[Score], *, width: int) -> Markup:
    """Accuracy against labelled examples per class, with 95 % intervals; curves stand 3 px apart so as not to hide."""
    height = 420 if width > 500 else 360
    drawn = curves(scores)
    every = [score for curve in drawn.values() for score in curve]
    ends = [100 * (s.accuracy + sign * s.ci) for s in every for sign in (-1, 1)]
    counts = sorted({score.shot for score in every})
    x = Scale(*span(counts, log=True), LEFT, width - RIGHT, True)
    y = Scale(*span(ends), height - BOTTOM, TOP)
    name = f"accuracy, {usual_way(scores)} classes [%]"
    parts = [axes(x, y, x_label="labelled examples per class", y_label=name, x_ticks=_apart(counts, x))]
    looks = _looks(drawn)
    for at, (key, curve) in enumerate(drawn.items()):
        parts.append(_curve(curve, looks[key], x, y, 3 * (at - (len(drawn) - 1) / 2)))
    return canvas(width, height, f"Accuracy against shots of {len(drawn)} curves", *parts)


def shots_legend(scores: Sequence[Score]) -> list[Legend]:
    looks = _looks(curves(scores))
    swatches = {
        name: tag("line", x1=0, x2=26, y1=7, y2=7, class_=f"curve s{colour} d{dash}") + _marker(13, 7, colour, dash)
        for name, (colour, dash) in looks.items()
    }
    return [Legend(swatch(mark, 26), f"{learner} on {data}") for (learner, data), mark in swatches.items()]


def _looks(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int]]:
    """Colour says the learner, dashes and marker the test set."""
    names = list(names)
    learners = list(dict.fromkeys(learner for learner, _ in names))
    sets = list(dict.fromkeys(data for _, data in names))
    return {(a, b): (learners.index(a) % 6, sets.index(b) % 4) for a, b in names}


def _apart(counts: Sequence[int], x: Scale) -> list[int]:
    kept: list[int] = []
    for count in counts:
        if not kept or x(count) - x(kept[-1]) > 24:
            kept.append(count)
    return kept


def _curve(curve: Sequence[Score], look: tuple[int, int], x: Scale, y: Scale, shift: float) -> Markup:
    colour, dash = look
    places = [(x(score.shot) + shift, y(100 * score.accuracy)) for score in curve]
    parts = [tag("polyline", points=points(places), class_=f"curve s{colour} d{dash}")]
    for score, (across, up) in zip(curve, places, strict=True):
        ends = [y(100 * (score.accuracy + sign * score.ci)) for sign in (-1, 1)]
        tip = (
            f"{score.learner} on {score.test_set}\n{score.way} classes, {score.shot} examples each\n"
            f"{percent(score.accuracy, score.ci)}, {score.episodes:,} episodes"
        )
        parts.append(tag("line", x1=across, x2=across, y1=ends[0], y2=ends[1], class_=f"curve s{colour}"))
        parts.append(_marker(across, up, colour, dash, tip))
    return join(parts)


_OUTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((-4, -4), (4, -4), (4, 4), (-4, 4)),
    ((0, -5.5), (5, 4), (-5, 4)),
    ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
)


def _marker(across: float, up: float, colour: int, dash: int, tip: str | None = None) -> Markup:
    style = {"class_": f"dot s{colour}", "data_tip": tip}
    if dash == 0:
        return tag("circle", cx=across, cy=up, r=4.5, **style)
    return tag("polygon", points=points((across + a, up + b) for a, b in _OUTLINES[dash - 1]), **style)


def swatch(mark: Markup, width: int = 18) -> Markup:
    """A mark of a plot, small enough for the legend above it."""
    return tag("svg", mark, viewBox=f"0 0 {width} 14", width=width, height=14, aria_hidden="true")
