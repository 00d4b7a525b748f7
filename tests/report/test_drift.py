import math
import re

import pytest

from edgemeta.report import drift

RISING = [(float(at), 2.0 + 0.01 * at) for at in range(101)]  # 2 to 3 ms, 2.5 in the middle


def test_the_band_holds_eight_in_ten():
    found = drift.band(RISING)
    assert found == (pytest.approx(2.5), pytest.approx(2.1 / 2.5), pytest.approx(2.9 / 2.5))
    assert sum(found.low_ratio <= ms / 2.5 <= found.high_ratio for _, ms in RISING) == pytest.approx(81, abs=1)


def test_odd_moments_are_left_out_and_order_is_restored():
    odd = [(math.nan, 1.0), (4.0, math.inf), (5.0, 0.0), (6.0, -1.0)]
    assert drift.usable([*RISING[::-1], *odd]) == RISING


@pytest.mark.parametrize("few", [(), RISING[:2], [(3.0, 1.0)] * 5], ids=["none", "two", "one moment"])
def test_too_little_for_a_line_is_no_line(few):
    assert (drift.usable(few) == []) == (len({at for at, _ in few}) < 3)


@pytest.mark.parametrize("width", [940, 330])
def test_the_line_stands_inside_the_picture_and_starts_at_zero(width):
    drawn = drift.line(RISING, width=width)
    (path,) = re.findall(r'points="([^"]+)" class="course"', drawn)
    across, up = zip(*(map(float, pair.split(",")) for pair in path.split()), strict=True)
    assert across[0] == 52 and max(across) <= width and min(up) >= 0
    assert across == tuple(sorted(across)) and up == tuple(sorted(up, reverse=True))  # slower is higher
    assert ">−20<" in drawn and ">+20<" in drawn and ">0<" in drawn


def test_a_machine_that_never_moved_still_has_a_scale():
    assert "nan" not in drift.line([(float(at), 1.5) for at in range(5)], width=600)
