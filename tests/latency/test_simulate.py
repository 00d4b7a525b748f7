"""Pretend devices: seeds decide, and devices simple enough for times worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from edgemeta.latency import simulate
from edgemeta.latency.parts import count
from edgemeta.latency.simulate import KINDS, PRUNING, Devices
from edgemeta.space.cells import nb201
from edgemeta.space.ops import Tape
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch

NONE, SKIP, CONV1, CONV3, POOL = range(5)
SUMS = ("launches", "arithmetic", "memory", "weights")
BARE, EACH = 7.782400, 35.389440  # million MACs: of a network of cells without convolutions, of an edge with 3x3 ones


def simple(share: str, **changes: np.ndarray) -> Devices:
    """One device that spends its time on a single sum, with no preferences among operators."""
    plain = Devices(
        launch=np.ones((len(KINDS), 1)),
        effort=np.ones((len(KINDS), 1)),
        traffic=np.ones((len(KINDS), 1)),
        per_size=np.zeros(1),
        per_width=np.zeros(1),
        per_filter=np.zeros(1),
        wide=np.ones(1),
        share=np.array([[float(name == share)] for name in SUMS]),
        roof=np.ones(1),
        queue=np.ones(1),
        pruning=np.array([PRUNING.index("all")]),
        parallel=np.zeros(1),
        constant=np.zeros(1),
    )
    return plain._replace(**changes)


def only(**kinds: float) -> np.ndarray:
    """A preference per kind of operator, 0 where it is not named."""
    return np.array([[kinds.get(kind, 0.0)] for kind in KINDS])


def times(space, archs, devices: Devices, typical) -> np.ndarray:
    """(architectures, devices)"""
    parts = count([space.ops(arch) for arch in archs])
    return np.exp(simulate.log_times(parts, devices, simulate.scales(typical, devices)).astype(float))


@pytest.fixture(scope="module")
def drawn() -> Devices:
    return simulate.draw(200, rng=np.random.default_rng(3))


def test_seeds_decide(drawn):
    again = simulate.draw(200, rng=np.random.default_rng(3))
    other = simulate.draw(200, rng=np.random.default_rng(4))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not np.array_equal(drawn.share, other.share)


def test_devices_are_finite_and_differ(drawn):
    assert all(np.isfinite(field).all() and field.shape[-1] == 200 for field in drawn)
    assert all((field >= 0).all() for field in (drawn.launch, drawn.effort, drawn.traffic, drawn.share, drawn.constant))
    assert (drawn.share.sum(0) <= 1 + 1e-9).all() and len(np.unique(drawn.share[1])) == 200
    assert set(drawn.pruning) == set(range(len(PRUNING)))
    assert (drawn.parallel < 1).all() and (drawn.roof >= 1).all() and (drawn.queue >= 1).all()


@pytest.mark.parametrize("name", [*PUBLISHED, "tiny"])
def test_every_device_times_every_network(name, drawn, tiny):
    space = tiny if name == "tiny" else PUBLISHED[name]()
    rng = Random(0)
    parts = count([space.ops(space.sample(rng=rng)) for _ in range(30)])
    logs = simulate.log_times(parts, drawn, simulate.scales(parts, drawn))
    assert logs.shape == (30, 200) and np.isfinite(logs).all()
    assert abs(float(np.median(logs))) < 1  # a typical network takes about 1


def test_the_emptiest_cell_has_a_time(cells, drawn):
    logs = np.log(times(nb201(), [Arch("nb201", (NONE,) * 6)], drawn, cells.ground.typical))
    assert np.isfinite(logs).all()


def test_launches_by_hand(toys):
    """Starts alone: a network takes as long as it has operators, an activation that is not fused being one."""
    space = toys.ground.space

    def starts(arch) -> int:
        return sum(1 + (op.kind == "conv" and op.act != "none") for op in space.ops(arch))

    device = simple("launches")
    made = times(space, toys.archs[:20], device, toys.parts)
    mean = np.mean([starts(arch) for arch in toys.archs])
    assert made[:, 0] == pytest.approx([starts(arch) / mean for arch in toys.archs[:20]], rel=1e-5)
    fused = times(space, toys.archs[:20], device._replace(launch=1 - only(act=1.0)), toys.parts)
    mean = np.mean([len(space.ops(arch)) for arch in toys.archs])
    assert fused[:, 0] == pytest.approx([len(space.ops(arch)) / mean for arch in toys.archs[:20]], rel=1e-5)


def test_arithmetic_by_hand(toys):
    """The null device of the simulation: time in proportion to multiply-accumulates."""
    space = toys.ground.space
    macs = np.array([sum(op.macs for op in space.ops(arch)) for arch in toys.archs])
    device = simple("arithmetic", effort=1 - only(pool=1.0))
    assert times(space, toys.archs, device, toys.parts)[:, 0] == pytest.approx(macs / macs.mean(), rel=1e-5)


def test_memory_and_weights_by_hand():
    tape = Tape((2, 4, 4))
    first = tape.conv(3, 3, act="relu")  # reads 32, writes 48; its activation moves 96
    tape.conv(3, 1)  # 48 and 48
    tape.add(first)  # 144
    tape.gap()  # 48 and 3
    sums = simulate.components(tape.ops, simple("memory"))
    assert sums[2, :, 0].tolist() == [80 + 96, 96, 144, 51]
    assert sums[3, :, 0].tolist() == [3 * 2 * 9 + 3, 3 * 3 + 3, 0, 0]
    assert sums[0, :, 0].tolist() == [2, 1, 1, 1]
    assert sums[1, :, 0].tolist() == [3 * 2 * 9 * 16, 9 * 16, 0, 3]


def test_shares_are_those_of_a_typical_network(toys, drawn):
    """Where sums add, typical networks take the sum of the shares on average, whatever the preferences."""
    adding = drawn._replace(
        roof=np.ones(200), queue=np.ones(200), parallel=np.zeros(200), constant=np.zeros(200), share=drawn.share
    )
    made = times(toys.ground.space, toys.archs, adding, toys.parts)
    assert made.mean(0) == pytest.approx(drawn.share.sum(0), rel=1e-4)


def test_times_scale_with_shares(toys, drawn):
    one = times(toys.ground.space, toys.archs[:20], drawn, toys.parts)
    three = drawn._replace(share=3 * drawn.share, constant=3 * drawn.constant)
    assert times(toys.ground.space, toys.archs[:20], three, toys.parts) == pytest.approx(3 * one, rel=1e-4)


def test_a_constant_is_added_once(toys, drawn):
    free = drawn._replace(constant=np.zeros(200))
    with_it = times(toys.ground.space, toys.archs[:20], drawn, toys.parts)
    without = times(toys.ground.space, toys.archs[:20], free, toys.parts)
    assert with_it - without == pytest.approx(np.broadcast_to(drawn.constant, with_it.shape), abs=1e-4)


@pytest.mark.parametrize("kinds", [["conv"], ["conv", "sep"]], ids=["plain", "separable"])
def test_a_chain_takes_the_sum_of_its_operators(kinds, toys, drawn):
    space = toys.ground.space
    ops = space.ops(space.arch([{"kind": kinds[0], "depth": 2}, {"kind": kinds[-1], "depth": 2, "width": 8}]))
    scale = simulate.scales(toys.parts, drawn)
    free = drawn._replace(constant=np.zeros(200))
    whole = np.exp(simulate.log_times(count([ops]), free, scale))[0]
    each = np.exp(simulate.log_times(count([[replace(op, inputs=(-1,))] for op in ops]), free, scale)).sum(0)
    assert whole == pytest.approx(each, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("cell", "live", "reached", "all_of_them"),
    [
        # edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3
        ((CONV3, CONV3, CONV3, CONV3, CONV3, CONV3), 6, 6, 6),
        ((CONV3, CONV3, CONV3, NONE, NONE, NONE), 0, 3, 3),  # nothing arrives at the output
        ((CONV3, NONE, NONE, SKIP, NONE, NONE), 0, 1, 1),  # a dead end
        ((NONE, SKIP, CONV3, NONE, CONV3, CONV3), 1, 1, 3),  # nothing arrives at node 1
        ((CONV3, NONE, CONV3, NONE, NONE, CONV3), 3, 3, 3),  # a chain
        ((CONV3, CONV3, NONE, SKIP, NONE, SKIP), 1, 2, 2),
        ((NONE, NONE, CONV3, NONE, CONV3, CONV3), 0, 0, 3),  # disconnected from the input
    ],
)
def test_pruning_by_hand(cells, cell, live, reached, all_of_them):
    """Arithmetic alone: the convolutions of a cell that are run."""
    typical = cells.ground.typical
    device = simple("arithmetic", effort=1 - only(pool=1.0))
    bare = times(nb201(), [Arch("nb201", (NONE,) * 6)], device, typical)[0, 0]
    for name, expected in zip(PRUNING, (live, reached, all_of_them), strict=True):
        pruning = device._replace(pruning=np.array([PRUNING.index(name)]))
        made = times(nb201(), [Arch("nb201", cell)], pruning, typical)[0, 0]
        # `scales` weighs by all that is there, so that the unit is the same
        assert made / bare == pytest.approx((BARE + expected * EACH) / BARE, rel=1e-3), name


def test_more_pruning_never_takes_longer(cells, drawn):
    made = []
    for name in PRUNING:
        devices = drawn._replace(pruning=np.full(200, PRUNING.index(name)))
        made.append(times(nb201(), cells.archs[:60], devices, cells.ground.typical))
    live, reached, everything = made
    assert (live <= reached * (1 + 1e-5)).all() and (reached <= everything * (1 + 1e-5)).all()
    assert (live < 0.9 * everything).any()


def test_parallel_devices_follow_the_longest_path(cells):
    """Three convolutions either way: beside one another, or one behind another."""
    beside = Arch("nb201", (SKIP, SKIP, NONE, CONV3, CONV3, CONV3))
    behind = Arch("nb201", (CONV3, NONE, CONV3, NONE, NONE, CONV3))
    device = simple("arithmetic", effort=1 - only(pool=1.0))
    alike = times(nb201(), [beside, behind], device, cells.ground.typical)[:, 0]
    assert alike[0] == pytest.approx(alike[1], rel=1e-5)
    fast, slow = times(nb201(), [beside, behind], device._replace(parallel=np.array([0.5])), cells.ground.typical)[:, 0]
    assert fast < 0.8 * slow


def test_parallel_devices_gain_nothing_on_chains(toys, drawn):
    """A bare residual is one too: nothing runs beside its branch."""
    space = toys.ground.space
    archs = [space.arch([{"kind": kind, "width": 8, "depth": 2}] * 2) for kind in ("conv", "sep", "mb3")]
    made = [times(space, archs, drawn._replace(parallel=np.full(200, share)), toys.parts) for share in (0.0, 0.7)]
    assert made[0] == pytest.approx(made[1], rel=1e-5)


def test_many_devices_at_once_are_each_alone(cells):
    """More than are timed at once, so that the seams are within."""
    many = simulate.draw(600, rng=np.random.default_rng(5))
    together = times(nb201(), cells.archs[:10], many, cells.ground.typical)
    for at in (0, 255, 256, 599):
        alone = Devices(*(field[..., [at]] for field in many))
        assert times(nb201(), cells.archs[:10], alone, cells.ground.typical)[:, 0] == pytest.approx(
            together[:, at], rel=1e-5
        )


def test_kinds():
    tape = Tape((8, 8, 8))
    tape.conv(8, 1)
    tape.conv(8, 3)
    tape.conv(8, 3, groups=2)
    tape.depthwise(5)
    tape.maxpool()
    tape.avgpool(3)
    tape.shuffle(2)
    tape.skip(at=0)
    tape.zero(at=0)
    tape.add(1)
    wide = tape.last
    tape.gap()
    tape.scale(wide)
    assert [simulate.kind(op) for op in tape.ops] == (
        ["pointwise", "dense", "grouped", "depthwise", "pool", "pool", "shuffle", "skip", "zero", "add", "pool", "add"]
    )
    assert {simulate.kind(op) for op in tape.ops} == set(KINDS) - {"act"}


def test_wide_depthwise_filters_are_a_kernel_of_their_own():
    tape = Tape((8, 8, 8))
    tape.depthwise(3)
    tape.depthwise(5)
    plain = simulate.components(tape.ops, simple("arithmetic"))[1, :, 0]
    fast = simulate.components(tape.ops, simple("arithmetic", wide=np.array([0.5])))[1, :, 0]
    assert (fast / plain).tolist() == [1.0, 0.5]


def test_physical_sums_are_those_of_the_operators(cells, toys):
    for lab in (toys, cells):
        sums = simulate.physical(lab.parts)
        weights = [sum(op.weight_bytes / 4 for op in lab.ground.space.ops(arch)) for arch in lab.archs]
        assert sums[:, -1] == pytest.approx(weights)
        assert np.isfinite(sums).all() and (sums >= 0).all() and (sums.max(0) > 0).all()
