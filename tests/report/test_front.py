import math
import re
from dataclasses import replace

from edgemeta.report import front
from edgemeta.types import Arch, Cost, Trial
from tests.report.story_example import example

CAP = Cost(1.0, 100.0, 100.0)


def trial(pick: int, ms: float, score: float | None, fidelity: int = 10, status: str = "ok") -> Trial:
    return Trial(Arch("tiny", (pick,)), Cost(ms, 10.0, 10.0), score, 0.01, fidelity, 0, 1.0, "random", status)


def test_only_the_longest_training_of_an_architecture_counts():
    ran = [trial(0, 0.5, 0.9, 30), trial(0, 0.5, 0.95, 10), trial(1, 0.4, 0.7)]
    assert [(t.arch.picks, t.fidelity) for t in front.finished(ran)] == [((0,), 30), ((1,), 10)]
    assert [t.score for t in front.front_of(ran)] == [0.7, 0.9]


def test_front_marks_the_chosen_the_cap_and_the_untrained():
    over = replace(trial(2, 5.0, None, 0, "infeasible"), cost=Cost(5.0, 300.0, 10.0))
    ran = [trial(0, 0.5, 0.9), trial(1, 0.4, 0.7), over, trial(3, 0.3, None, 5, "failed: NaN")]
    winner = replace(example().winner, arch=ran[0].arch)
    drawn = front.front(ran, CAP, winner, width=600)
    assert drawn.count('class="ring"') == 1 and "cap 1 ms" in drawn
    assert "over the cap of latency and RAM" in drawn and drawn.count('class="failed"') == 1
    assert len(re.findall(r'class="dot f\d', drawn)) == 2 and drawn.count(" first") == 1


def test_odd_numbers_are_left_out_not_drawn():
    ran = [
        trial(0, 0.5, 0.9),
        trial(1, math.nan, 0.8),
        trial(2, 0.5, math.nan),
        trial(3, math.inf, None, 0, "infeasible"),
    ]
    drawn = front.front(ran, Cost(), None, width=600)
    assert '="nan"' not in drawn and ",nan" not in drawn and len(re.findall(r'class="dot f\d"', drawn)) == 1
