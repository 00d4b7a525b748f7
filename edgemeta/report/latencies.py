"""The latencies of the chosen network side by side, each with its name: predicted or measured, and of what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgemeta.contracts import Latency
from edgemeta.report.drift import Band
from edgemeta.report.plots import milliseconds, signed
from edgemeta.report.story import Check, Story, Winner


class Row(NamedTuple):
    """One part of the network: its prediction beside its measurement, as text."""

    name: str
    where: str  # on the page these numbers stand
    predicted: str
    interval: str
    measured: str


def rows(story: Story) -> list[Row]:
    """The whole road from image to answer, and the body alone where anything is known of it."""
    if story.winner is None:
        return []
    timing = story.winner.measured
    whole = _row(
        "Image to answer: body and few-shot head",
        "in the headline, the cap, and accuracy against latency",
        story.winner.predicted,
        timing.median_ms if timing else None,
    )
    body = own_check(story.checks, story.winner)
    charged = sum(ms for _, ms in story.layers if math.isfinite(ms))
    if body is None and not charged:
        return [whole]
    guess = body.predicted if body else Latency(charged, math.nan, math.nan)
    where = "in latency by layer, and predicted against measured"
    return [whole, _row("Body alone: image to features", where, guess, body.measured_ms if body else None)]


def own_check(checks: Sequence[Check], winner: Winner) -> Check | None:
    """The body of the winner, timed after the search."""
    return next((c for c in checks if c.group == "search" and c.name == str(winner.arch)), None)


def outside(winner: Winner) -> str | None:
    """ "above" or "below" its interval, where it was measured and lies there; an interval of one point is none."""
    _, low, high = winner.predicted
    if winner.measured is None or not 0 <= low < high < math.inf:
        return None
    ms = winner.measured.median_ms
    return "above" if ms > high else "below" if ms < low else None


def why(story: Story, speed: Band | None) -> str:
    """Why prediction and measurement differ, and how a measurement may lie outside the interval."""
    if story.winner is None:
        return ""
    if story.winner.measured is None:
        return "Predictions only: the bundle was not timed on this device, so nothing here is a measurement."
    told = [
        "A prediction is for the device's middle speed while it was profiled; a measurement is of the bundle itself,"
        " timed after the search at the speed the device had then.",
        "The interval holds the bodies of nine networks in ten at that middle speed; the few-shot head is added at"
        " what a typical one took.",
    ]
    if speed:
        low, high = (signed(100 * ratio - 100, ".1f") for ratio in (speed.low_ratio, speed.high_ratio))
        told.append(
            f"In the course of profiling, the time of one and the same network already varied from {low} % to {high} %."
        )
    if side := outside(story.winner):
        told.append(f"So this one could be measured {side} its interval; caps are held against the measurement.")
    return " ".join(told)


def _row(name: str, where: str, predicted: Latency, measured_ms: float | None) -> Row:
    _, low, high = predicted
    known = 0 <= low < high < math.inf
    interval = f"90 % interval: {milliseconds(low)} to {milliseconds(high)}" if known else "no interval"
    measured = "not measured" if measured_ms is None else milliseconds(measured_ms)
    return Row(name, where, milliseconds(predicted.ms), interval, measured)
