"""Timings that must not be used, each refused in one line that names what is wrong and what to do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import checks
from edgemeta.space.presets import LANDMARKS, SPACES
from edgemeta.types import Arch, NetTiming, Timing


def nets(*times: float, same: bool = False) -> list[NetTiming]:
    return [NetTiming(Arch("s", (0 if same else i,)), Timing(ms, 0.01, 1)) for i, ms in enumerate(times)]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "holds no timing of a network; time some with"),
        (nets(1.0, -1.0), "s:1: -1 ms is no time; leave out"),
        (nets(1.0, math.nan), "s:1: nan ms is no time"),
        (nets(1.0, 0.0), "s:1: 0 ms is no time"),
        (nets(1.0, 3.1, same=True), r"two timings of s:0 are 3.1-fold apart \(1 and 3.1 ms\); remove the wrong one"),
        (nets(5.0, 5.0, 5.0), "all 3 timings are 5 ms, which tells nothing apart; use a finer clock"),
    ],
)
def test_timings_that_nothing_can_be_learned_from(found, says):
    with pytest.raises(BadProfile, match=f"^these.*{says}") as caught:
        checks.check_nets(found, "these")
    assert "\n" not in str(caught.value)


def test_one_timing_or_a_repeated_one_is_no_reason_to_refuse():
    checks.check_nets(nets(5.0), "one")
    checks.check_nets(nets(5.0, 5.0, same=True), "repeated")


@pytest.mark.parametrize("value", [None, "1.5", True, [1]])
def test_what_is_not_a_number_is_no_time(value):
    with pytest.raises(BadProfile, match="what: .* is not a number; give milliseconds"):
        checks.value_ms(value, "what")


def test_several_timings_of_a_network_become_their_median():
    (merged,) = checks.one_each(nets(1.0, 1.5, 1.1, same=True))
    assert merged.timing == Timing(1.1, 0.5, 3)


def test_a_space_the_profile_never_saw(null):
    seen = replace(null, device="phone", nets=tuple(nets(1.0, 2.0)))
    assert len(checks.nets_of(seen, "s")) == 2
    with pytest.raises(BadProfile, match="'phone' never saw space tiny, only s; time some .*--timings 10"):
        checks.nets_of(seen, "tiny")
    with pytest.raises(BadProfile, match="holds no timing of a network"):
        checks.nets_of(replace(null, nets=()), "tiny")


@pytest.mark.parametrize("text", [b'{"a": 1, "a": 2}', b'{"b": {"a": 1, "c": 0, "a": 1}}', b'[{"a": {}, "a": {}}]'])
def test_json_that_names_something_twice(text):
    with pytest.raises(BadProfile, match="profile x names 'a' twice; keep the right one"):
        checks.refuse_repeated_keys(text, "profile x")


@pytest.mark.parametrize("text", [b'{"a": {"a": 1}}', b"{", b"[" * 100_000, b"\xff"])
def test_other_json_is_left_to_its_reader(text):
    assert checks.refuse_repeated_keys(text, "profile x") is None  # type: ignore[func-returns-value]


def timed(tiny, *, per_mmac_ms: float, per_op_ms: float) -> list[checks.Work]:
    """Networks on a device of so many ms per million multiply-accumulates and per operator."""
    archs = [tiny.arch([{"width": w, "depth": d}] * 2) for w in (4, 8) for d in (1, 2)]
    ops = [tiny.ops(arch) for arch in archs]
    return [(each, per_mmac_ms * sum(op.macs for op in each) / 1e6 + per_op_ms * len(each)) for each in ops]


def test_units_that_are_wrong_everywhere_show_beside_the_work(tiny):
    """A phone, and a server's core whose time is all launches; seconds, then microseconds, in place of milliseconds."""
    assert checks.check_unit(timed(tiny, per_mmac_ms=1.0, per_op_ms=0.02), "x") == ()
    assert checks.check_unit(timed(tiny, per_mmac_ms=0.01, per_op_ms=0.002), "x") == ()
    with pytest.raises(BadProfile, match="x: .* is faster than any device; are these seconds?"):
        checks.check_unit(timed(tiny, per_mmac_ms=1e-5, per_op_ms=2e-6), "x")
    with pytest.raises(BadProfile, match="x: .* is slower than any device; are these microseconds?"):
        checks.check_unit(timed(tiny, per_mmac_ms=1000.0, per_op_ms=20.0), "x")


def test_times_that_some_device_could_have_but_none_known_has_are_doubted(tiny):
    (doubt,) = checks.check_unit(timed(tiny, per_mmac_ms=10.0, per_op_ms=0.5), "x")
    assert "slower than every device known; microseconds" in doubt
    huge = [(ops * 1000, ms * 1000) for ops, ms in timed(tiny, per_mmac_ms=2e-5, per_op_ms=1.1e-4)]
    assert checks.check_unit(huge, "x") == ()  # small operators are all launch: their work tells nothing
    wide = [(SPACES["edge"]().ops(LANDMARKS["conv4-64"](SPACES["edge"]())), 0.005)]
    (doubt,) = checks.check_unit(wide, "x")
    assert "faster than every device known; seconds" in doubt


def test_a_batch_is_so_much_more_work(tiny):
    at_once = timed(tiny, per_mmac_ms=200.0, per_op_ms=0.02)
    assert checks.check_unit(at_once, "x", batch=1024) == ()
    assert checks.check_unit(at_once, "x") != ()


def test_clocks_that_are_coarse_are_told():
    assert checks.clock_doubts([1.0, 2.0, 4.0]) == ("whole milliseconds: 3 distinct values in 3",)
    assert checks.clock_doubts([1.5, 2.25] * 100) == ("a coarse clock: 2 distinct values in 200",)
    assert checks.clock_doubts([0.1 * i + 0.03 for i in range(50)]) == ()
