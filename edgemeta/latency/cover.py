"""Which networks to time: few, and with every operator of the space in one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from edgemeta.space.space import FIELDS, Space
from edgemeta.types import Arch, Op, Shape

_CANDIDATES = 40  # architectures a greedy step chooses from, of each sort


class Walk(NamedTuple):
    """One stage behind every shape that can enter it; its networks are those of a space cut off after the stage."""

    cut: Space
    before: tuple[tuple[int, ...], ...]  # picks that lead to each entry
    own: tuple[tuple[int, ...], ...]  # picks of the stage itself
    leaving: tuple[Shape, ...]  # behind the stage, of each entry and own picks, in that order

    @property
    def heads(self) -> list[tuple[int, ...]]:
        return [before + own for before in self.before for own in self.own]


def walks(space: Space) -> Iterator[Walk]:
    """Every stage with all it can build.

    Exact, not sampled: what a stage builds depends on its picks and on the shape it receives, nothing else. The shapes
    come from the same walk as everything.
    """
    entries: dict[Shape, tuple[int, ...]] = {space.in_shape: ()}
    for i, stage in enumerate(space.stages):
        cut = replace(space, stages=space.stages[: i + 1])
        own = tuple(itertools.product(*(range(len(getattr(stage, field))) for field in FIELDS)))
        heads = [before + picks for before in entries.values() for picks in own]
        leaving = tuple(_leaving(cut.ops(Arch(cut.name, head))) for head in heads)
        yield Walk(cut, tuple(entries.values()), own, leaving)
        entries = {}
        for head, shape in zip(heads, leaving, strict=True):
            entries.setdefault(shape, head)


def _leaving(ops: Sequence[Op]) -> Shape:
    """Shape behind the last stage, before the closing average pool."""
    return ops[-1].in_shape if ops[-1].kind == "gap" else ops[-1].out_shape


def design(space: Space) -> list[Arch]:
    """Architectures that hold every operator of the space: each stage's own picks behind each shape that can enter."""
    slots = len(FIELDS) * len(space.stages)
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
