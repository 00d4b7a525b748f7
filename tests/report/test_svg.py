import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgemeta.report.svg import Scale, span, tag


def test_tags_escape_children_and_attributes():
    made = tag("g", tag("circle", r=1.23456), "<b>", data_tip='"><script>', class_="dot", skipped=None)
    assert made == '<g data-tip="&#34;&gt;&lt;script&gt;" class="dot"><circle r="1.23"/>&lt;b&gt;</g>'


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e5), st.booleans(), st.integers(2, 9))
def test_ticks_are_few_round_and_inside(low, ratio, log, count):
    scale = Scale(low, low * ratio, 0, 500, log)
    ticks = scale.ticks(count)
    assert len(ticks) <= max(count + 1, 7)
    assert ticks == sorted(set(ticks))
    room = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)


def test_a_short_axis_has_more_than_one_tick():
    assert Scale(0.02, 0.095, 0, 260).ticks(3) == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert Scale(0.9, 1.9, 0, 100).ticks(1) == pytest.approx([1.0, 1.5])


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.booleans())
def test_span_leaves_room_on_both_sides(values, log):
    low, high = span(values, log=log)
    assert low < min(values) and max(values) < high
    assert Scale(low, high, 10, 90, log)(low) == pytest.approx(10)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_log_scale_shows_equal_ratios_as_equal_lengths(a, b):
    assume(abs(math.log(a / b)) > 0.01)
    scale = Scale(0.01, 100, 0, 400, True)
    assert scale(2 * a) - scale(a) == pytest.approx(scale(2 * b) - scale(b))
