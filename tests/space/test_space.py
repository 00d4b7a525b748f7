"""Any architecture of any input shape walks to a sound operator list."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.errors import BadConfig
from edgemeta.space.cells import darts
from edgemeta.space.presets import SPACES, tiny
from edgemeta.space.space import Space
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Arch

STAGED = ("edge", "seq", "tiny")


@st.composite
def drawn(draw, kinds=STAGED) -> tuple[Space, Arch]:
    """A space of any resolution and one of its architectures."""
    kind = draw(st.sampled_from(sorted(kinds)))
    height = st.just(1) if kind == "seq" else st.integers(1, 33)
    space = SPACES[kind](draw(st.tuples(st.integers(1, 3), height, st.integers(1, 33))))
    return space, Arch(space.name, tuple(draw(st.integers(0, len(options) - 1)) for _, options in space.slots))


@given(drawn(SPACES))
def test_shapes_chain_and_inputs_come_first(pair):
    space, arch = pair
    ops = space.ops(arch)
    outputs = [space.in_shape, *(op.out_shape for op in ops)]
    for i, op in enumerate(ops):
        assert all(-1 <= j < i for j in op.inputs)
        assert outputs[op.inputs[0] + 1] == op.in_shape
        assert min(op.out_shape) >= 1
        if op.kind == "add":
            assert [outputs[j + 1] for j in op.inputs] == [op.out_shape] * 2
        elif op.kind == "concat":
            assert sum(outputs[j + 1][0] for j in op.inputs) == op.out_shape[0]
            assert {outputs[j + 1][1:] for j in op.inputs} == {op.out_shape[1:]}
        else:
            assert len(op.inputs) == 1
    assert ops[-1].out_shape[1:] == (1, 1)


@given(drawn(SPACES))
def test_every_operator_is_read(pair):
    space, arch = pair
    ops = space.ops(arch)
    assert {j for op in ops for j in op.inputs} == set(range(-1, len(ops) - 1))


@given(drawn())
def test_the_first_layer_is_a_plain_convolution(pair):
    space, arch = pair
    first = space.ops(arch)[0]
    assert (first.kind, first.groups) == ("conv", 1)


@given(drawn(SPACES))
def test_settings_and_arch_are_inverse(pair):
    space, arch = pair
    assert space.arch(space.settings(arch)) == arch


@given(drawn())
def test_depth_counts_layers(pair):
    """Each layer of each stage ends in one convolution to the stage's width, whatever its kind."""
    space, arch = pair
    stages = space.settings(arch)
    per_kind = {"conv": 1, "sep": 2, "mb3": 3, "mb6": 3}
    expected = sum(per_kind[stage["kind"]] * stage["depth"] for stage in stages)
    expected += 1 - per_kind[stages[0]["kind"]]  # the stem is plain
    assert sum(op.kind == "conv" for op in space.ops(arch)) == expected


def test_the_seed_decides_the_sample():
    space = tiny()
    assert [space.sample(rng=Random(3)) for _ in range(2)] == [space.sample(rng=Random(3))] * 2
    assert len({space.sample(rng=Random(seed)) for seed in range(20)}) > 10


def test_size_counts_the_points():
    stage = Stage(depth=(1,), width=(4, 8), kernel=(3,), kind=("conv", "sep", "mb3"), down=("pool",))
    assert staged("small", (1, 8, 8), (stage, stage)).size == 36


def test_the_name_tells_resolutions_apart():
    assert tiny((1, 12, 12)).name != tiny((1, 14, 14)).name
    with pytest.raises(BadConfig, match="not of space"):
        tiny((1, 14, 14)).ops(tiny().sample(rng=Random(0)))


@pytest.mark.parametrize("slot", range(len(tiny().slots)))
@pytest.mark.parametrize("pick", [-1, 99])
def test_a_bad_pick_names_its_slot(slot, pick):
    space = tiny()
    with pytest.raises(BadConfig) as caught:
        space.ops(Arch(space.name, (0,) * len(space.slots)).swap(slot, pick))
    assert f"{space.slots[slot][0]} = {pick}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_number_of_picks_says_how_many():
    space = tiny()
    with pytest.raises(BadConfig, match="has 3 picks, expected 10"):
        space.ops(Arch(space.name, (0, 0, 0)))


def test_a_setting_the_space_lacks_names_slot_and_options():
    with pytest.raises(BadConfig, match=r"stage2\.width = 7 .*\(4, 8\)"):
        tiny().arch([{}, {"width": 7}])


@pytest.mark.parametrize("other", [{"width": 16}, {"cells": 3}])
def test_cells_of_another_width_or_number_are_another_space(other):
    """Networks and trials are kept by the name of their space."""
    usual, changed = darts((1, 12, 12)), darts((1, 12, 12), **other)
    arch = usual.sample(rng=Random(0))
    assert usual.name != changed.name
    assert usual.ops(arch) != changed.ops(replace(arch, space=changed.name))
