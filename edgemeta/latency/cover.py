"""Which networks to time: few, and with every operator of the space in one of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from edgemeta.space.space import Space
from edgemeta.types import Arch, Op, Shape

MOST_OWN = 1024  # choices of a segment that are enumerated
_CANDIDATES = 40  # architectures a greedy step chooses from, of each sort


class Walk(NamedTuple):
    """One segment behind every shape that can enter it; its networks are those of a space cut off after it."""

    cut: Space
    before: tuple[tuple[int, ...], ...]  # picks that lead to each entry
    own: tuple[tuple[int, ...], ...]  # picks of the segment itself
    leaving: tuple[Shape, ...]  # behind the segment, of each entry and own picks, in that order

    @property
    def heads(self) -> list[tuple[int, ...]]:
        return [before + own for before in self.before for own in self.own]


def walks(space: Space) -> Iterator[Walk]:
    """Every segment with all it can build.

    What a segment builds depends on its picks and on the shape it receives, nothing else. The shapes come from the same
    walk as everything. Exact where a segment has no more than `MOST_OWN` choices; cells that are all alike have more,
    of few operators, and are sampled.
    """
    entries: dict[Shape, tuple[int, ...]] = {space.in_shape: ()}
    for i, segment in enumerate(space.segments):
        cut = space.cut(i + 1)
        own = _own([range(len(options)) for _, options in segment.slots])
        heads = [before + picks for before in entries.values() for picks in own]
        leaving = tuple(_leaving(cut.ops(Arch(cut.name, head))) for head in heads)
        yield Walk(cut, tuple(entries.values()), own, leaving)
        entries = {}
        for head, shape in zip(heads, leaving, strict=True):
            entries.setdefault(shape, head)


def exact(space: Space) -> bool:
    """Whether `walks` holds all that each segment can build."""
    return all(math.prod(len(options) for _, options in segment.slots) <= MOST_OWN for segment in space.segments)


def _own(options: Sequence[range]) -> tuple[tuple[int, ...], ...]:
    if math.prod(map(len, options)) <= MOST_OWN:
        return tuple(itertools.product(*options))
    rng = Random(0)
    return tuple(tuple(map(rng.choice, options)) for _ in range(MOST_OWN // 2))


def _leaving(ops: Sequence[Op]) -> Shape:
    """Shape behind the last segment, before the closing average pool."""
    return ops[-1].in_shape if ops[-1].kind == "gap" else ops[-1].out_shape


def design(space: Space) -> list[Arch]:
    """Architectures that hold every operator of the space: each segment's picks behind each shape that can enter."""
    slots = len(space.slots)
    return [Arch(space.name, head + (0,) * (slots - len(head))) for walk in walks(space) for head in walk.heads]


def operators(space: Space) -> dict[str, Op]:
    """Every distinct operator of the space by its key, in a fixed order."""
    found = {op.key: op for arch in design(space) for op in space.ops(arch)}
    return dict(sorted(found.items()))


def covering(space: Space, *, rng: Random) -> list[Arch]:
    """A greedy choice of architectures in which every operator occurs, the richest in unseen operators first."""
    exact = design(space)
    missing = {op.key for arch in exact for op in space.ops(arch)}
    chosen: list[Arch] = []
    while missing:
        needed = [arch for arch in rng.sample(exact, min(len(exact), _CANDIDATES)) if _gain(space, arch, missing)]
        if not needed:
            needed = [arch for arch in exact if _gain(space, arch, missing)][:_CANDIDATES]
        drawn = [space.sample(rng=rng) for _ in range(_CANDIDATES)]
        best = max(needed + drawn, key=lambda arch: _gain(space, arch, missing))
        missing -= {op.key for op in space.ops(best)}
        chosen.append(best)
    return chosen


def _gain(space: Space, arch: Arch, missing: set[str]) -> int:
    return len({op.key for op in space.ops(arch)} & missing)
