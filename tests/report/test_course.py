"""The course of a search: hypervolume against trainings, one stair for each searcher."""

import math
import re
from dataclasses import replace

import pytest

from edgemeta.report import course
from edgemeta.types import Arch, Cost, Trial

CAP = Cost(latency_ms=2.0)


def _trial(searcher, score, latency_ms, status="ok"):
    cost = Cost(latency_ms=latency_ms, ram_kib=8.0, flash_kib=8.0)
    return Trial(Arch("tiny", (0,)), cost, score, None, 1, 0, 0.0, searcher, status, "null", CAP)


SLOW = [_trial("random", score, 1.0) for score in (0.1, 0.2, 0.1, 0.4)]
FAST = [_trial("evolution", score, 1.0) for score in (0.2, 0.8, 0.3)]


def test_shares_are_of_the_largest_volume_of_all_searchers():
    mixed = [SLOW[0], FAST[0], *SLOW[1:], *FAST[1:]]
    found = course.courses(mixed, CAP)
    assert found["random"] == pytest.approx([0.125, 0.25, 0.25, 0.5])
    assert found["evolution"] == pytest.approx([0.25, 1.0, 1.0])


@pytest.mark.parametrize("odd", [_trial("random", None, 9.0, "infeasible"), _trial("random", math.nan, 1.0, "failed")])
def test_what_was_not_trained_takes_no_step(odd):
    assert course.courses([SLOW[0], odd, *SLOW[1:]], CAP) == course.courses(SLOW, CAP)


def test_two_trainings_and_networks_over_the_cap_have_no_course():
    assert course.courses(SLOW[:2], CAP) == {}
    assert course.courses([replace(t, cost=Cost(latency_ms=3.0)) for t in SLOW], CAP) == {}


def test_without_a_cap_the_slowest_network_takes_its_place():
    trials = [_trial("random", 0.5, latency_ms) for latency_ms in (3.0, 2.0, 1.0)]
    found = course.courses(trials, Cost())["random"]
    assert found[-1] == 1.0 and found[0] < 0.01 and found[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("width", [330, 940])
def test_every_searcher_has_a_stair_inside_the_drawing(width):
    found = course.courses(SLOW + FAST, CAP)
    drawn = course.lines(found, width=width)
    stairs = re.findall(r'<polyline points="([^"]+)" class="curve', drawn)
    assert len(stairs) == len(course.legend(found)) == 2
    across = [float(corner.split(",")[0]) for stair in stairs for corner in stair.split()]
    assert 0 < min(across) <= max(across) < width
