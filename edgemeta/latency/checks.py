"""What speaks against timings: each finding that forbids their use is a `BadProfile` of one line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from edgemeta.errors import BadProfile
from edgemeta.types import Arch, NetTiming, Op, Profile, Timing

DISAGREE = 3.0  # ratio between two timings of one network past which one of them must be of something else
# Bounds no device passes, for the median network: 1e14 multiply-accumulates a second and 0.1 us per operator are
# faster than any, a microcontroller with a floating-point unit is slower than none. Seconds or microseconds in place
# of milliseconds are off by 1000.
LEAST_MS_PER_KMAC, LEAST_MS_PER_OP = 1e-8, 1e-4
MOST_MS_PER_KMAC, MOST_MS_PER_OP = 0.05, 1.0
# Three times wider than 27 public devices from phone to GPU and the machines profiled with this project, one example
# at a time; timings outside are used, with a doubt noted.
USUAL_MS_PER_KMAC, USUAL_MS_PER_OP = (3e-6, 6e-3), 0.1
USUAL_MS_PER_BATCHED_KMAC = 1e-3  # devices that are given a batch are made for it
FREE = ("skip", "zero")  # kinds that start nothing
COARSE = 20  # timings per distinct value past which the clock is called coarse
MOST_JUDGED = 200  # networks whose operators are counted
Work = tuple[Sequence[Op], float]  # a network's operators, its milliseconds


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(object_pairs_hook=...)`, which else keeps the last of several values without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadProfile(f"names {key!r} twice; keep the right one")
        found[key] = value
    return found


def refuse_repeated_keys(text: bytes, what: str) -> None:
    """Refuse JSON that names something twice; what is no JSON at all is left to whoever reads it."""
    try:
        json.loads(text, object_pairs_hook=unique_keys)
    except BadProfile as error:
        raise BadProfile(f"{what} {error}") from None
    except (ValueError, RecursionError):
        return


def value_ms(value: Any, what: str) -> float:
    """A time in milliseconds; -1, NaN and text are refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise BadProfile(f"{what}: {value!r} is not a number; give milliseconds")
    if not (math.isfinite(value) and value > 0):
        raise BadProfile(f"{what}: {float(value):g} ms is no time; leave out what was not timed")
    return float(value)


def check_nets(nets: Sequence[NetTiming], what: str) -> None:
    """Refuse timings that nothing can be learned from: none, no times, contradictory ones, all the same."""
    if not nets:
        raise BadProfile(f"{what} holds no timing of a network; time some with `edgemeta profile --timings 10`")
    for net in nets:
        value_ms(net.timing.median_ms, f"{what}: {net.arch}")
    for arch, same in _grouped(nets).items():
        times = [net.timing.median_ms for net in same]
        if max(times) >= DISAGREE * min(times):
            raise BadProfile(
                f"{what}: two timings of {arch} are {max(times) / min(times):.1f}-fold apart ({min(times):g} and "
                f"{max(times):g} ms); remove the wrong one, or time it again on a quiet machine"
            )
    first = nets[0].timing.median_ms
    if len({net.arch for net in nets}) > 1 and all(net.timing.median_ms == first for net in nets):
        raise BadProfile(
            f"{what}: all {len(nets)} timings are {first:g} ms, which tells nothing apart; use a finer clock, or time "
            "many runs in one go and divide"
        )


def one_each(nets: Sequence[NetTiming]) -> tuple[NetTiming, ...]:
    """Several timings of one network become one: the median, with the largest distance between them as spread."""
    merged = []
    for same in _grouped(nets).values():
        times = [net.timing.median_ms for net in same]
        spread = max(max(net.timing.iqr_ms for net in same), max(times) - min(times))
        merged.append(
            NetTiming(same[0].arch, Timing(median(times), spread, sum(n.timing.n for n in same)), same[0].ops)
        )
    return tuple(merged)


def nets_of(profile: Profile, space: str) -> tuple[NetTiming, ...]:
    """The profile's timings of a space's networks, one each, fit to learn from."""
    found = [net for net in profile.nets if net.arch.space == space]
    if profile.nets and not found:
        seen = ", ".join(sorted({net.arch.space for net in profile.nets}))
        raise BadProfile(
            f"profile {profile.device!r} never saw space {space}, only {seen}; time some of its networks on that "
            "device: `edgemeta profile --timings 10`"
        )
    check_nets(found, f"profile {profile.device!r}")
    return one_each(found)


def check_unit(works: Iterable[Work], what: str, *, batch: int = 1) -> tuple[str, ...]:
    """Refuse times that no device takes for this work; the doubts about those that no known device takes.

    Judged by the median network: some cells of a published space hold next to nothing. `works` are whole networks, or
    all operators of a table as one.
    """
    ms, kmacs, starts = _sizes(works)
    if not len(ms):
        return ()
    least = np.maximum(LEAST_MS_PER_KMAC * kmacs * batch, LEAST_MS_PER_OP * starts)
    most = MOST_MS_PER_KMAC * kmacs * batch + MOST_MS_PER_OP * starts
    said = f"{what}: {np.median(ms):.3g} ms for {np.median(kmacs) / 1e3:.3g} million multiply-accumulates"
    if np.median(ms / least) < 1:
        raise BadProfile(f"{said} is faster than any device; are these seconds? Times are in milliseconds")
    if np.median(ms / most) > 1:
        raise BadProfile(f"{said} is slower than any device; are these microseconds? Times are in milliseconds")
    low, high = USUAL_MS_PER_KMAC
    if batch == 1 and np.median(ms / (low * kmacs)) < 1:
        return (f"{said} is faster than every device known; seconds in place of milliseconds?",)
    high = high if batch == 1 else USUAL_MS_PER_BATCHED_KMAC
    if np.median(ms / (high * kmacs * batch + USUAL_MS_PER_OP * starts)) > 1:
        return (f"{said} is slower than every device known; microseconds in place of milliseconds?",)
    return ()


def clock_doubts(times: Sequence[float]) -> tuple[str, ...]:
    """What the values themselves say of the clock behind them."""
    distinct = len(set(times))
    if len(times) > 1 and all(value == round(value) for value in times):
        return (f"whole milliseconds: {distinct} distinct values in {len(times)}",)
    if distinct * COARSE < len(times):
        return (f"a coarse clock: {distinct} distinct values in {len(times)}",)
    return ()


def _sizes(works: Iterable[Work]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Milliseconds, thousands of multiply-accumulates (one at least), operators that start, of each network."""
    rows = [
        (ms, max(1e-3, sum(op.macs for op in ops) / 1e3), sum(op.kind not in FREE for op in ops))
        for ops, ms in works
        if len(ops)
    ]
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return table[:, 0], table[:, 1], np.maximum(table[:, 2], 1)


def _grouped(nets: Sequence[NetTiming]) -> Mapping[Arch, list[NetTiming]]:
    found: dict[Arch, list[NetTiming]] = {}
    for net in nets:
        found.setdefault(net.arch, []).append(net)
    return found
