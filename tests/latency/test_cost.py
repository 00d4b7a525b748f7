from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from edgemeta.contracts import Latency
from edgemeta.latency import onnx_int8
from edgemeta.latency.cost import cost, flash_kib, peak_ram_kib, upper
from edgemeta.latency.onnx_net import random_weights, to_onnx
from edgemeta.latency.table import predictor
from edgemeta.space.ops import Tape
from edgemeta.space.presets import PUBLISHED, SPACES


class _Fixed:
    head_ms = 0.5
    per_ms_mj = None
    slow_ratio = 1.5
    precision = "fp32"

    def latency(self, ops) -> Latency:
        return Latency(2.0, 1.5, 3.0)


def _kib(*floats: int) -> float:
    return sum(floats) * 4 / 1024


def test_peak_ram_of_a_chain_by_hand():
    """1x8x8 -> 4x8x8 -> pool 4x4x4 -> gap 4: the first convolution holds image and output, the pool both its ends."""
    tape = Tape((1, 8, 8))
    tape.conv(4, 3)
    tape.maxpool()
    tape.gap()
    assert peak_ram_kib(tape.ops) == max(_kib(64, 256), _kib(256, 64), _kib(64, 4))


def test_peak_ram_keeps_the_entry_of_a_residual_block():
    """At the expanded depthwise layer its input, its output and the block's entry are alive."""
    tape = Tape((1, 8, 8))
    entry = tape.conv(4, 3)
    tape.conv(24, 1, act="relu")
    tape.depthwise(3)
    tape.conv(4, 1)
    without = peak_ram_kib(tape.ops)
    tape.add(entry)
    assert without == _kib(24 * 64, 24 * 64)
    assert peak_ram_kib(tape.ops) == _kib(4 * 64, 24 * 64, 24 * 64)


def test_peak_ram_of_int8_by_hand():
    """A quarter of the activations; but an image beside its own bytes is 5 bytes a value, more than a small net has."""
    tape = Tape((1, 8, 8))
    tape.conv(16, 3)
    tape.conv(16, 3)
    tape.gap()
    assert peak_ram_kib(tape.ops, "int8") == peak_ram_kib(tape.ops) / 4 == 2 * 16 * 64 / 1024
    tape = Tape((1, 8, 8))
    tape.conv(1, 3)
    tape.gap()
    assert peak_ram_kib(tape.ops, "int8") == 5 * 64 / 1024


def test_ram_follows_the_precision_of_the_profile(tiny, null, rng):
    ops = tiny.ops(tiny.arch([{"width": 8}, {"width": 8}]))
    small = cost(ops, predictor(replace(null, precision="int8")))
    assert small.ram_kib == peak_ram_kib(ops, "int8") < cost(ops, predictor(null)).ram_kib


@pytest.mark.parametrize("name", SPACES)
def test_flash_is_the_size_of_the_file(name):
    space = SPACES[name]()
    for seed in range(12):
        ops = space.ops(space.sample(rng=Random(seed)))
        size = len(to_onnx(ops).SerializeToString()) / 1024
        assert abs(flash_kib(ops) - size) <= 0.02 * size + 2


@pytest.mark.parametrize("name", SPACES)
def test_flash_of_an_int8_network_is_the_size_of_its_file(name):
    space = SPACES[name]()
    for seed in range(6):
        ops = space.ops(space.sample(rng=Random(seed)))
        ranges = {"x": (0.0, 1.0)} | {f"v{i}": (-1.0, 1.0) for i in range(len(ops))}
        size = len(onnx_int8.to_onnx(ops, random_weights(ops), ranges).SerializeToString()) / 1024
        assert abs(flash_kib(ops, "int8") - size) <= 1


def test_published_spaces_have_costs(null, rng):
    for make in PUBLISHED.values():
        space = make()
        spent = cost(space.ops(space.sample(rng=rng)), predictor(null))
        assert 0 < spent.ram_kib < 1e5 and 0 < spent.flash_kib < 1e5


def test_cost_adds_the_head_and_upper_the_interval(tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    assert cost(ops, _Fixed()).latency_ms == 2.5
    assert upper(ops, _Fixed()).latency_ms == 5.0  # 3 ms at a slow moment, and the head
    assert upper(ops, _Fixed()).ram_kib == cost(ops, _Fixed()).ram_kib == peak_ram_kib(ops)


def test_null_device_by_hand(tiny, null):
    ops = tiny.ops(tiny.arch([{"kind": "conv"}, {"kind": "conv"}]))
    by_hand = 4 * 12 * 12 * 9 * 1 + 4 * 6 * 6 * 9 * 4  # two 3x3 convolutions of 4 filters, a pool between them
    assert cost(ops, predictor(null)).latency_ms == by_hand / 1e6
