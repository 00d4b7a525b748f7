"""Getting under the caps, and saying what the nearest architecture is where nothing does."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.errors import Infeasible
from edgemeta.search.feasible import repair, require_feasible, violation
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Cost


def cost_of(space):
    return lambda arch: Cost(sum(op.macs for op in space.ops(arch)) / 1e6, 1.0, 2.0)


positive = st.floats(0.01, 100)


@given(st.tuples(positive, positive, positive), st.tuples(positive, positive, positive))
def test_no_violation_exactly_where_it_fits(cost, cap):
    assert (violation(Cost(*cost), Cost(*cap)) == 0) == Cost(*cost).fits(Cost(*cap))


def test_violation_adds_up_the_logs():
    assert violation(Cost(2.0, 4.0, 1.0), Cost(1.0, 1.0, 1.0)) == pytest.approx(math.log(2) + math.log(4))


def test_repair_leaves_what_fits_and_mends_what_does_not(tiny):
    cost, rng = cost_of(tiny), Random(0)
    archs = [tiny.sample(rng=rng) for _ in range(50)]
    cap = Cost(latency_ms=sorted(cost(arch).latency_ms for arch in archs)[5])
    for arch in archs:
        mended = repair(arch, tiny, cost, cap, rng=rng)
        assert mended is None or cost(mended).fits(cap)
        assert (mended == arch) == cost(arch).fits(cap)
    assert sum(repair(arch, tiny, cost, cap, rng=rng) is not None for arch in archs) > 45


def test_a_cap_on_energy_that_is_not_measured_is_refused_without_a_search(tiny):
    with pytest.raises(Infeasible, match="no energy is measured, so nothing fits energy 3 mJ; leave --energy-mj out"):
        require_feasible(tiny, cost_of(tiny), Cost(energy_mj=3.0), rng=Random(0))


def test_energy_is_a_cap_like_any_other(tiny):
    def cost(arch):
        return Cost(1.0, 1.0, 1.0, 5.0 * cost_of(tiny)(arch).latency_ms)

    least = min(cost(tiny.sample(rng=Random(i))).energy_mj for i in range(30))
    found = require_feasible(tiny, cost, Cost(energy_mj=least), rng=Random(0))
    assert cost(found).energy_mj <= least
    with pytest.raises(Infeasible, match="the least found is energy .* mJ > 1e-05 mJ.*raise --energy-mj"):
        require_feasible(tiny, cost, Cost(energy_mj=1e-5), rng=Random(0))


def test_infeasible_names_the_least_and_the_flag(tiny):
    cost = cost_of(tiny)
    with pytest.raises(Infeasible) as caught:
        require_feasible(tiny, cost, Cost(latency_ms=1e-5), rng=Random(0))
    least = min(cost(tiny.sample(rng=Random(i))).latency_ms for i in range(300))
    message = str(caught.value)
    named = float(message.split("the least found is latency ")[1].split(" ms")[0])
    assert named <= least * 1.001 and "raise --latency-ms" in message and "ram" not in message.split("raise")[1]


def test_a_space_of_one_architecture_fits_or_is_refused():
    stage = Stage(depth=(1,), width=(4,), kernel=(3,), kind=("conv",), down=("pool",))
    one = staged("one", (1, 8, 8), (stage,))
    only = one.sample(rng=Random(0))
    cost = cost_of(one)
    assert require_feasible(one, cost, cost(only), rng=Random(0)) == only
    with pytest.raises(Infeasible, match="no architecture of one-1x8x8 fits .* raise --latency-ms"):
        require_feasible(one, cost, Cost(latency_ms=1e-6), rng=Random(0))
