import math
import re

import pytest

from edgemeta.contracts import Latency
from edgemeta.report import front, plots
from edgemeta.report.story import Check, Score
from tests.report.story_example import example


@pytest.mark.parametrize("width", [940, 330])
def test_nothing_is_drawn_outside_the_picture(width):
    story = example()
    for drawn in (
        front.front(story.trials, story.budget, story.winner, width=width),
        plots.agreement(story.checks, width=width),
        plots.shots(story.scores, width=width),
    ):
        across = [float(x) for x in re.findall(r'\b(?:c?x[12]?)="(-?[\d.]+)"', drawn)]
        assert across and min(across) >= 0 and max(across) <= width


def test_hits_count_the_band():
    def check(predicted: float) -> Check:
        return Check("net", "profile", Latency(predicted, predicted, predicted), 1.0)

    assert plots.hits([check(0.89), check(0.91), check(1.09), check(1.11)]) == 2
    assert plots.usable([check(1.0), check(0.0), check(math.nan)]) == [check(1.0)]


def test_curves_never_mix_numbers_of_classes():
    scores = [
        Score("anil", "digits", way, shot, 0.8, 0.01, 100) for way, shot in ((5, 5), (5, 1), (20, 1), (20, 5), (5, 10))
    ]
    assert {key: [(s.way, s.shot) for s in curve] for key, curve in plots.curves(scores).items()} == {
        ("anil", "digits"): [(5, 1), (5, 5), (5, 10)]
    }


@pytest.mark.parametrize(("ms", "words"), [(0.18712, "0.187 ms"), (12.3456, "12.3 ms"), (0.00042, "0.42 µs")])
def test_milliseconds(ms, words):
    assert plots.milliseconds(ms) == words
