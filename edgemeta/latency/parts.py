"""Architectures as counts of their parts: stretches between operators through which everything must pass.

A chain is cut behind each of its operators. Where values run beside one another, as in the cell of NAS-Bench-201 or a
residual block, the stretch is one part: what runs at once, and what is never needed, shows inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from edgemeta.types import Op

ENTRY = -1


class Part(NamedTuple):
    """Positions of its operators among the distinct ones, and their inputs within the part; -1 is its entry."""

    ops: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]


class Parts(NamedTuple):
    """What a batch of architectures is made of."""

    ops: tuple[Op, ...]  # distinct but for their inputs
    parts: tuple[Part, ...]  # distinct
    counts: csr_matrix  # (architectures, parts) how often each holds each

    def wirings(self) -> dict[tuple[tuple[int, ...], ...], list[int]]:
        """Positions of the parts that are wired alike, by their inputs."""
        found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for row, part in enumerate(self.parts):
            found.setdefault(part.inputs, []).append(row)
        return found


def count(architectures: Sequence[Sequence[Op]]) -> Parts:
    """The parts of each architecture, given as its operators in order of execution."""
    keys: dict[str, int] = {}
    found: dict[Part, int] = {}
    distinct: list[Op] = []
    rows: list[int] = []
    columns: list[int] = []
    for row, ops in enumerate(architectures):
        numbers = []
        for op in ops:
            number = keys.setdefault(op.key, len(keys))
            if number == len(distinct):
                distinct.append(op)
            numbers.append(number)
        begin = 0
        for end in _cuts(ops):
            inputs = tuple(tuple(max(ENTRY, j - begin) for j in op.inputs) for op in ops[begin:end])
            columns.append(found.setdefault(Part(tuple(numbers[begin:end]), inputs), len(found)))
            begin = end
        rows += [row] * (len(columns) - len(rows))
    ones = np.ones(len(rows), np.float32)
    counts = csr_matrix((ones, (rows, columns)), shape=(len(architectures), len(found)))  # sums what occurs twice
    return Parts(tuple(distinct), tuple(found), counts)


def _cuts(ops: Sequence[Op]) -> list[int]:
    """Positions behind which no later operator reads anything but the last result."""
    needed = len(ops)
    ends = []
    for i in range(len(ops) - 1, -1, -1):
        if needed >= i:
            ends.append(i + 1)
        needed = min(needed, *ops[i].inputs)
    return ends[::-1]
