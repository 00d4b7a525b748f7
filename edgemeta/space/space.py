"""A search space as slots to be picked from, and the only walk over one of its architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from random import Random
from typing import Any

from edgemeta.errors import BadConfig, nearest
from edgemeta.space.ops import Tape
from edgemeta.types import Arch, Op, Shape

Slots = tuple[tuple[str, tuple[Any, ...]], ...]  # (name, options) of each decision


@dataclass(frozen=True)
class Segment:
    """Slots that are laid together: what they build depends on their own options and on the shape that enters.

    A network of layers that are chosen one by one has a segment for each; one whose cells are all alike has one. What
    every network has is a segment without slots.
    """

    slots: Slots
    lay: Callable[[Tape, Sequence[Any]], None] = field(compare=False)  # onto the tape, by one option of each slot

    def settings(self, options: Sequence[Any]) -> dict[str, Any]:
        """By the last part of each slot's name, where that tells: `stage1.width` is the `width` of its segment."""
        names = [name for name, _ in self.slots]
        last = [name.rpartition(".")[2] for name in names]
        return dict(zip(last if len(set(last)) == len(last) else names, options, strict=True))


@dataclass(frozen=True)
class Space:
    """Segments in a row, then a global average pool where the last map is larger than 1x1."""

    name: str  # kind and input shape: timings and trials of another resolution must never be mixed in
    in_shape: Shape  # the largest, where a slot decides it
    segments: tuple[Segment, ...]

    @cached_property
    def slots(self) -> Slots:
        """(name, options) of every decision, in the order of `Arch.picks`."""
        return tuple(slot for segment in self.segments for slot in segment.slots)

    @property
    def size(self) -> int:
        return math.prod(len(options) for _, options in self.slots)

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.slots))

    def options(self, slot: int) -> range:
        return range(len(self.slots[slot][1]))

    def sample(self, *, rng: Random) -> Arch:
        return Arch(self.name, tuple(rng.randrange(len(options)) for _, options in self.slots))

    def arch(self, segments: Sequence[Mapping[str, Any]]) -> Arch:
        """The architecture with the settings of each segment that has slots; what is left out is the first option.

        >>> from edgemeta.space.presets import tiny
        >>> str(tiny().arch([{"width": 8, "kind": "sep"}, {"depth": 2}]))
        'tiny-1x12x12:0.1.0.1.0.1.0.0.0.0'
        """
        own, picks = [segment for segment in self.segments if segment.slots], []
        if len(segments) != len(own):
            raise BadConfig(
                f"settings for {len(segments)} segments, {self.name} has {len(own)}; give settings for each"
            )
        for segment, given in zip(own, segments, strict=True):
            first = segment.settings([options[0] for _, options in segment.slots])
            for name in given:
                if name not in first:
                    where = segment.slots[0][0].rpartition(".")[0] or self.name
                    raise BadConfig(f"{where} has no setting {name!r}; {nearest(name, first)}")
            for (slot, options), value in zip(segment.slots, (first | dict(given)).values(), strict=True):
                if value not in options:
                    raise BadConfig(f"{slot} = {value!r} is not in {self.name}; choose one of {options}")
                picks.append(options.index(value))
        return Arch(self.name, tuple(picks))

    def settings(self, arch: Arch) -> list[dict[str, Any]]:
        """What `arch` picked, segment by segment: the inverse of `Space.arch`.

        >>> from edgemeta.space.presets import tiny
        >>> tiny().settings(Arch("tiny-1x12x12", (0, 1, 0, 1, 0, 1, 0, 0, 0, 0)))[0]
        {'depth': 1, 'width': 8, 'kernel': 3, 'kind': 'sep', 'down': 'pool'}
        """
        return [segment.settings(options) for segment, options in self._chosen(arch) if options]

    def ops(self, arch: Arch) -> tuple[Op, ...]:
        """Every operator of `arch` in order of execution."""
        return _ops(self, arch)

    def cut(self, segments: int) -> Space:
        """The space that ends after so many segments."""
        return Space(self.name, self.in_shape, self.segments[:segments])

    def _chosen(self, arch: Arch) -> list[tuple[Segment, list[Any]]]:
        """Each segment with its options."""
        slots = self.slots
        if arch.space != self.name or len(arch.picks) != len(slots):
            has = f"{arch} is not of space {self.name}; it has {len(arch.picks)} picks"
            raise BadConfig(f"{has}, expected {len(slots)}")
        for (name, options), pick in zip(slots, arch.picks, strict=True):
            if not 0 <= pick < len(options):
                raise BadConfig(f"{arch}: {name} = {pick} is past its {len(options)} options")
        values = iter(options[pick] for (_, options), pick in zip(slots, arch.picks, strict=True))
        return [(segment, [next(values) for _ in segment.slots]) for segment in self.segments]


@lru_cache(maxsize=4096)
def _ops(space: Space, arch: Arch) -> tuple[Op, ...]:
    tape = Tape(space.in_shape)
    for segment, options in space._chosen(arch):
        segment.lay(tape, options)
    if tape.shape(tape.last)[1:] != (1, 1):
        tape.gap()
    return tape.ops
