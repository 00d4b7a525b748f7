"""What every searcher of the registry must keep to. A new row joins by itself."""

from random import Random

import pytest

from edgemeta.search import SEARCHERS
from edgemeta.types import Cost, Trial


@pytest.fixture(params=SEARCHERS.values(), ids=SEARCHERS)
def make(request):
    return request.param


def trial(arch, score, status="ok"):
    return Trial(arch, Cost(1.0, 1.0, 1.0), score, 0.01, 60, 0, 1.0, "test", status)


def drive(searcher, rounds, score):
    """Ask and tell; the architectures asked for."""
    asked = []
    for _ in range(rounds):
        asked.append(searcher.ask())
        searcher.tell(trial(asked[-1], score(asked[-1])))
    return asked


def score(arch):
    """A landscape with one hill: the higher each pick, the better."""
    return sum(arch.picks) / (len(arch.picks) * 4)


def test_seed_decides(make, tiny):
    assert drive(make(tiny, seed=3), 30, score) == drive(make(tiny, seed=3), 30, score)
    assert drive(make(tiny, seed=3), 30, score) != drive(make(tiny, seed=4), 30, score)


def test_proposals_are_of_the_space(make, tiny):
    for arch in drive(make(tiny, seed=0), 60, score):
        assert tiny.ops(arch)


def test_infeasible_and_failed_trials_are_taken(make, tiny):
    searcher = make(tiny, seed=0)
    for _ in range(20):
        searcher.tell(trial(searcher.ask(), None, "infeasible"))
        searcher.tell(trial(searcher.ask(), None, "failed: loss is nan"))
    assert tiny.ops(searcher.ask())


def test_trials_it_never_asked_for_are_taken(make, tiny):
    """A ledger of another search is replayed through `tell`."""
    searcher, rng = make(tiny, seed=0), Random(1)
    for _ in range(40):
        arch = tiny.sample(rng=rng)
        searcher.tell(trial(arch, score(arch)))
    assert tiny.ops(searcher.ask())


def test_several_asks_before_a_tell(make, tiny):
    searcher = make(tiny, seed=0)
    asked = [searcher.ask() for _ in range(25)]
    for arch in asked:
        searcher.tell(trial(arch, score(arch)))
    assert tiny.ops(searcher.ask())
