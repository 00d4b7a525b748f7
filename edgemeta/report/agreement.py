"""Predicted against measured latency: as plots, as shares of networks that were hit, and by kind of operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from edgemeta.report.plots import BOTTOM, LEFT, RIGHT, TOP, Legend, milliseconds, signed, swatch
from edgemeta.report.story import Check
from edgemeta.report.svg import Scale, axes, canvas, join, points, span, tag

WITHIN = 0.10  # the band that predictions should keep to
CROWD = 80  # networks past which marks are drawn smaller
DRAWN = 400  # networks of a group past which only some are drawn; more only cost bytes
GROUPS = {"profile": "network of the profile", "search": "bundle measured after the search"}
KINDS = {
    "first": "first convolution",
    "dense": "convolution",
    "pointwise": "pointwise convolution",
    "depthwise": "depthwise convolution",
    "maxpool": "max-pool",
    "add": "residual addition",
    "gap": "global average pool",
    "run": "a run itself, and leaving the caches",
}


class Tally(NamedTuple):
    """How well the networks of one group were predicted, as shares of 1."""

    label: str
    networks: int
    inside: float | None  # of those with an interval, measured inside it; None where none has one
    close: float  # measured within 10 %
    off: float  # mean distance of prediction and measurement


class KindError(NamedTuple):
    """Errors of whole networks, weighted by the share of their time that one kind of operator takes."""

    label: str
    share: float  # of all networks' time, on average
    off: float  # mean distance of prediction and measurement
    bias: float  # mean of prediction over measurement, less 1


# ---- numbers ------------------------------------------------------------------------------------------------------


def usable(checks: Iterable[Check]) -> list[Check]:
    """Those with positive finite times: a logarithmic axis has no place for the others."""
    return [c for c in checks if 0 < c.predicted.ms < math.inf and 0 < c.measured_ms < math.inf]


def error(check: Check) -> float:
    """Prediction over measurement, less 1: positive where the prediction is too slow."""
    return check.predicted.ms / check.measured_ms - 1


def inside(check: Check) -> bool | None:
    """Whether it was measured inside its interval; None where it has none."""
    _, low, high = check.predicted
    return low <= check.measured_ms <= high if 0 <= low < high < math.inf else None


def thinned(checks: Sequence[Check]) -> list[Check]:
    """As many of each group as a plot shows, evenly over their latencies."""
    groups = ([c for c in checks if c.group == group] for group in _groups(checks))
    return [c for own in groups for c in sorted(own, key=lambda c: c.measured_ms)[:: math.ceil(len(own) / DRAWN)]]


def tallies(checks: Sequence[Check]) -> list[Tally]:
    """One per group of usable checks, the profile's own networks first."""
    return [_tally(_group(group), [c for c in checks if c.group == group]) for group in _groups(checks)]


def _tally(label: str, checks: Sequence[Check]) -> Tally:
    known = [held for held in map(inside, checks) if held is not None]
    errors = [abs(error(c)) for c in checks]
    close = sum(off <= WITHIN for off in errors) / len(errors)
    return Tally(label, len(errors), sum(known) / len(known) if known else None, close, sum(errors) / len(errors))


def by_kind(checks: Sequence[Check]) -> list[KindError]:
    """Of the checks that tell shares: each kind that takes time, the largest first, and all of them as the last."""
    told = [c for c in checks if c.shares]
    kinds = {kind for c in told for kind in c.shares}
    weights = {KINDS.get(kind, kind): [max(0.0, c.shares.get(kind, 0.0)) for c in told] for kind in sorted(kinds)}
    rows = [_kind_error(label, told, own) for label, own in weights.items() if 0 < sum(own) < math.inf]
    rows.sort(key=lambda row: -row.share)
    return [*rows, _kind_error("all kinds together", told, [1.0] * len(told))] if rows else []


def _kind_error(label: str, checks: Sequence[Check], weights: Sequence[float]) -> KindError:
    total, errors = sum(weights), [error(check) for check in checks]
    off = sum(weight * abs(own) for weight, own in zip(weights, errors, strict=True)) / total
    bias = sum(weight * own for weight, own in zip(weights, errors, strict=True)) / total
    return KindError(label, total / len(checks), off, bias)


def _groups(checks: Sequence[Check]) -> list[str]:
    return sorted({check.group for check in checks}, key=lambda group: (group != "profile", group))


def _group(group: str) -> str:
    return GROUPS.get(group, group)


# ---- drawings -----------------------------------------------------------------------------------------------------


def agreement(checks: Sequence[Check], *, width: int) -> Markup:
    """Predicted against measured latency, both logarithmic, with the band of +-10 %."""
    height = min(width, 520)
    ends = [v for c in checks for v in (*c.predicted, c.measured_ms)]
    low, high = span([v for v in ends if 0 < v < math.inf], log=True)
    x, y = Scale(low, high, LEFT, width - RIGHT, True), Scale(low, high, height - BOTTOM, TOP, True)
    up, down = 1 + WITHIN, 1 - WITHIN
    outline = [(low, low), (low, up * low), (high / up, high), (high, high), (high, down * high), (low / down, low)]
    band = tag("polygon", points=points((x(a), y(b)) for a, b in outline), class_="band")
    equal = tag("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="equal")
    frame = axes(x, y, x_label="measured [ms]", y_label="predicted [ms]", y_format="{:.4g}".format)
    drawn = _marks(checks, x, lambda ms, _: y(ms))
    said = f"Predicted against measured latency of {len(checks)} networks"
    return canvas(width, height, said, band, frame, equal, drawn)


def errors(checks: Sequence[Check], *, width: int) -> Markup:
    """How far each prediction is off, in percent of the measurement, against the measured latency."""
    height = 300
    ends = [100 * (v / c.measured_ms - 1) for c in checks for v in (*c.predicted, c.measured_ms) if 0 < v < math.inf]
    x = Scale(*span([c.measured_ms for c in checks], log=True), LEFT, width - RIGHT, True)
    y = Scale(*span([*ends, 100 * WITHIN, -100 * WITHIN]), height - BOTTOM, TOP)
    top, bottom = y(100 * WITHIN), y(-100 * WITHIN)
    band = tag("rect", x=x.start, y=top, width=x.stop - x.start, height=bottom - top, class_="band")
    equal = tag("line", x1=x.start, x2=x.stop, y1=y(0), y2=y(0), class_="equal")
    frame = axes(x, y, x_label="measured [ms]", y_label="predicted over measured [%]", y_format=signed)
    drawn = _marks(checks, x, lambda ms, measured_ms: y(100 * (ms / measured_ms - 1)))
    return canvas(width, height, f"Relative error of {len(checks)} predictions", band, frame, equal, drawn)


def legend(checks: Sequence[Check]) -> list[Legend]:
    marks = [Legend(swatch(_shape(group, 9, 7, 4.5)), _group(group)) for group in _groups(checks)]
    held = {inside(c) for c in checks}
    if held != {None}:
        marks.append(Legend(swatch(tag("line", x1=9, x2=9, y1=0, y2=14, class_="whisker")), "90 % interval"))
    if False in held:
        marks.append(Legend(swatch(_shape("profile", 9, 7, 4.5, out=True)), "measured outside it"))
    marks.append(Legend(swatch(tag("rect", x=1, y=2, width=16, height=10, class_="band")), "within ±10 %"))
    return marks


def short(name: str) -> str:
    """An architecture without its space, which is the same for all that are drawn."""
    return name.rpartition(":")[2]


def _marks(checks: Sequence[Check], x: Scale, up: Callable[[float, float], float]) -> Markup:
    """Whiskers below all marks; what the intervals missed is drawn last, and so is what the fit has not seen."""
    order = sorted(checks, key=lambda c: (c.group != "profile", inside(c) is False))
    size = 4.5 if len(checks) <= CROWD else 3.0 if x.stop > 500 else 2.0
    whiskers = [_whisker(c, x(c.measured_ms), up, " fine" * (size < 4)) for c in order]
    return join([*whiskers, *(_mark(c, x, up, size) for c in order)])


def _whisker(check: Check, across: float, up: Callable[[float, float], float], look: str) -> Markup:
    _, low, high = check.predicted
    if inside(check) is None or not low > 0:
        return Markup()
    ends = {"y1": up(low, check.measured_ms), "y2": up(high, check.measured_ms)}
    return tag("line", x1=across, x2=across, **ends, class_="whisker" + (look if inside(check) else " out"))


def _mark(check: Check, x: Scale, up: Callable[[float, float], float], size: float) -> Markup:
    missed = inside(check) is False
    predicted = f"predicted {milliseconds(check.predicted.ms)}"
    if inside(check) is not None:
        predicted += f" ({milliseconds(check.predicted.low_ms)} to {milliseconds(check.predicted.high_ms)})"
    measured = f"measured {milliseconds(check.measured_ms)}" + (", outside the interval" if missed else "")
    off = f"off by {signed(100 * error(check), '.1f')} %"
    tip = "\n".join([short(check.name), _group(check.group), predicted, measured, off])
    place = x(check.measured_ms), up(check.predicted.ms, check.measured_ms)
    return _shape(check.group, *place, size, out=missed, tip=tip)


def _shape(group: str, across: float, up: float, size: float, *, out: bool = False, tip: str | None = None) -> Markup:
    look = f"dot s{int(group != 'profile')}" + " fine" * (size < 4) + " out" * out
    if group == "profile":
        return tag("circle", cx=across, cy=up, r=size, class_=look, data_tip=tip)
    size = max(size, 4.5)
    return tag("rect", x=across - size, y=up - size, width=2 * size, height=2 * size, rx=1.5, class_=look, data_tip=tip)
