"""Ageing evolution: it climbs, and it forgets the old."""

from random import Random

from edgemeta.search.evolution import Evolution
from edgemeta.space.moves import neighbours
from tests.search.test_contract import drive, score, trial


def test_climbs_past_random_sampling(tiny):
    late = drive(Evolution(tiny, seed=0), 120, score)[-30:]
    rng = Random(0)
    chance = [score(tiny.sample(rng=rng)) for _ in range(200)]
    assert min(map(score, late)) > sum(chance) / len(chance)


def test_after_the_population_is_full_a_proposal_is_a_mutated_member(tiny):
    searcher = Evolution(tiny, seed=0, population=5, tournament=5)
    members = drive(searcher, 5, score)
    best = [arch for arch in members if score(arch) == max(map(score, members))]
    proposal = searcher.ask()
    assert any(proposal in neighbours(arch, tiny) for arch in best)


def test_the_oldest_dies_however_good(tiny):
    searcher = Evolution(tiny, seed=0, population=3, tournament=3)
    champion, *others = (tiny.sample(rng=Random(i)) for i in range(4))
    searcher.tell(trial(champion, 1.0))
    for arch in others:
        searcher.tell(trial(arch, 0.1))
    assert searcher.ask() not in neighbours(champion, tiny)
