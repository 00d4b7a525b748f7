"""Latencies of millions of architectures: their segments are looked up, not walked.

What a segment builds depends on its own picks and on the shape it receives, nothing else, so each such pair is walked
once. The rest is indexing and sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgemeta.contracts import Additive
from edgemeta.errors import BadConfig
from edgemeta.space.space import Space
from edgemeta.types import Arch, Op

from . import cover

CHUNK = 8192  # architectures at a time: their rows stay in the caches


@dataclass(frozen=True)
class Batch:
    """A predictor laid out for one space: `latency_ms` answers for a table of picks."""

    radix: tuple[np.ndarray, ...]  # of each segment, (fields,) what its picks are worth as one number
    own: tuple[int, ...]  # of each segment, how many such numbers there are
    follow: tuple[np.ndarray, ...]  # of each segment, row -> entry of the next
    sums: tuple[np.ndarray, ...]  # of each segment, (rows, terms)
    finish: Callable[[np.ndarray], np.ndarray]

    def latency_ms(self, picks: np.ndarray) -> np.ndarray:
        """(n, slots) integers -> (n,) milliseconds."""
        out = np.empty(len(picks))
        for begin in range(0, len(picks), CHUNK):
            some = slice(begin, begin + CHUNK)
            out[some] = self.finish(self._terms(picks[some].T))
        return out

    def _terms(self, picks: np.ndarray) -> np.ndarray:
        """(slots, n) -> (n, terms)"""
        entry: np.ndarray = np.zeros(picks.shape[1], np.int32)
        total: np.ndarray | float = 0.0
        begin = 0
        for i, radix in enumerate(self.radix):
            row = entry * self.own[i]
            for digit, worth in zip(picks[begin : begin + len(radix)], radix, strict=True):
                row = row + digit * worth
            begin += len(radix)
            total = total + self.sums[i].take(row, axis=0)
            entry = self.follow[i].take(row)
        return np.asarray(total)


def layout(space: Space, additive: Additive) -> Batch:
    """Walk every segment behind every shape that can enter it, once."""
    if not cover.exact(space):
        raise BadConfig(f"{space.name} has cells of too many kinds to be laid out; predict its networks one by one")
    radix, own, follow, sums = [], [], [], []
    shorter = None
    for walk in cover.walks(space):
        last = len(walk.cut.segments) == len(space.segments)
        rows = additive.sums([_ops(walk.cut, head, closed=last) for head in walk.heads])
        if shorter is not None:
            before = additive.sums([_ops(shorter, head, closed=False) for head in walk.before])
            rows = rows - np.repeat(before, len(walk.own), axis=0)
        order = {shape: number for number, shape in enumerate(dict.fromkeys(walk.leaving))}
        sizes = np.array(walk.own[-1]) + 1
        radix.append(np.append(np.cumprod(sizes[:0:-1])[::-1], 1)[: len(sizes)].astype(np.int32))
        own.append(len(walk.own))
        follow.append(np.array([order[shape] for shape in walk.leaving], np.int32))
        sums.append(np.ascontiguousarray(rows, dtype=np.float32))
        shorter = walk.cut
    return Batch(tuple(radix), tuple(own), tuple(follow), tuple(sums), additive.latency_ms)


def _ops(space: Space, head: tuple[int, ...], *, closed: bool) -> tuple[Op, ...]:
    """The operators so far; the closing average pool belongs to the last segment alone."""
    ops = space.ops(Arch(space.name, head))
    return ops if closed or ops[-1].kind != "gap" else ops[:-1]
