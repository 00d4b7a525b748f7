"""Architectures come apart where they can, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.latency.parts import ENTRY, count
from edgemeta.space.ops import LAYERS, Tape
from edgemeta.space.presets import PUBLISHED, edge
from edgemeta.types import Arch, Op

SPACES = {"edge": edge, **PUBLISHED}


@st.composite
def graphs(draw) -> list[Op]:
    """Any wiring in which each operator reads one or two earlier results; widths differ, so that no two are alike."""
    found: list[Op] = []
    for i in range(draw(st.integers(1, 12))):
        inputs = tuple(draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=2, unique=True)))
        found.append(Op("conv", (1, 8, 8), (i + 1, 8, 8), inputs=inputs))
    return found


@given(graphs())
def test_parts_in_a_row_are_the_network(ops):
    """Cut at every place that allows it, and at no other."""
    made = count([ops])
    placed = [made.ops[number] for part in made.parts for number in part.ops]
    assert [op.key for op in placed] == [op.key for op in ops]
    inputs, begin = [], 0
    for part in made.parts:
        inputs += [tuple(j + begin for j in read) for read in part.inputs]
        begin += len(part.ops)
    assert inputs == [op.inputs for op in ops]
    cuts = [end for end in range(1, len(ops) + 1) if all(j >= end - 1 for op in ops[end:] for j in op.inputs)]
    assert list(np.cumsum([len(part.ops) for part in made.parts])) == cuts


@pytest.mark.parametrize("name", SPACES)
def test_counts_hold_every_operator(name):
    space, rng = SPACES[name](), Random(0)
    networks = [space.ops(space.sample(rng=rng)) for _ in range(20)]
    made = count(networks)
    for ops, row in zip(networks, made.counts.toarray(), strict=True):
        held: Counter[str] = Counter()
        for part, times in zip(made.parts, row, strict=True):
            for number in part.ops:
                held[made.ops[number].key] += int(times)
        assert +held == Counter(op.key for op in ops)


def test_operators_and_parts_are_listed_once():
    space, rng = edge(), Random(1)
    made = count([space.ops(space.sample(rng=rng)) for _ in range(30)])
    assert len({op.key for op in made.ops}) == len(made.ops)
    assert len(set(made.parts)) == len(made.parts)
    assert (np.asarray(made.counts.sum(0)) > 0).all()


def test_a_chain_is_cut_behind_each_operator():
    tape = Tape((1, 8, 8))
    for width in (4, 8, 8, 8):
        LAYERS["sep"](tape, width, 3, 1)
    made = count([tape.ops])
    assert all(part.inputs == ((ENTRY,),) for part in made.parts)
    assert made.counts.sum() == len(tape.ops)
    assert made.counts.max() == 2  # two layers are the same


def test_a_residual_block_is_one_part_and_its_repeats_count():
    tape = Tape((1, 8, 8))
    tape.conv(8, 3)
    LAYERS["mb3"](tape, 8, 3, 1)
    LAYERS["mb3"](tape, 8, 3, 1)
    made = count([tape.ops])
    assert [part.inputs for part in made.parts] == [((ENTRY,),), ((ENTRY,), (0,), (1,), (2, ENTRY))]
    assert made.counts.toarray().tolist() == [[1, 2]]


@pytest.mark.parametrize("picks", [(0,) * 6, (1,) * 6, (3, 2, 0, 4, 1, 3)], ids=["nothing", "skips", "mixed"])
def test_a_cell_is_one_part_even_where_nothing_connects_it(picks):
    space = PUBLISHED["nb201"]()
    made = count([space.ops(Arch("nb201", picks))])
    sizes = [len(part.ops) for part in made.parts]
    # stem; five cells, a reduction of five operators, and so twice more; pool
    assert sizes == [1, 9, 5, 9, 5, 9, 1]
    assert made.counts.toarray().tolist() == [[1, 5, 1, 5, 1, 5, 1]]


def test_wiring_tells_parts_apart():
    """The same operators, one beside the other or one behind the other."""
    beside, behind = Tape((4, 8, 8)), Tape((4, 8, 8))
    for tape, at in ((beside, -1), (behind, 0)):
        first = tape.conv(4, 3)
        tape.conv(4, 3, at=at)
        tape.add(first)
    made = count([beside.ops, behind.ops])
    assert len(made.ops) == 2 and len(made.parts) == 3
    assert made.counts.toarray().tolist() == [[1, 0, 0], [0, 1, 1]]


def test_a_batch_is_its_networks():
    space, rng = edge(), Random(2)
    networks = [space.ops(space.sample(rng=rng)) for _ in range(8)]
    together = count(networks)
    for ops, row in zip(networks, together.counts.toarray(), strict=True):
        alone = count([ops])
        names = {
            (tuple(together.ops[n].key for n in part.ops), part.inputs): times
            for part, times in zip(together.parts, row, strict=True)
            if times
        }
        assert names == {
            (tuple(alone.ops[n].key for n in part.ops), part.inputs): times
            for part, times in zip(alone.parts, alone.counts.toarray()[0], strict=True)
        }
