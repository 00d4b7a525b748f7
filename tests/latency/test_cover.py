from __future__ import annotations

from random import Random

from edgemeta.latency import cover
from edgemeta.space.presets import edge


def _keys(space, archs) -> set[str]:
    return {op.key for arch in archs for op in space.ops(arch)}


def test_operators_are_exact(tiny):
    """Nothing that a random architecture holds is missing; nothing is there that no architecture holds."""
    rng = Random(1)
    drawn = _keys(tiny, (tiny.sample(rng=rng) for _ in range(4000)))
    assert drawn == set(cover.operators(tiny))


def test_operators_of_edge_hold_all_that_is_drawn():
    space, rng = edge(), Random(2)
    known = cover.operators(space)
    assert _keys(space, (space.sample(rng=rng) for _ in range(500))) <= set(known)
    assert all(key == op.key for key, op in known.items())


def test_covering_holds_every_operator_in_few_networks(tiny, rng):
    chosen = cover.covering(tiny, rng=rng)
    assert _keys(tiny, chosen) == set(cover.operators(tiny))
    assert len(chosen) < len(cover.operators(tiny)) / 2
    assert chosen == cover.covering(tiny, rng=Random(0))
