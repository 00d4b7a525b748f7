"""Uniform random search: the baseline every other searcher has to beat."""

from __future__ import annotations

from random import Random

from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial


class RandomSearch:
    """Draws every slot uniformly and learns nothing."""

    def __init__(self, space: Space, *, seed: int):
        self._space = space
        self._rng = Random(seed)

    def ask(self) -> Arch:
        return self._space.sample(rng=self._rng)

    def tell(self, trial: Trial) -> None:
        """Random search needs no memory."""
