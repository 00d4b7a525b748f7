"""Where in one piece of memory each tensor of a graph lies: tensors that are never alive together may share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ALIGN_BYTES = 8  # of the widest number in a graph
TRIES = 60  # orders more, where none of the first reaches the lower bound


class Span(NamedTuple):
    """A tensor: its size in bytes, and the first and the last step of its life."""

    size: int
    first: int
    last: int

    def meets(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last


class Plan(NamedTuple):
    offsets: tuple[int, ...]  # bytes, one for each span
    size: int  # bytes in all


def plan(spans: Sequence[Span]) -> Plan:
    """Offsets such that no two spans that meet overlap: first fit, in the best of some orders.

    The problem is NP-hard. First fit from the largest tensor down (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by
    size") mostly reaches the lower bound `floor`; where it does not, one of the other orders often does, or one in
    which whatever stuck out at the top comes first.

    >>> plan([Span(16, first=0, last=1), Span(8, first=1, last=2), Span(16, first=2, last=3)])
    Plan(offsets=(0, 16, 0), size=24)
    """
    rounded, least = [span._replace(size=aligned(span.size)) for span in spans], floor(spans)
    ranks = (
        [(-span.size, span.first) for span in rounded],
        [(span.first, -span.size) for span in rounded],
        [(-span.last, -span.size) for span in rounded],
        [(-span.size * (span.last - span.first + 1), span.first) for span in rounded],
    )
    orders = [sorted(range(len(rounded)), key=rank.__getitem__) for rank in ranks]
    best = min((first_fit(rounded, order) for order in orders), key=lambda found: found.size)
    for order in orders:
        for _ in range(TRIES // len(orders) if best.size > least else 0):
            found = first_fit(rounded, order)
            best = min(best, found, key=lambda one: one.size)
            top = max(range(len(rounded)), key=lambda i: found.offsets[i] + rounded[i].size)
            order = [top, *(i for i in order if i != top)]
    return best


def first_fit(spans: Sequence[Span], order: Sequence[int]) -> Plan:
    """Each span, in this order, at the lowest offset where it meets none that is placed already."""
    offsets = [0] * len(spans)
    placed: list[int] = []
    for i in order:
        taken = sorted((offsets[j], offsets[j] + spans[j].size) for j in placed if spans[i].meets(spans[j]))
        at = 0
        for begin, end in taken:
            if begin - at >= spans[i].size:
                break
            at = max(at, end)
        offsets[i] = at
        placed.append(i)
    return Plan(tuple(offsets), max((at + span.size for at, span in zip(offsets, spans, strict=True)), default=0))


def floor(spans: Sequence[Span]) -> int:
    """The most bytes that are alive at one step: no plan takes fewer."""
    steps = {span.first for span in spans}
    return max((sum(aligned(s.size) for s in spans if s.first <= step <= s.last) for step in steps), default=0)


def aligned(size: int) -> int:
    return -(-size // ALIGN_BYTES) * ALIGN_BYTES
