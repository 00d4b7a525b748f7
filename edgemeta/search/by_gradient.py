"""A searcher that trains a relaxation on its first question, then proposes what fits the caps near what came of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from random import Random
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from edgemeta.data.episode import Pool
from edgemeta.errors import BadConfig
from edgemeta.nets.relaxed import Alpha, Relaxed, relax
from edgemeta.search.expected import Expected, fit
from edgemeta.search.feasible import require_feasible
from edgemeta.search.jobs import data_pool
from edgemeta.search.probable import Ranking, ranking
from edgemeta.search.problem import Problem
from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial

Penalty = Callable[[Alpha], Tensor]  # logits -> () what they add to the loss
L = TypeVar("L")


class Shape(Protocol):
    """What the settings of every such searcher say: the relaxation, as `nets.relaxed.relax`, and how latency pulls."""

    @property
    def width(self) -> int | None: ...
    @property
    def depth(self) -> int | None: ...
    @property
    def stride(self) -> int | None: ...
    @property
    def none(self) -> bool: ...
    @property
    def latency(self) -> float: ...


@dataclass(frozen=True)
class Found(Generic[L]):
    """What the gradients found, before and after the caps were held against it."""

    learned: L
    expected: Expected | None  # None where latency has no cap
    derived: Arch
    first: Arch  # `derived`, repaired


class ByGradient(ABC, Generic[L]):
    """Trains on the first `ask`; proposes the strongest architecture, repaired to the caps, and those near it.

    Where latency has a cap, the loss has `latency` * log(expected latency / cap) beside it: expected are the upper ends
    of the intervals, which are what must fit. After the first come the most probable feasible ones near it, none of
    them twice, and the first again when they are spent.

    Equal arguments propose equal architectures, so a search that was stopped trains once more and goes on as it would
    have. Nothing is learned from scores.
    """

    def __init__(self, space: Space, *, seed: int, problem: Problem, shape: Shape):
        if problem.space != space:
            raise BadConfig(f"the problem is of space {problem.space.name}, not {space.name}; give both the same")
        self._problem, self._seed, self._latency = problem, seed, shape.latency
        self._relaxed = relax(space, width=shape.width, depth=shape.depth, stride=shape.stride, none=shape.none)
        self._proposals: Iterator[Arch] | None = None
        self.found: Found[L] | None = None  # None before the first `ask`

    @abstractmethod
    def _learned(self, pool: Pool, penalty: Penalty | None) -> tuple[L, Alpha]:
        """What training on a pool came to, and the logits that architectures are ranked by."""

    def ask(self) -> Arch:
        if self._proposals is None:
            self.found, self._proposals = self._search()
        return next(self._proposals)

    def tell(self, trial: Trial) -> None:
        """Scores teach no such searcher."""

    def _search(self) -> tuple[Found[L], Iterator[Arch]]:
        problem, rng = self._problem, Random(self._seed)
        require_feasible(problem.space, problem.bound, problem.cap, rng=rng)  # before minutes of training
        expected, penalty = pulled(self._relaxed, problem, self._latency, seed=self._seed)
        learned, alpha = self._learned(data_pool(problem.data, "train"), penalty)
        derived, ranked = self._relaxed.derive(alpha), self._ranked(alpha)
        first = ranked.repaired(derived, rng=rng)
        return Found(learned, expected, derived, first), chain(ranked.walk(first), repeat(first))

    def _ranked(self, alpha: Alpha) -> Ranking:
        return ranking(self._relaxed, alpha, self._problem.bound, self._problem.cap)


def pulled(
    relaxed: Relaxed, problem: Problem, weight: float, *, seed: int
) -> tuple[Expected, Penalty] | tuple[None, None]:
    """The latency to expect of logits, and `weight` * log(it / cap) as a loss of theirs; None where there is no cap."""
    if problem.cap.latency_ms == math.inf:
        return None, None
    rng = torch.Generator().manual_seed(seed)
    expected = fit(relaxed, lambda arch: problem.bound(arch).latency_ms, rng=rng)
    return expected, lambda alpha: weight * (expected.latency_ms(alpha) / problem.cap.latency_ms).log()
