"""What every searcher of the registry must keep to. A new row joins by itself."""

from random import Random

import pytest

from edgemeta.search import SEARCHERS
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Cost
from tests.search.landscapes import LANDSCAPES, best_found, drive, trial
from tests.search.landscapes import hill as score

SLOW = ("enas", "gp")  # those that fit something at every trial: fewer of them, in the slow tests alone
LEARNING = [name for name in SEARCHERS if name != "random"]


@pytest.fixture(params=SEARCHERS.values(), ids=SEARCHERS)
def make(request):
    return request.param


def small(*widths):
    """A space of two architectures for each width, or of one where there is one width."""
    down = {} if len(widths) > 1 else {"down": ("pool",)}
    return staged("small", (1, 8, 8), (Stage(depth=(1,), width=widths, kernel=(3,), kind=("conv",), **down),))


def test_seed_decides(make, tiny):
    assert drive(make(tiny, seed=3), 16, score) == drive(make(tiny, seed=3), 16, score)
    assert drive(make(tiny, seed=3), 16, score) != drive(make(tiny, seed=4), 16, score)


def test_proposals_are_of_the_space(make, tiny):
    for arch in drive(make(tiny, seed=0), 30, score):
        assert tiny.ops(arch)


def test_infeasible_and_failed_trials_are_taken(make, tiny):
    searcher, cap = make(tiny, seed=0), Cost(latency_ms=0.5)
    for _ in range(8):
        searcher.tell(trial(searcher.ask(), None, "infeasible", cap))
        searcher.tell(trial(searcher.ask(), None, "failed: loss is nan"))
    assert tiny.ops(searcher.ask())


def test_a_cost_that_nobody_measured_breaks_no_searcher(make, tiny):
    """Energy is infinite where there is none, and so is how far it is over a cap."""
    searcher = make(tiny, seed=0)
    for _ in range(12):
        searcher.tell(trial(searcher.ask(), None, "infeasible", Cost(energy_mj=3.0)))
    searcher.tell(trial(searcher.ask(), 0.5))
    assert tiny.ops(searcher.ask())


def test_trials_it_never_asked_for_are_taken(make, tiny):
    """A ledger of another search is replayed through `tell`."""
    searcher, rng = make(tiny, seed=0), Random(1)
    for _ in range(40):
        arch = tiny.sample(rng=rng)
        searcher.tell(trial(arch, score(arch)))
    assert tiny.ops(searcher.ask())


def test_the_same_trial_told_twice_is_taken(make, tiny):
    """As it is where a network is trained longer."""
    searcher = make(tiny, seed=0)
    for _ in range(6):
        arch = searcher.ask()
        searcher.tell(trial(arch, 0.3))
        searcher.tell(trial(arch, 0.6))
    assert tiny.ops(searcher.ask())


def test_several_asks_before_a_tell(make, tiny):
    searcher = make(tiny, seed=0)
    asked = [searcher.ask() for _ in range(14)]
    for arch in asked:
        searcher.tell(trial(arch, score(arch)))
    assert tiny.ops(searcher.ask())


@pytest.mark.parametrize(("widths", "size"), [((4, 8), 4), ((4,), 1)])
def test_asked_again_after_its_space_is_exhausted_it_repeats_itself(make, widths, size):
    space = small(*widths)
    assert space.size == size
    searcher = make(space, seed=0)
    for arch in drive(searcher, 20, lambda arch: 0.5 + sum(arch.picks) / 10):
        assert space.ops(arch)
    assert all(space.ops(searcher.ask()) for _ in range(5))


@pytest.mark.parametrize("landscape", LANDSCAPES)
@pytest.mark.parametrize("name", [name for name in LEARNING if name not in SLOW])
def test_sixty_trials_bring_more_than_by_chance(name, landscape):
    """Mean of the best over ten seeds."""
    assert best_found(SEARCHERS[name], landscape, 10) > best_found(SEARCHERS["random"], landscape, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seeds", "trials"), [("enas", 10, 60), ("gp", 3, 30)])
def test_few_trials_of_a_slow_one_bring_more_than_by_chance(name, seeds, trials):
    found = best_found(SEARCHERS[name], "additive-nb201", seeds, trials)
    assert found > best_found(SEARCHERS["random"], "additive-nb201", 10, trials)
