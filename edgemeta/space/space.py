"""A space of staged convolutional nets, and the only walk over one of its architectures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from edgemeta.errors import BadConfig, nearest
from edgemeta.space.ops import LAYERS, Tape
from edgemeta.types import Arch, Op, Shape

FIELDS = ("depth", "width", "kernel", "kind", "down")


@dataclass(frozen=True)
class Stage:
    """The options of one stage: `down` halves the resolution by a pool after it or a stride in its first layer."""

    depth: tuple[int, ...] = (1, 2)
    width: tuple[int, ...] = (16, 32, 64)
    kernel: tuple[int, ...] = (3, 5)
    kind: tuple[str, ...] = ("conv", "sep", "mb3", "mb6")
    down: tuple[str, ...] = ("pool", "stride")


@dataclass(frozen=True)
class Space:
    """Stages in a row, then a global average pool where the last map is larger than 1x1.

    The first layer of the first stage is always a plain convolution: a depthwise filter that sees one channel
    is a bottleneck of that one channel.
    """

    kind: str
    in_shape: Shape
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """Kind and input shape: timings and trials of another resolution must never be mixed in."""
        return f"{self.kind}-{'x'.join(map(str, self.in_shape))}"

    @property
    def slots(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """(name, options) of every decision, in the order of `Arch.picks`."""
        return tuple(
            (f"stage{i + 1}.{field}", getattr(stage, field)) for i, stage in enumerate(self.stages) for field in FIELDS
        )

    @property
    def size(self) -> int:
        return math.prod(len(options) for _, options in self.slots)

    def options(self, slot: int) -> range:
        return range(len(self.slots[slot][1]))

    def sample(self, *, rng: Random) -> Arch:
        return Arch(self.name, tuple(rng.randrange(len(options)) for _, options in self.slots))

    def arch(self, stages: Sequence[Mapping[str, Any]]) -> Arch:
        """The architecture with the named settings; what a stage leaves out is its first option."""
        picks = []
        if len(stages) != len(self.stages):
            raise BadConfig(f"{len(stages)} stages given, {self.name} has {len(self.stages)}; give settings for each")
        for i, stage in enumerate(self.stages):
            for field in stages[i]:
                if field not in FIELDS:
                    raise BadConfig(f"stage{i + 1} has no setting {field!r}; {nearest(field, FIELDS)}")
            for field in FIELDS:
                options = getattr(stage, field)
                value = stages[i].get(field, options[0])
                if value not in options:
                    raise BadConfig(f"stage{i + 1}.{field} = {value!r} is not in {self.name}; choose one of {options}")
                picks.append(options.index(value))
        return Arch(self.name, tuple(picks))

    def settings(self, arch: Arch) -> list[dict[str, Any]]:
        """What `arch` picked, stage by stage: the inverse of `Space.arch`."""
        self._check(arch)
        values = iter(options[pick] for (_, options), pick in zip(self.slots, arch.picks, strict=True))
        return [{field: next(values) for field in FIELDS} for _ in self.stages]

    def ops(self, arch: Arch) -> tuple[Op, ...]:
        """Every operator of `arch` in order of execution."""
        return _ops(self, arch)

    def _check(self, arch: Arch) -> None:
        slots = self.slots
        if arch.space != self.name or len(arch.picks) != len(slots):
            raise BadConfig(
                f"{arch} is not of space {self.name}; it has {len(arch.picks)} picks, expected {len(slots)}"
            )
        for (name, options), pick in zip(slots, arch.picks, strict=True):
            if not 0 <= pick < len(options):
                raise BadConfig(f"{arch}: {name} = {pick} is past its {len(options)} options")


@lru_cache(maxsize=4096)
def _ops(space: Space, arch: Arch) -> tuple[Op, ...]:
    tape = Tape(space.in_shape)
    for index, stage in enumerate(space.settings(arch)):
        for layer in range(stage["depth"]):
            kind = "conv" if index == layer == 0 else stage["kind"]
            stride = 2 if layer == 0 and stage["down"] == "stride" else 1
            LAYERS[kind](tape, stage["width"], stage["kernel"], stride)
        if stage["down"] == "pool" and min(tape.shape(tape.last)[1:]) > 1:
            tape.maxpool()
    if tape.shape(tape.last)[1:] != (1, 1):
        tape.gap()
    return tape.ops
