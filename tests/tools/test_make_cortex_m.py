"""The profile of a Cortex-M that ships, and the board that its instructions are counted on."""

import math
from random import Random

import pytest

from edgemeta.latency import cover, profile
from edgemeta.latency.cost import cost
from edgemeta.latency.table import predictor
from edgemeta.lowering import c_check
from edgemeta.space.presets import edge, tapered, tiny
from tools import make_cortex_m

NAME = "cortex-m4f-168mhz"


@pytest.fixture(scope="module")
def shipped():
    return profile.load(NAME)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    pytest.importorskip("emx_onnx_cgen", reason="extra `c` is not installed")
    if missing := c_check.lacks(*c_check.ARM, c_check.EMULATOR):
        pytest.skip(f"no {missing} on this machine")
    return make_cortex_m.Board(tmp_path_factory.mktemp("board"), "m4")


def test_it_says_that_it_is_no_silicon_and_holds_every_operator(shipped):
    assert (
        shipped.device == NAME and shipped.synthetic and "emulated" in shipped.cpu and "not times" in shipped.doubts[0]
    )
    assert set(shipped.ops) == set(cover.operators(edge())) and not shipped.status
    assert shipped not in profile.measured()


def test_its_sums_are_whole_networks(shipped):
    sums, space = predictor(shipped), edge()
    errors = [sums.latency(space.ops(net.arch)).ms / net.timing.median_ms - 1 for net in shipped.nets]
    assert max(map(abs, errors)) < 1e-3
    assert 0.999 < shipped.overhead["low_ratio"] <= 1 <= shipped.overhead["high_ratio"] < 1.001


def test_a_network_counted_now_takes_what_the_profile_says(shipped, board):
    """Another compiler's version may save a tenth."""
    ops = edge().ops(tapered(edge()))
    counted = board.count(ops).total / c_check.CLOCK_MHZ / 1e3
    whole = cost(ops, predictor(shipped))
    assert math.isclose(counted, whole.latency_ms - shipped.overhead["head_ms"], rel_tol=0.1)


def test_operators_add_up_and_counts_make_a_profile(board, tmp_path):
    space = tiny()
    archs = [space.sample(rng=Random(seed)) for seed in range(2)]
    found = {arch: board.count(space.ops(arch)) for arch in archs}
    assert all(0.98 < sum(counted.ops) / counted.total <= 1 for counted in found.values())
    assert [board.count(space.ops(arch)) for arch in archs[:1]] == [found[archs[0]]]
    counted = {op.key for arch in archs for op in space.ops(arch)}
    made = make_cortex_m.profile_of(space, found, 0, head=1000, core="m7", mhz=100.0)
    assert made.device == "cortex-m7f-100mhz" and set(made.ops) == counted and made.overhead["head_ms"] == 0.01
    assert profile.load(profile.save(made, tmp_path / "board.json")) == made
