"""The hypervolume, against volumes by hand and by throwing darts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.errors import BadConfig
from edgemeta.report.pareto import hypervolume, hypervolumes
from edgemeta.types import Arch, Cost, Trial

NAN = math.nan


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], (0.0, 1.0), 0.0),
        ([(3.0, 2.0)], (1.0, 5.0), 6.0),  # 2 x 3
        ([(3.0, 2.0), (2.0, 1.0)], (1.0, 5.0), 7.0),  # and 1 x 1 beside it
        ([(3.0, 2.0), (3.0, 2.0), (2.0, 3.0)], (1.0, 5.0), 6.0),  # the same again, and a beaten one
        ([(1.0, 2.0), (3.0, 5.0), (NAN, 1.0), (9.0, NAN), (9.0, math.inf)], (1.0, 5.0), 0.0),  # none is inside
        ([(2.0, 1.0, 2.0), (1.0, 2.0, 1.0)], (0.0, 3.0, 3.0), 5.0),  # 2x2x1 + 1x1x2 - 1x1x1
        ([(1.0, 1.0, 1.0, 1.0)], (0.0, 3.0, 4.0, 5.0), 24.0),  # 1 x 2 x 3 x 4
        ([(2.0, 0.0, 0.0, 0.0), (1.0, 0.0, -1.0, 0.0)], (0.0, 1.0, 1.0, 1.0), 3.0),  # 2x1x1x1 + 1x1x2x1 - 1
    ],
)
def test_by_hand(points, reference, volume):
    assert hypervolume(points, reference) == pytest.approx(volume)


@pytest.mark.parametrize("numbers", [2, 3, 4])
def test_as_many_darts_hit_as_the_volume_says(numbers):
    """Costs and scores in a unit cube: the share of 100,000 darts that some point dominates."""
    rng = np.random.default_rng(numbers)
    points = rng.uniform(size=(12, numbers))
    darts = rng.uniform(size=(100_000, numbers))
    turned = np.array([-1.0] + [1.0] * (numbers - 1))  # all to be small
    hit = np.zeros(len(darts), bool)
    for point in points:
        hit |= np.all(point * turned <= darts * turned, axis=1)
    spread = math.sqrt(hit.mean() * (1 - hit.mean()) / len(darts))
    found = hypervolume([tuple(map(float, point)) for point in points], (0.0, *[1.0] * (numbers - 1)))
    assert found == pytest.approx(hit.mean(), abs=4 * spread)


GRID = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(GRID, GRID, GRID), max_size=8), st.randoms(use_true_random=False))
def test_neither_order_nor_beaten_points_matter(points, rng):
    corner, worse = (0.0, 6.0, 6.0), [(score - 1, a + 0.5, b) for score, a, b in points]
    shuffled = points + worse
    rng.shuffle(shuffled)
    assert hypervolume(shuffled, corner) == pytest.approx(hypervolume(points, corner))


def test_points_of_other_lengths_are_refused():
    with pytest.raises(BadConfig, match=r"points of 2 to 4 numbers, as many as \(0.0, 1.0\) has"):
        hypervolume([(1.0, 0.5, 0.5)], (0.0, 1.0))


def some(score, *costs):
    status = "failed: loss is nan" if score is None else "ok"
    return Trial(Arch("tiny", (0,)), Cost(*costs), score, None, 60, 0, 1.0, "random", status)


def test_after_each_trial_it_is_that_of_all_so_far():
    rng = np.random.default_rng(0)
    trials = [some(*map(float, rng.uniform(size=4))) for _ in range(30)]
    trials[3:3] = [some(None, 0.1, 0.1, 0.1), replace(trials[0], score=NAN)]
    volumes = hypervolumes(trials, Cost(1.0, 1.0, 1.0), score=0.2)
    for count in range(1, len(trials) + 1):
        points = [(t.score, t.cost.latency_ms, t.cost.ram_kib, t.cost.flash_kib) for t in trials[:count] if t.score]
        assert volumes[count - 1] == pytest.approx(hypervolume(points, (0.2, 1.0, 1.0, 1.0)))
    assert volumes == sorted(volumes)


def test_only_what_the_reference_caps_counts():
    trials = [some(0.5, 2.0, 900.0, 900.0), some(0.75, 3.0)]
    assert hypervolumes(trials, Cost(latency_ms=4.0)) == pytest.approx([1.0, 1.25])
    with pytest.raises(BadConfig, match="one to three finite costs to refer to, not no cap"):
        hypervolumes(trials, Cost())
