"""MetaQNN: its table, its schedule and its memory."""

from itertools import pairwise
from random import Random

import pytest

from edgemeta.search.metaqnn import SCHEDULE, MetaQNN
from edgemeta.types import Arch
from tests.search.landscapes import drive, hill, trial


def test_epsilon_falls_over_the_unique_networks_as_in_the_paper(tiny):
    searcher = MetaQNN(tiny, seed=0, trials=27, replays=1)
    seen = []
    while len(seen) < 40:
        seen.append(searcher.epsilon)
        known = len(searcher._rewards)
        while len(searcher._rewards) == known:
            drive(searcher, 1, hill)
    assert seen[:15] == [1.0] * 15 and seen[15:19] == [0.9, 0.8, 0.7, 0.6]
    assert all(a >= b for a, b in pairwise(seen)) and set(seen[27:]) == {SCHEDULE[-1][0]}


def test_what_is_not_trained_uses_up_no_exploration(tiny):
    searcher, rng = MetaQNN(tiny, seed=0, trials=10, replays=1), Random(0)
    for _ in range(60):
        searcher.tell(trial(tiny.sample(rng=rng), None, "infeasible"))
    assert searcher.epsilon == 1.0


def test_the_update_is_that_of_the_paper_from_the_last_choice_back(tiny):
    """One trial, one pass: the last value moves to the reward, the others to the best of what follows."""
    searcher = MetaQNN(tiny, seed=0, rate=0.5, start=0.4, replays=0)
    arch = Arch(tiny.name, (0,) * len(tiny.slots))
    searcher.tell(trial(arch, 0.8))
    last = len(tiny.slots) - 1
    values = [searcher._values[slot, 0 if slot else -1][0] for slot in range(last + 1)]
    expected = [0.6]
    for _ in range(last):
        expected.append(0.5 * 0.4 + 0.5 * max(expected[-1], 0.4))
    assert values == pytest.approx(expected[::-1])


def test_without_chance_it_picks_the_best_it_knows(tiny):
    searcher = MetaQNN(tiny, seed=0, trials=1, replays=200, start=0.0, tries=1)
    best = Arch(tiny.name, tuple(len(options) - 1 for _, options in tiny.slots))
    searcher.tell(trial(best, 0.9))
    asked = [searcher.ask() for _ in range(60)]
    greedy = 0.9 ** len(tiny.slots)  # and a random choice may be the same
    assert sum(arch == best for arch in asked) > 60 * greedy * 0.6


def test_what_is_infeasible_is_worth_nothing_and_what_is_trained_later_is(tiny):
    searcher = MetaQNN(tiny, seed=0)
    arch = tiny.arch([{}, {}])
    searcher.tell(trial(arch, None, "infeasible"))
    assert searcher._rewards == {arch: 0.0}
    searcher.tell(trial(arch, 0.7))
    searcher.tell(trial(arch, 0.9))  # longer training
    assert searcher._rewards == {arch: 0.7}
