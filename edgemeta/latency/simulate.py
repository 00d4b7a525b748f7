"""Pretend devices: random rooflines that time any network, so that few timings of a real device say much.

Each draws how its time divides into launches, arithmetic, memory and weights, how well it runs each kind of operator,
what it fuses, prunes and runs at once. Together they are the prior of `fewshot`: real devices look like some of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgemeta.types import FLOAT_BYTES, Op

from .parts import ENTRY, Part, Parts

KINDS = ("pointwise", "grouped", "depthwise", "dense", "pool", "shuffle", "skip", "zero", "add", "act")
_KIND = {kind: i for i, kind in enumerate(KINDS)}
_ALIKE = {"maxpool": "pool", "avgpool": "pool", "gap": "pool", "scale": "add", "concat": "shuffle"}
_FREE = ("skip", "zero")
PRUNING = ("live", "reached", "all")
_CHUNK = 256  # devices timed at once: bounds the memory


class Devices(NamedTuple):
    """`n` devices; each field has its devices on the last axis."""

    launch: np.ndarray  # (kinds, n) relative cost of starting an operator
    effort: np.ndarray  # (kinds, n) relative cost of a multiply-accumulate
    traffic: np.ndarray  # (kinds, n) relative cost of an element read or written
    per_size: np.ndarray  # (n,) exponent of the map size in the cost of arithmetic
    per_width: np.ndarray  # (n,) exponent of the channels in
    per_filter: np.ndarray  # (n,) exponent of the channels out
    wide: np.ndarray  # (n,) factor on depthwise filters of 5x5
    share: np.ndarray  # (4, n) launches, arithmetic, memory, weights of a typical network
    roof: np.ndarray  # (n,) p of the norm that joins arithmetic and memory: 1 adds, large takes the greater
    queue: np.ndarray  # (n,) the same for launches and work; 1 adds
    pruning: np.ndarray  # (n,) which of PRUNING it runs
    parallel: np.ndarray  # (n,) share of the time that follows the longest path, counted twice, and not the sum
    constant: np.ndarray  # (n,) of a run, in typical networks


def draw(count: int, *, rng: np.random.Generator) -> Devices:
    """Random devices; the ranges span what public tables of real ones show, and beyond."""

    def maybe(chance: float, values: np.ndarray, other: float) -> np.ndarray:
        return np.where(rng.random(count) < chance, values, other)

    fused = rng.random(count) < 0.5
    launch = np.exp(rng.normal(0, 0.4, (len(KINDS), count)))
    launch[_KIND["pool"]] = np.exp(rng.normal(-0.5, 0.4, count))
    for kind in _FREE:
        launch[_KIND[kind]] = rng.choice([0.0, 0.3, 1.0], count) * rng.random(count)
    effort = np.ones((len(KINDS), count))
    effort[_KIND["grouped"]] = np.exp(rng.uniform(math.log(0.7), math.log(5), count))
    effort[_KIND["depthwise"]] = np.exp(rng.uniform(math.log(0.5), math.log(33), count))
    effort[_KIND["dense"]] = np.exp(rng.uniform(math.log(0.3), 0, count))
    effort[_KIND["pool"]] = np.exp(rng.uniform(-1, 3, count))
    traffic = np.ones((len(KINDS), count))
    traffic[_KIND["shuffle"]] = np.exp(rng.uniform(-1, 2, count))
    for kind in _FREE:
        traffic[_KIND[kind]] = rng.choice([0.0, 1.0], count) * rng.random(count)
    for kind in ("add", "act"):
        launch[_KIND[kind]] *= ~fused
        traffic[_KIND[kind]] *= ~fused
    free_zero = rng.random(count) < 0.5
    launch[_KIND["zero"]] *= ~free_zero
    traffic[_KIND["zero"]] *= ~free_zero
    share = rng.gamma(0.7, size=(4, count)) + 1e-3
    return Devices(
        launch,
        effort,
        traffic,
        per_size=rng.normal(0, 0.2, count),
        per_width=rng.normal(0, 0.2, count),
        per_filter=rng.normal(0, 0.2, count),
        wide=maybe(0.3, rng.uniform(0.5, 1.3, count), 1.0),
        share=share / share.sum(0) * np.array([1, 1, 1, 0.5])[:, None],
        roof=rng.choice([1.0, 2.0, 6.0], count),
        queue=maybe(0.4, rng.choice([2.0, 6.0], count), 1.0),
        pruning=rng.choice(len(PRUNING), count, p=[0.5, 0.15, 0.35]),
        parallel=rng.choice([0.0, 0.0, 0.3, 0.7], count),
        constant=0.2 * rng.gamma(0.7, size=count),
    )


def kind(op: Op) -> str:
    """The kind of kernel that runs an operator."""
    if op.kind != "conv":
        return _ALIKE.get(op.kind, op.kind)
    if op.groups == 1:
        return "pointwise" if op.kernel == 1 else "dense"
    return "depthwise" if op.groups == op.in_shape[0] else "grouped"


def _work(op: Op) -> tuple[float, float, float, float]:
    """Multiply-accumulates, elements moved, weights, and elements an activation behind it moves if it is not fused."""
    into, out = math.prod(op.in_shape), math.prod(op.out_shape)
    taps = math.prod(op.window) * out if kind(op) == "pool" else 0
    act = 2 * out if op.kind == "conv" and op.act != "none" else 0
    moved = 3 * out if op.kind == "add" else into + out
    return op.macs + taps, moved, op.weight_bytes / FLOAT_BYTES, act


def components(ops: Sequence[Op], devices: Devices) -> np.ndarray:
    """(4, ops, devices) relative cost of launches, arithmetic, memory and weights."""
    kinds = np.array([_KIND[kind(op)] for op in ops])
    macs, moved, weights, act = (np.array(column)[:, None] for column in zip(*map(_work, ops), strict=True))
    size = np.array([max(1, op.in_shape[1]) for op in ops])[:, None] / 16
    width = np.array([op.in_shape[0] for op in ops])[:, None] / 64
    filters = np.array([op.out_shape[0] for op in ops])[:, None] / 64
    wide = np.array([kind(op) == "depthwise" and op.kernel > 3 for op in ops])[:, None]
    after = _KIND["act"]
    launch = devices.launch[kinds] + devices.launch[after] * (act > 0)
    effort = macs * devices.effort[kinds] * size**devices.per_size * width**devices.per_width
    effort = effort * filters**devices.per_filter * np.where(wide, devices.wide, 1.0)
    memory = moved * devices.traffic[kinds] + act * devices.traffic[after]
    return np.stack([launch, effort, memory, np.broadcast_to(weights, launch.shape)])


def physical(parts: Parts) -> np.ndarray:
    """(architectures, sums) multiply-accumulates, elements moved and starts of each kind of operator, and weights."""
    table = np.zeros((len(parts.ops), 3 * len(KINDS) + 1))
    for row, op in zip(table, parts.ops, strict=True):
        macs, moved, weights, act = _work(op)
        at = 3 * _KIND[kind(op)]
        row[at : at + 3] = macs, moved, 1
        row[3 * _KIND["act"] + 1 : 3 * _KIND["act"] + 3] = act, act > 0
        row[-1] = weights
    held = np.array([table[list(part.ops)].sum(0) for part in parts.parts])
    return parts.counts @ held[:, held.std(0) > 0]


def scales(typical: Parts, devices: Devices) -> np.ndarray:
    """(4, devices) by which components are weighed so that a typical network spends the device's shares on them."""
    held = np.zeros(len(typical.ops))
    weight = np.asarray(typical.counts.sum(0)).ravel()
    for part, times in zip(typical.parts, weight, strict=True):
        np.add.at(held, list(part.ops), times)
    totals = np.einsum("o,cod->cd", held / typical.counts.shape[0], components(typical.ops, devices))
    return devices.share / np.maximum(totals, 1e-12)


def op_times(ops: Sequence[Op], devices: Devices, scale: np.ndarray) -> np.ndarray:
    """(ops, devices) time of each operator, a typical network taking about 1."""
    launch, effort, memory, weights = components(ops, devices) * scale[:, None]
    work = (effort**devices.roof + memory**devices.roof) ** (1 / devices.roof) + weights
    return (launch**devices.queue + work**devices.queue) ** (1 / devices.queue)


def part_times(parts: Parts, devices: Devices, scale: np.ndarray) -> np.ndarray:
    """(parts, devices) time of each part, by what the device prunes and runs at once."""
    times = op_times(parts.ops, devices, scale).astype(np.float32)
    out = np.empty((len(parts.parts), len(devices.roof)), np.float32)
    for inputs, rows in parts.wirings().items():
        members = [parts.parts[row] for row in rows]
        out[rows] = _alike(parts.ops, members, inputs, times, devices)
    return out


def _alike(
    ops: Sequence[Op], members: Sequence[Part], inputs: tuple[tuple[int, ...], ...], times: np.ndarray, devices: Devices
) -> np.ndarray:
    """(members, devices) of parts with the same wiring."""
    which = np.array([part.ops for part in members])  # (members, places)
    branches = len(inputs) > 1 and any(sum(j in read for read in inputs) > 1 for j in range(ENTRY, len(inputs)))
    if not branches or not _forks(inputs):
        return times[which].sum(1)
    run = runs(ops, members, inputs)
    out = np.empty((len(members), times.shape[1]), np.float32)
    for begin in range(0, times.shape[1], _CHUNK):
        some = slice(begin, begin + _CHUNK)
        pruning, parallel = devices.pruning[some], devices.parallel[some].astype(np.float32)
        total = np.zeros((len(members), len(pruning)), np.float32)
        reached = [total]  # by the end of each place along its longest path; the entry's is 0
        for place, read in enumerate(inputs):
            spent = times[which[:, place], some] * run[:, :, place][pruning].T
            total = total + spent
            latest = reached[read[0] + 1]
            for j in read[1:]:
                latest = np.maximum(latest, reached[j + 1])
            reached.append(latest + spent)
        out[:, some] = total * (1 - parallel) + 2 * parallel * reached[-1]
    return out


def _forks(inputs: tuple[tuple[int, ...], ...]) -> bool:
    """True where operators lie on branches that run beside one another; a bare residual has none on its shortcut."""
    joins = [read for read in inputs if len(read) > 1]
    return any(min(read) != ENTRY for read in joins)


def runs(ops: Sequence[Op], members: Sequence[Part], inputs: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """(PRUNING, members, places) 1 where a place is run: all; those that values reach; those whose values are used."""
    passes = np.array([[ops[number].kind != "zero" for number in part.ops] for part in members])
    places = len(inputs)
    reached = np.zeros_like(passes)
    for place, read in enumerate(inputs):
        comes = np.any([np.ones(len(members), bool) if j == ENTRY else reached[:, j] for j in read], axis=0)
        reached[:, place] = passes[:, place] & comes
    live = np.zeros_like(passes)
    live[:, -1] = reached[:, -1]
    for place in range(places - 1, -1, -1):
        for j in inputs[place]:
            if j != ENTRY:
                live[:, j] |= live[:, place] & reached[:, j]
    return np.stack([live, reached, np.ones_like(passes)]).astype(np.float32)


def log_times(parts: Parts, devices: Devices, scale: np.ndarray) -> np.ndarray:
    """(architectures, devices) natural logarithm of the whole network's time."""
    times = parts.counts @ part_times(parts, devices, scale)
    return np.log(np.maximum(times + devices.constant, 1e-9))
