"""Every search by gradients: seeds decide, every proposal fits, what cannot be searched is refused in a line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgemeta.errors import BadConfig, Diverged, Infeasible
from edgemeta.search import BY_GRADIENT, searcher
from edgemeta.search.bilevel import Bilevel
from edgemeta.search.joint import Joint
from edgemeta.types import Cost, Trial

JOINT = Joint(episodes=6, way=4, warmup_way=4, query=2, warmup=0.3, drawn=2, last_steps=2, width=2, depth=1, stride=1)
DARTS = Bilevel(episodes=8, way=4, warmup=0.3, width=2, depth=1)
QUICK = {"darts": DARTS, "darts2": replace(DARTS, order=2), "joint": JOINT}


@pytest.fixture(params=BY_GRADIENT)
def name(request):
    return request.param


@pytest.fixture
def make(name, celled, cells):
    """A quick searcher of cells, where nothing else is said."""

    def made(space=cells, seed=0, problem=celled, **settings):
        return BY_GRADIENT[name](space, seed=seed, problem=problem, settings=replace(QUICK[name], **settings))

    return made


def test_seeds_decide_and_every_proposal_is_new_and_fits(make, name, celled, cells):
    one, same, other = make(seed=3), make(seed=3), make(seed=4)
    asked = [one.ask() for _ in range(8)]
    assert [same.ask() for _ in range(8)] == asked != [other.ask() for _ in range(8)]
    assert len({cells.ops(arch) for arch in asked}) == 8
    assert all(celled.bound(arch).fits(celled.cap) for arch in asked)
    assert asked[0] == one.found.first and one.found.expected.r2 > 0.5
    assert one.found.learned.episodes >= QUICK[name].episodes
    one.tell(Trial(asked[0], Cost(1.0), 0.5, 0.01, 60, 0, 1.0, name, "ok"))
    one.tell(Trial(asked[1], Cost(1.0), None, None, 0, 0, 0.0, name, "infeasible"))
    assert one.ask() == same.ask()


def test_a_run_makes_it_with_its_own_settings(name, celled):
    assert searcher(name, celled, seed=0, trials=9).found is None


def test_what_cannot_be_searched_is_refused_in_a_line(make, name, celled, problem, tiny):
    with pytest.raises(BadConfig, match="tiny-1x12x12 has no cells to be relaxed; search darts or nb201"):
        BY_GRADIENT[name](tiny, seed=0, problem=problem)
    with pytest.raises(BadConfig, match="the problem is of space nb201-1x12x12, not tiny"):
        make(tiny)
    with pytest.raises(Infeasible, match="least found is latency"):
        make(problem=replace(celled, cap=Cost(latency_ms=1e-6))).ask()
    with pytest.raises(Diverged, match=f"{name.rstrip('2')}: loss is nan after .* lower lr"):
        make(lr=1e30).ask()
