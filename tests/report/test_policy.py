"""The picture of what the meta-learned searcher decides where."""

import re

import pytest

from edgemeta.report import policy
from edgemeta.report.story import Policy, Story

DECISIONS = tuple((f"stage{i}.width", ("8", "16", "32")) for i in range(8))
CHANGES = (0.0, 0.5, 0.1, 0.4, 0.2, 0.3, 0.05, 0.6)
TIGHT, LOOSE = (0.8, 0.15, 0.05), (0.1, 0.2, 0.7)
POLICY = Policy(DECISIONS, {"budget": CHANGES, "device": CHANGES, "task": CHANGES}, (0.02, 0.4), (TIGHT * 8, LOOSE * 8))


def test_decisions_that_the_budget_changes_most_are_shown_in_order():
    shown = policy.strongest(POLICY)
    assert [decision.name for decision in shown] == [f"stage{i}.width" for i in (1, 2, 3, 4, 5, 7)]
    assert shown[0].shares == (TIGHT, LOOSE)


@pytest.mark.parametrize("width", [330, 940])
def test_stacks_are_as_high_as_options_are_likely_and_stay_inside(width):
    drawn = policy.bars(POLICY, width=width)
    total = float(re.search(r'viewBox="0 0 \S+ (\S+)"', drawn)[1])
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn)
    bars = [tuple(map(float, bar)) for bar in found]
    assert len(bars) == policy.SHOWN * 2 * 3
    assert all(x >= 0 and x + wide <= width and y > 0 and y + high <= total for x, y, wide, high in bars)
    heights = [high for *_, high in bars[:3]]
    assert heights == pytest.approx([policy.BARS * share - 1 for share in TIGHT], abs=0.51)


def test_it_survives_being_saved():
    story = Story(policy=POLICY)
    assert Story.from_dict(story.to_dict()) == story
