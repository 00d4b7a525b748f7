"""Shapes that follow from operator kinds, by hand."""

from __future__ import annotations

import pytest

from edgemeta.space.ops import LAYERS, Tape


def kinds(tape: Tape) -> list[str]:
    return [("dw" if op.groups > 1 else "conv") if op.kind == "conv" else op.kind for op in tape.ops]


def test_conv_rounds_up_and_pool_rounds_down():
    tape = Tape((1, 7, 5))
    tape.conv(4, 3, stride=2)
    assert tape.shape(tape.last) == (4, 4, 3)
    tape.maxpool()
    assert tape.shape(tape.last) == (4, 2, 1)
    tape.gap()
    assert tape.shape(tape.last) == (4, 1, 1)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_unit_stride_keeps_the_map(kernel):
    tape = Tape((2, 6, 9))
    tape.depthwise(kernel)
    assert tape.shape(tape.last) == (2, 6, 9)


def test_an_empty_tape_shows_the_input():
    tape = Tape((3, 8, 8))
    assert tape.last == -1 and tape.shape(tape.last) == (3, 8, 8) and tape.ops == ()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("conv", ["conv"]),
        ("sep", ["dw", "conv"]),
        ("mb3", ["conv", "dw", "conv", "add"]),
        ("mb6", ["conv", "dw", "conv", "add"]),
    ],
)
def test_layers_at_equal_shapes(kind, expected):
    tape = Tape((8, 6, 6))
    LAYERS[kind](tape, 8, 3, 1)
    assert kinds(tape) == expected
    assert tape.shape(tape.last) == (8, 6, 6)


@pytest.mark.parametrize(("width", "stride"), [(16, 1), (8, 2)])
def test_no_residual_where_shapes_differ(width, stride):
    tape = Tape((8, 6, 6))
    LAYERS["mb3"](tape, width, 3, stride)
    assert kinds(tape) == ["conv", "dw", "conv"]


def test_a_residual_adds_the_entry_of_its_layer():
    tape = Tape((1, 6, 6))
    tape.conv(8, 3, act="relu")
    LAYERS["mb3"](tape, 8, 3, 1)
    assert tape.ops[-1].inputs == (3, 0)


@pytest.mark.parametrize("kind", [name for name in LAYERS if name != "conv"])
def test_depthwise_convolutions_are_linear(kind):
    tape = Tape((8, 6, 6))
    LAYERS[kind](tape, 8, 3, 1)
    assert {op.act for op in tape.ops if op.groups > 1} == {"none"}


@pytest.mark.parametrize(("kind", "factor"), [("mb3", 3), ("mb6", 6)])
def test_expansion(kind, factor):
    tape = Tape((8, 6, 6))
    LAYERS[kind](tape, 8, 3, 1)
    assert tape.ops[0].out_shape[0] == 8 * factor == tape.ops[1].groups


def test_average_pools_keep_the_map_unless_they_stride():
    tape = Tape((4, 7, 6))
    tape.avgpool(3)
    assert tape.shape(tape.last) == (4, 7, 6)
    tape.avgpool(2, stride=2)
    assert tape.shape(tape.last) == (4, 3, 3)
    assert [(op.kernel, op.stride) for op in tape.ops] == [(3, 1), (2, 2)]


@pytest.mark.parametrize(
    "push",
    [
        lambda tape, at: tape.conv(8, 3, at=at),
        lambda tape, at: tape.avgpool(3, at=at),
        lambda tape, at: tape.skip(at=at),
        lambda tape, at: tape.zero(at=at),
    ],
    ids=["conv", "avgpool", "skip", "zero"],
)
@pytest.mark.parametrize("at", [-1, 0, 1])
def test_an_operator_reads_the_position_it_is_told(push, at):
    tape = Tape((3, 8, 8))
    tape.conv(4, 3, stride=2)
    tape.conv(8, 3)
    position = push(tape, at)
    op = tape.ops[position]
    assert position == tape.last == 2
    assert op.inputs == (at,) and op.in_shape == tape.shape(at)


@pytest.mark.parametrize("name", ["skip", "zero", "shuffle"])
def test_what_only_passes_on_keeps_shape_and_computes_nothing(name):
    tape = Tape((4, 6, 5))
    tape.conv(6, 3)
    if name == "shuffle":
        tape.shuffle(2)
    else:
        getattr(tape, name)(at=0)
    op = tape.ops[-1]
    assert op.kind == name and op.out_shape == op.in_shape == (6, 6, 5)
    assert op.macs == op.weight_bytes == 0


def test_a_scale_reads_the_map_and_then_its_weights():
    tape = Tape((4, 6, 5))
    wide = tape.conv(8, 3)
    tape.gap()
    weights = tape.conv(8, 1)
    tape.scale(wide)
    assert tape.ops[-1].inputs == (wide, weights)
    assert tape.ops[-1].in_shape == tape.ops[-1].out_shape == (8, 6, 5)


def test_grouped_convolutions_have_a_share_of_the_weights():
    tape = Tape((8, 4, 4))
    tape.conv(16, 1)
    tape.conv(16, 1, groups=2, at=-1)
    whole, halves = tape.ops
    assert whole.macs == 2 * halves.macs == 8 * 16 * 16
