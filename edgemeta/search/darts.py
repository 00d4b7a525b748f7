"""DARTS: an architecture by gradients, then what fits the caps near it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random
from typing import Generic, TypeVar

import torch
from torch import Tensor

from edgemeta.errors import BadConfig
from edgemeta.nets.relaxed import Alpha, Relaxed, relax
from edgemeta.search.bilevel import Bilevel, Learned, learn
from edgemeta.search.expected import Expected, fit
from edgemeta.search.feasible import require_feasible
from edgemeta.search.jobs import data_pool
from edgemeta.search.probable import ranking
from edgemeta.search.problem import Problem
from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial

Penalty = Callable[[Alpha], Tensor]  # logits -> () what they add to the loss
L = TypeVar("L")


@dataclass(frozen=True)
class Found(Generic[L]):
    """What the gradients found, before and after the caps were held against it."""

    learned: L
    expected: Expected | None  # None where latency has no cap
    derived: Arch
    first: Arch  # `derived`, repaired


def pulled(
    relaxed: Relaxed, problem: Problem, weight: float, *, seed: int
) -> tuple[Expected, Penalty] | tuple[None, None]:
    """The latency to expect of logits, and `weight` * log(it / cap) as a loss of theirs; None where there is no cap."""
    if problem.cap.latency_ms == math.inf:
        return None, None
    rng = torch.Generator().manual_seed(seed)
    expected = fit(relaxed, lambda arch: problem.bound(arch).latency_ms, rng=rng)
    return expected, lambda alpha: weight * (expected.latency_ms(alpha) / problem.cap.latency_ms).log()


class Darts:
    """DARTS (Liu 2019, arXiv:1806.09055) of few-shot tasks, for the spaces of `nets.relaxed`.

    The first `ask` trains the relaxation: weights on tasks of one half of the training classes, architecture logits
    on tasks of the other, both on the class-mean loss of Prototypical Networks. Where latency has a cap, the logits'
    loss has `latency` * log(expected latency / cap) beside it: expected are the upper ends of the intervals, which are
    what must fit. The first architecture is the derived one, repaired to the caps; then come the most probable
    feasible ones near it, none of them twice, and the first again when they are spent.

    Equal arguments propose equal architectures, so a search that was stopped trains once more and goes on as it would
    have. Nothing is learned from scores.
    """

    def __init__(self, space: Space, *, seed: int, problem: Problem, settings: Bilevel | None = None):
        settings = settings or Bilevel()
        if problem.space != space:
            raise BadConfig(f"the problem is of space {problem.space.name}, not {space.name}; give both the same")
        self._problem, self._seed, self._settings = problem, seed, settings
        shape = {"width": settings.width, "depth": settings.depth, "stride": settings.stride}
        self._relaxed = relax(space, **shape, none=settings.none)
        self._proposals: Iterator[Arch] | None = None
        self.found: Found[Learned] | None = None  # None before the first `ask`

    def ask(self) -> Arch:
        if self._proposals is None:
            self.found, self._proposals = self._search()
        return next(self._proposals)

    def tell(self, trial: Trial) -> None:
        """DARTS does not learn from scores."""

    def _search(self) -> tuple[Found[Learned], Iterator[Arch]]:
        problem, rng = self._problem, Random(self._seed)
        require_feasible(problem.space, problem.bound, problem.cap, rng=rng)  # before minutes of training
        expected, penalty = pulled(self._relaxed, problem, self._settings.latency, seed=self._seed)
        pool = data_pool(problem.data, "train")
        learned = learn(self._relaxed, pool, self._settings, seed=self._seed, penalty=penalty)
        derived = self._relaxed.derive(learned.alpha)
        ranked = ranking(self._relaxed, learned.alpha, problem.bound, problem.cap)
        first = ranked.repaired(derived, rng=rng)
        return Found(learned, expected, derived, first), chain(ranked.walk(first), repeat(first))
