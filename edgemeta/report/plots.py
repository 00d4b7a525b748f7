"""Accuracy against shots as a plot, and what all plots share.

Each plot draws itself at a given width, so that a phone gets its own drawing and not a shrunk one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.story import Score
from edgemeta.report.svg import Scale, axes, canvas, join, points, span, tag

LEFT, RIGHT, TOP, BOTTOM = 52, 18, 40, 46  # px around the plotting area


class Legend(NamedTuple):
    """A mark as it stands in the plot, and what it means."""

    mark: Markup
    label: str


def milliseconds(value: float) -> str:
    """Three significant digits, at least microseconds: 0.187 ms, 12.3 ms."""
    return f"{value:.3g} ms" if value >= 0.001 else f"{value * 1000:.2g} µs"


def percent(share: float, ci: float | None = None) -> str:
    return f"{100 * share:.1f} %" if ci is None else f"{100 * share:.1f} ± {100 * ci:.1f} %"


def signed(value: float, format: str = "g") -> str:
    """With its sign, a real minus; nothing that is rounded to zero has one: +2, −10, 0."""
    shown = f"{value:+{format}}"
    return shown.replace("-", "−") if float(shown) else shown[1:]


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
