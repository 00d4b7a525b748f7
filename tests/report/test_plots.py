import re

import pytest

from edgemeta.report import front, plots
from edgemeta.report.story import Score
from tests.report.story_example import example


@pytest.mark.parametrize("width", [940, 330])
def test_nothing_is_drawn_outside_the_picture(width):
    story = example()
    for drawn in (
        front.front(story.trials, story.budget, story.winner, width=width),
        plots.shots(story.scores, width=width),
    ):
        across = [float(x) for x in re.findall(r'\b(?:c?x[12]?)="(-?[\d.]+)"', drawn)]
        assert across and min(across) >= 0 and max(across) <= width


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


@pytest.mark.parametrize(
    ("value", "words"), [(12.34, "+12.3"), (-0.06, "−0.1"), (-0.04, "0.0"), (0.0, "0.0"), (float("nan"), "+nan")]
)
def test_signs_are_real_and_zero_has_none(value, words):
    assert plots.signed(value, ".1f") == words
