"""The records, against numbers counted by hand."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import pytest

from edgemeta.types import Arch, Cost, Episode, NetTiming, Op, Profile, Trial


@pytest.mark.parametrize(
    ("op", "macs", "weight_bytes", "act_bytes"),
    [
        # 8 filters of 1x3x3 over 10x10 positions; 72 weights and 8 biases of 4 bytes; 800 outputs of 4 bytes
        (Op("conv", (1, 10, 10), (8, 10, 10), kernel=3), 7200, 320, 3200),
        # stride 2: 8 filters of 4x3x3 over 5x5
        (Op("conv", (4, 10, 10), (8, 5, 5), kernel=3, stride=2), 7200, 4 * (288 + 8), 800),
        # depthwise 5x5 over 6 channels, 7x7: each channel sees itself alone
        (Op("conv", (6, 7, 7), (6, 7, 7), kernel=5, groups=6), 6 * 25 * 49, 4 * (150 + 6), 4 * 294),
        # pointwise, not square
        (Op("conv", (3, 4, 6), (5, 4, 6)), 15 * 24, 4 * (15 + 5), 4 * 120),
        (Op("maxpool", (8, 9, 9), (8, 4, 4), kernel=2, stride=2), 0, 0, 4 * 128),
        (Op("add", (8, 4, 4), (8, 4, 4), inputs=(1, 0)), 0, 0, 4 * 128),
        (Op("gap", (8, 4, 4), (8, 1, 1)), 0, 0, 32),
    ],
    ids=lambda value: value.kind if isinstance(value, Op) else "",
)
def test_op_by_hand(op, macs, weight_bytes, act_bytes):
    assert (op.macs, op.weight_bytes, op.act_bytes) == (macs, weight_bytes, act_bytes)


def test_op_key_holds_all_but_the_place():
    op = Op("conv", (4, 8, 8), (4, 8, 8), kernel=3, inputs=(2,))
    assert dataclasses.replace(op, inputs=(5,)).key == op.key
    others = [
        dict(kind="maxpool"),
        dict(in_shape=(4, 8, 9)),
        dict(out_shape=(8, 8, 8)),
        dict(kernel=5),
        dict(stride=2),
        dict(groups=4),
        dict(act="relu"),
    ]
    keys = {dataclasses.replace(op, **change).key for change in others}
    assert len(keys) == len(others) and op.key not in keys


def test_swap_changes_one_slot_of_a_copy():
    arch = Arch("tiny-1x12x12", (0, 1, 2))
    assert arch.swap(0, 3).picks == (3, 1, 2)
    assert arch.swap(2, 0).picks == (0, 1, 0)
    assert arch.picks == (0, 1, 2)
    assert str(arch) == "tiny-1x12x12:0.1.2"


def test_cost_fits_only_below_every_cap():
    cap = Cost(2.0, 64.0, 256.0)
    for values in product((0.5, 1.0, 1.001), repeat=3):
        cost = Cost(*(v * c for v, c in zip(values, (2.0, 64.0, 256.0), strict=True)))
        assert cost.fits(cap) == (max(values) <= 1.0)


def test_a_missing_cap_holds_nothing_back():
    assert Cost(1e9, 1e9, 1e9).fits(Cost())
    assert Cost(1.0, 1e9, 1e9).fits(Cost(latency_ms=1.0))
    assert not Cost(math.nan, 1.0, 1.0).fits(Cost(latency_ms=1.0))


def test_cost_reads_with_units():
    assert str(Cost(latency_ms=1.5, flash_kib=300.0)) == "latency 1.5 ms, flash 300 KiB"
    assert str(Cost()) == "no cap"


@pytest.mark.parametrize("record", [Op, Arch, Cost, NetTiming, Profile, Episode, Trial])
def test_records_are_frozen(record):
    empty = object.__new__(record)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(empty, dataclasses.fields(record)[0].name, None)
