"""Ageing evolution: tournament, one mutation, and the oldest dies whatever its score."""

from __future__ import annotations

from collections import deque
from random import Random

from edgemeta.space.moves import mutate
from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial


class Evolution:
    """Regularised evolution (Real 2019, arXiv:1802.01548, algorithm 1) with the sizes scaled to tens of trials.

    Only an architecture's first score counts: longer training of a few must not decide tournaments among all.
    """

    def __init__(self, space: Space, *, seed: int, population: int = 12, tournament: int = 4):
        self._space = space
        self._rng = Random(seed)
        self._tournament = tournament
        self._population: deque[Arch] = deque(maxlen=population)
        self._scores: dict[Arch, float] = {}

    def ask(self) -> Arch:
        """A random architecture until the population is full, then a mutated winner of a tournament."""
        if len(self._population) < (self._population.maxlen or 0):
            return self._space.sample(rng=self._rng)
        rivals = self._rng.sample(list(self._population), self._tournament)
        return mutate(max(rivals, key=self._scores.__getitem__), self._space, rng=self._rng)

    def tell(self, trial: Trial) -> None:
        if trial.score is not None and trial.arch not in self._scores:
            self._population.append(trial.arch)
            self._scores[trial.arch] = trial.score
