from __future__ import annotations

from random import Random

import pytest

from edgemeta.latency import cover
from edgemeta.space.presets import SPACES, edge
from edgemeta.space.presets import tiny as tiny_space
from edgemeta.types import Arch


def _keys(space, archs) -> set[str]:
    return {op.key for arch in archs for op in space.ops(arch)}


def test_operators_are_exact(tiny):
    """Nothing that a random architecture holds is missing; nothing is there that no architecture holds."""
    rng = Random(1)
    drawn = _keys(tiny, (tiny.sample(rng=rng) for _ in range(4000)))
    assert drawn == set(cover.operators(tiny))


@pytest.mark.parametrize("name", SPACES)
def test_operators_hold_all_that_is_drawn(name):
    space, rng = SPACES[name](), Random(2)
    known = cover.operators(space)
    assert _keys(space, (space.sample(rng=rng) for _ in range(500))) <= set(known)
    assert all(key == op.key for key, op in known.items())


def test_covering_holds_every_operator_in_few_networks(tiny, rng):
    chosen = cover.covering(tiny, rng=rng)
    assert _keys(tiny, chosen) == set(cover.operators(tiny))
    assert len(chosen) < len(cover.operators(tiny)) / 2
    assert chosen == cover.covering(tiny, rng=Random(0))


def _entries(space, arch) -> list[tuple[int, int, int]]:
    """The shape that enters each stage of an architecture, from its stages alone."""
    found = [space.in_shape]
    slots = len(space.segments[0].slots)
    for i in range(1, len(space.segments)):
        cut = space.cut(i)
        ops = cut.ops(Arch(cut.name, arch.picks[: i * slots]))
        found.append(ops[-1].in_shape if ops[-1].kind == "gap" else ops[-1].out_shape)
    return found


@pytest.mark.parametrize("space", [tiny_space(), tiny_space((1, 7, 5)), tiny_space((3, 1, 1)), edge()], ids=str)
def test_walks_know_every_entry(space):
    """Nothing that enters a stage is unforeseen, and each shape enters once."""
    walks, rng = list(cover.walks(space)), Random(5)
    assert len(walks) == len(space.segments)
    entries = [{space.in_shape}, *(set(walk.leaving) for walk in walks)]
    for _ in range(200):
        for known, shape in zip(entries, _entries(space, space.sample(rng=rng)), strict=False):
            assert shape in known
    for known, walk in zip(entries, walks, strict=False):
        assert len(walk.before) == len(known)


def test_walks_of_tiny_by_hand(tiny):
    first, second = cover.walks(tiny)
    own = 2 * 2 * 2 * 4 * 2
    assert first.before == ((),) and len(first.own) == own == len(first.leaving)
    # widths 4 and 8, a quarter of the pixels either way
    assert set(first.leaving) == {(4, 6, 6), (8, 6, 6)} and set(second.leaving) == {(4, 3, 3), (8, 3, 3)}
    assert len(second.before) == 2 and len(second.leaving) == len(second.heads) == 2 * own
    assert len(first.cut.segments) == 1 and second.cut == tiny
    for head, shape in zip(second.heads, second.leaving, strict=True):
        assert tiny.ops(Arch(tiny.name, head))[-1].in_shape == shape  # of the closing pool
