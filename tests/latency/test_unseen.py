"""A profile of a few networks becomes a predictor; what it cannot be made from is said in one line."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgemeta.errors import BadProfile, EdgemetaError
from edgemeta.latency import fewshot, unseen
from edgemeta.latency.parts import count
from edgemeta.latency.table import PREDICTORS, predictor
from edgemeta.latency.unseen import FewShot, ground, support
from edgemeta.space.blocks import fbnet
from edgemeta.space.cells import nb201
from edgemeta.space.presets import edge
from edgemeta.types import Arch, NetTiming, Profile, Timing
from tests.latency.pretend import Lab


@pytest.fixture
def timed(null):
    """A profile of a lab's device, timed on some of its networks."""

    def make(lab: Lab, rows, device: int = 0, *, with_ops: bool = False, **changes) -> Profile:
        nets = tuple(
            NetTiming(
                lab.archs[row],
                Timing(float(lab.ms[row, device]), 0.0, 1),
                lab.ground.space.ops(lab.archs[row]) if with_ops else (),
            )
            for row in rows
        )
        return replace(null, device="pretend", overhead={}, nets=nets, **changes)

    return make


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_profile_of_an_unknown_space_is_refused(timed, toys):
    known = timed(toys, range(3))
    strange = replace(known, nets=tuple(replace(net, arch=Arch("nb301", (0,))) for net in known.nets))
    with pytest.raises(EdgemetaError, match="nb301.*nb201") as caught:
        FewShot(strange)
    one_line(caught)


def test_a_profile_without_networks_is_refused(timed, toys):
    with pytest.raises(BadProfile, match="'pretend' holds no timing.*--timings") as caught:
        FewShot(timed(toys, []))
    one_line(caught)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_no_time_is_refused(timed, toys, value):
    known = timed(toys, range(4))
    broken = replace(known, nets=(*known.nets, NetTiming(toys.archs[9], Timing(value, 0.0, 1))))
    with pytest.raises(BadProfile, match="no time") as caught:
        FewShot(broken)
    one_line(caught)


def test_timings_that_are_all_the_same_are_refused(timed, toys):
    known = timed(toys, range(4))
    with pytest.raises(BadProfile, match="all 4 timings"):
        FewShot(replace(known, nets=tuple(replace(net, timing=Timing(2.0, 0.0, 1)) for net in known.nets)))


@pytest.mark.parametrize("timings", [0, -3])
def test_no_timings_tell_nothing(tiny, timings):
    with pytest.raises(BadProfile, match=f"{timings} timings tell nothing") as caught:
        support(tiny, timings, seed=0)
    one_line(caught)


def test_a_support_is_of_the_space_distinct_and_decided_by_its_seed(tiny):
    found = support(tiny, 12, seed=0)
    assert len(set(found)) == 12
    for arch in found:
        tiny.ops(arch)
    assert found == support(tiny, 12, seed=0) != support(tiny, 12, seed=1)
    assert support(tiny, 5, seed=0) == found[:5]


def test_a_support_of_a_published_space():
    found = support(nb201(), 5, seed=0)
    assert {arch.space for arch in found} == {"nb201"} and len(set(found)) == 5


@pytest.mark.parametrize("name", ["cells", "toys"])
def test_ten_timings_make_a_predictor(timed, request, name):
    lab = request.getfixturevalue(name)
    for device in range(3):
        guess = predictor(timed(lab, lab.drawn(10, seed=device), device))
        assert isinstance(guess, FewShot)
        some = lab.held[:60]
        found = [guess.latency(lab.ground.space.ops(lab.archs[row])) for row in some]
        assert all(0 < one.low_ms <= one.ms <= one.high_ms < math.inf for one in found)
        assert spearmanr([one.ms for one in found], lab.ms[some, device])[0] > 0.9


def test_it_answers_what_the_posterior_says(timed, toys):
    rows = toys.drawn(6, seed=0)
    guess = FewShot(timed(toys, rows)).latency(toys.ground.space.ops(toys.archs[-1]))
    posterior = toys.fit(rows, toys.ms[rows, 0])
    features = toys.features[[-1]]
    low, high = fewshot.interval(posterior, features)
    expected = np.exp([fewshot.mean(posterior, features)[0], low[0], high[0]])
    assert tuple(guess) == pytest.approx(tuple(expected), rel=1e-4)


def test_operators_may_come_with_the_timings_or_from_the_space(timed, toys):
    rows = toys.drawn(5, seed=1)
    ops = toys.ground.space.ops(toys.archs[0])
    assert FewShot(timed(toys, rows)).latency(ops) == FewShot(timed(toys, rows, with_ops=True)).latency(ops)


def test_several_timings_of_a_network_count_as_their_median(timed, toys):
    known = timed(toys, toys.drawn(5, seed=2))
    first = known.nets[0]
    ms = first.timing.median_ms
    again = tuple(replace(first, timing=Timing(ms * factor, 0.0, 1)) for factor in (0.5, 1.1))
    ops = toys.ground.space.ops(toys.archs[0])
    assert FewShot(replace(known, nets=(*known.nets, *again))).latency(ops) == pytest.approx(
        FewShot(known).latency(ops)
    )


def test_two_timings_far_apart_are_refused(timed, toys):
    known = timed(toys, range(4))
    first = known.nets[0]
    other = replace(first, timing=Timing(3.5 * first.timing.median_ms, 0.0, 1))
    with pytest.raises(BadProfile, match=r"3\.5-fold apart"):
        FewShot(replace(known, nets=(*known.nets, other)))


def test_many_timings_are_used_up_to_the_most_telling(timed, toys, monkeypatch):
    """No slower, and no worse, than with all."""
    seen = []
    original = fewshot.fit
    monkeypatch.setattr(fewshot, "fit", lambda prior, x, y: seen.append(len(y)) or original(prior, x, y))
    guess = FewShot(timed(toys, range(150)))
    assert seen == [unseen.MOST_TIMINGS]
    some = toys.held[80:140]
    found = [guess.latency(toys.ground.space.ops(toys.archs[row])).ms for row in some]
    assert spearmanr(found, toys.ms[some, 0])[0] > 0.98


def test_networks_of_another_space_are_refused(timed, cells, tiny):
    """One by one and for a whole space alike: what was timed says too little of them."""
    guess = FewShot(timed(cells, cells.drawn(5, seed=0)))
    for space in (fbnet(), edge(), tiny):
        with pytest.raises(BadProfile, match="'pretend' never saw .* only nb201; time some .*--timings") as caught:
            guess.latency(space.ops(space.sample(rng=Random(0))))
        one_line(caught)
        with pytest.raises(BadProfile, match="never saw"):
            guess.additive(space)


def test_every_network_of_the_timed_space_is_answered(timed, cells, toys):
    """Also those whose operators are rare: all alike, all different."""
    guess = FewShot(timed(cells, cells.drawn(5, seed=0)))
    for pick in range(5):
        assert guess.latency(nb201().ops(Arch("nb201", (pick,) * 6))).ms > 0
    space = toys.ground.space
    guess = FewShot(timed(toys, toys.drawn(5, seed=0)))
    for end in (0, -1):
        arch = Arch(space.name, tuple(space.options(i)[end] for i in range(len(space.slots))))
        assert guess.latency(space.ops(arch)).ms > 0


def test_timings_of_two_spaces_answer_for_the_first(timed, cells, toys):
    """A profile may hold both: those of the other space neither teach nor disturb."""
    alone = timed(cells, cells.drawn(5, seed=3))
    both = replace(alone, nets=(*alone.nets, *timed(toys, range(5)).nets))
    ops = cells.ground.space.ops(cells.archs[0])
    assert FewShot(both).latency(ops) == FewShot(alone).latency(ops)


def test_what_the_profile_says_of_head_energy_and_precision_is_kept(timed, toys):
    known = timed(toys, range(4), precision="int8")
    bare = FewShot(known)
    assert (bare.head_ms, bare.per_ms_mj, bare.precision) == (0.0, None, "int8")
    full = FewShot(replace(known, overhead={"head_ms": 0.25, "per_ms_mj": 12.0}))
    assert (full.head_ms, full.per_ms_mj) == (0.25, 12.0)


def test_a_profile_with_operators_stays_a_table(timed, toys):
    both = replace(timed(toys, range(4)), ops={"conv": Timing(1.0, 0.0, 1)})
    assert isinstance(predictor(both), PREDICTORS["table"])  # type: ignore[arg-type]


def test_the_prior_of_a_space_is_built_once(tiny):
    assert ground(tiny.name) is ground(tiny.name)
    assert ground(tiny.name).space == tiny
    assert ground(tiny.name).typical.counts.shape[0] == unseen.TYPICAL


def test_shipped_devices_join_the_prior_unless_left_out(timed, toys, monkeypatch):
    many = timed(toys, range(len(toys.archs)))
    monkeypatch.setattr(unseen, "_shipped", lambda name: [replace(many, device="a"), replace(many, device="b")])
    name = toys.ground.space.name
    counts = [ground.__wrapped__(name, without=without).prior.centres.shape[1] for without in ("", "a")]
    assert counts == [fewshot.DEVICES + 2, fewshot.DEVICES + 1]


def test_additive_terms_add_up_over_stages(timed, cells):
    """What a lookup needs: the terms of a network are those of what it is made of."""
    laid = FewShot(timed(cells, cells.drawn(6, seed=0))).additive(nb201())
    ops = [cells.ground.space.ops(arch) for arch in cells.archs[:5]]
    whole = laid.sums(ops)
    cut = [next(i for i, op in enumerate(row) if op.kind == "conv" and op.stride == 2) for row in ops]
    heads = laid.sums([row[:at] for row, at in zip(ops, cut, strict=True)])
    tails = []
    for row, at in zip(ops, cut, strict=True):
        tails.append([replace(op, inputs=tuple(max(-1, j - at) for j in op.inputs)) for op in row[at:]])
    assert heads + laid.sums(tails) == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert count(tails).counts.sum() + count([r[:at] for r, at in zip(ops, cut, strict=True)]).counts.sum() == 5 * 19
