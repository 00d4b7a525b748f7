"""DARTS: an architecture by gradients, then what fits the caps near it."""

from __future__ import annotations

from edgemeta.data.episode import Pool
from edgemeta.nets.relaxed import Alpha
from edgemeta.search.bilevel import Bilevel, Learned, learn
from edgemeta.search.by_gradient import ByGradient, Penalty
from edgemeta.search.problem import Problem
from edgemeta.space.space import Space


class Darts(ByGradient[Learned]):
    """DARTS (Liu 2019, arXiv:1806.09055) of few-shot tasks, for the spaces of `nets.relaxed`.

    Weights learn on tasks of one half of the training classes, architecture logits on tasks of the other, both on the
    class-mean loss of Prototypical Networks. The expected latency is in the logits' loss alone.
    """

    def __init__(self, space: Space, *, seed: int, problem: Problem, settings: Bilevel | None = None):
        self._settings = settings or Bilevel()
        super().__init__(space, seed=seed, problem=problem, shape=self._settings)

    def _learned(self, pool: Pool, penalty: Penalty | None) -> tuple[Learned, Alpha]:
        learned = learn(self._relaxed, pool, self._settings, seed=self._seed, penalty=penalty)
        return learned, learned.alpha
