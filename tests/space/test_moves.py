"""Moves stay inside the space and change one thing."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edgemeta.space.moves import mutate, neighbours
from edgemeta.space.presets import tiny
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Arch

seeds = st.integers(0, 2**32)


def changed(one: Arch, other: Arch) -> int:
    return sum(a != b for a, b in zip(one.picks, other.picks, strict=True))


@given(seeds)
def test_mutate_changes_exactly_one_slot(seed):
    space, rng = tiny(), Random(seed)
    arch = space.sample(rng=rng)
    child = mutate(arch, space, rng=rng)
    assert changed(arch, child) == 1
    assert space.ops(child)


@given(seeds)
def test_neighbours_are_all_one_step_away(seed):
    space = tiny()
    arch = space.sample(rng=Random(seed))
    around = neighbours(arch, space)
    assert len(set(around)) == len(around) == sum(len(options) - 1 for _, options in space.slots)
    assert {changed(arch, other) for other in around} == {1}


def test_mutate_reaches_every_neighbour(rng):
    space = tiny()
    arch = space.sample(rng=rng)
    assert {mutate(arch, space, rng=rng) for _ in range(1000)} == set(neighbours(arch, space))


def test_mutate_leaves_slots_without_a_choice_alone(rng):
    stage = Stage(depth=(1,), width=(4,), kernel=(3, 5), kind=("conv",), down=("pool",))
    space = staged("narrow", (1, 8, 8), (stage,))
    arch = space.sample(rng=rng)
    assert mutate(arch, space, rng=rng) == neighbours(arch, space)[0]
