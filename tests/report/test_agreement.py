import math
import re

import pytest

from edgemeta.contracts import Latency
from edgemeta.report import agreement
from edgemeta.report.agreement import KindError, Tally
from edgemeta.report.story import Check
from tests.report.story_example import example


def check(predicted: float, measured: float = 1.0, *, width: float = 0.1, group: str = "profile", **shares) -> Check:
    spread = Latency(predicted, predicted * (1 - width), predicted * (1 + width))
    return Check("space:1.2", group, spread, measured, shares)


@pytest.mark.parametrize("width", [940, 520, 330])
@pytest.mark.parametrize("draw", [agreement.agreement, agreement.errors])
def test_nothing_is_drawn_outside_the_picture(draw, width):
    across = [float(x) for x in re.findall(r'\b(?:c?x[12]?)="(-?[\d.]+)"', draw(example().checks, width=width))]
    assert across and min(across) >= 0 and max(across) <= width


def test_only_positive_finite_times_are_used():
    assert agreement.usable([check(1.0), check(0.0), check(math.nan), check(1.0, math.inf)]) == [check(1.0)]


def test_a_tally_counts_the_band_and_the_intervals_of_each_group():
    own = [check(0.89), check(0.91), check(1.09), check(1.11, width=0.2)]
    later = [check(1.2, width=0.0, group="search")]
    first, second = agreement.tallies([*later, *own])
    assert first == Tally("network of the profile", 4, 0.75, 0.5, pytest.approx(0.1))
    assert second == Tally("bundle measured after the search", 1, None, 0.0, pytest.approx(0.2))


def test_errors_go_to_the_kinds_that_take_the_time():
    checks = [check(1.2, dense=0.75, gap=0.25), check(0.9, dense=0.25, gap=0.75), check(5.0)]
    assert agreement.by_kind(checks) == [
        KindError("convolution", 0.5, pytest.approx(0.175), pytest.approx(0.125)),
        KindError("global average pool", 0.5, pytest.approx(0.125), pytest.approx(-0.025)),
        KindError("all kinds together", 1.0, pytest.approx(0.15), pytest.approx(0.05)),
    ]


def test_without_shares_there_are_no_kinds():
    assert agreement.by_kind([check(1.1), check(0.9, dense=0.0), check(1.0, dense=math.nan)]) == []


@pytest.mark.parametrize("draw", [agreement.agreement, agreement.errors])
def test_every_interval_is_a_bar_and_what_it_missed_is_marked(draw):
    drawn = draw([check(1.0), check(1.05), check(1.3), check(1.0, width=0.0)], width=600)
    assert drawn.count('class="whisker"') == 2 and drawn.count('class="whisker out"') == 1
    assert drawn.count('class="dot s0"') == 3 and drawn.count('class="dot s0 out"') == 1
    assert drawn.count("outside the interval") == 1 and "off by +30.0 %" in drawn


def test_a_bar_reaches_the_line_where_the_timing_fell_into_it():
    drawn = agreement.errors([check(1.08), check(1.3, 1.1)], width=600)
    (line,) = re.findall(r'y1="([\d.]+)" y2="[\d.]+" class="equal"', drawn)
    bars = re.findall(r'y1="([\d.]+)" y2="([\d.]+)" class="whisker(| out)"', drawn)
    assert [(float(high) <= float(line) <= float(low), out) for low, high, out in bars] == [(True, ""), (False, " out")]


def test_legend_names_only_what_is_drawn():
    def labels(checks):
        return [entry.label for entry in agreement.legend(checks)]

    assert labels([check(1.0)]) == ["network of the profile", "90 % interval", "within ±10 %"]
    assert "measured outside it" in labels([check(1.0), check(1.3, group="search")])
    assert "90 % interval" not in labels([check(1.0, width=0.0)])


def test_many_networks_are_thinned_evenly_and_bundles_are_kept():
    own = [check(1.0, 1 + 0.01 * at) for at in range(1000)]
    later = [check(1.0, 1 + at, group="search") for at in range(3)]
    kept = agreement.thinned([*own, *later])
    times = [c.measured_ms for c in kept if c.group == "profile"]
    assert len(times) <= agreement.DRAWN and times[0] == 1.0 and times[-1] > 10.9
    assert [c for c in kept if c.group == "search"] == later
