"""Scores without training: how a searcher does on landscapes whose best is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random

from edgemeta.contracts import Searcher
from edgemeta.space.named import named
from edgemeta.space.presets import tiny
from edgemeta.types import Arch, Cost, Trial

Scores = Callable[[Arch], float]


def trial(arch: Arch, score: float | None, status: str = "ok", cap: Cost | None = None) -> Trial:
    return Trial(arch, Cost(1.0, 1.0, 1.0), score, 0.01, 60, 0, 1.0, "test", status, cap=cap or Cost())


def drive(searcher: Searcher, rounds: int, score: Scores) -> list[Arch]:
    """Ask and tell; the architectures asked for."""
    asked = []
    for _ in range(rounds):
        asked.append(searcher.ask())
        searcher.tell(trial(asked[-1], score(asked[-1])))
    return asked


def hill(arch: Arch) -> float:
    """A landscape with one hill: the higher each pick, the better."""
    return sum(arch.picks) / (len(arch.picks) * 4)


def additive(space, *, seed: int) -> Scores:
    """Every option of every slot has a worth of its own; from .3 for the worst architecture to .8 for the best."""
    rng = Random(seed)
    worths = [[rng.random() for _ in options] for _, options in space.slots]
    low, high = sum(map(min, worths)), sum(map(max, worths))

    def score(arch: Arch) -> float:
        return 0.3 + 0.5 * (sum(row[pick] for row, pick in zip(worths, arch.picks, strict=True)) - low) / (high - low)

    return score


LANDSCAPES = {
    "hill": lambda seed: (tiny(), hill),
    "additive-tiny": lambda seed: (tiny(), additive(tiny(), seed=seed)),
    "additive-nb201": lambda seed: (named("nb201"), additive(named("nb201"), seed=seed)),
}


@lru_cache(maxsize=256)
def best_found(make: Callable[..., Searcher], landscape: str, seeds: int, trials: int = 60) -> float:
    """Mean over seeds of the best score among so many trials."""
    total = 0.0
    for seed in range(seeds):
        space, score = LANDSCAPES[landscape](seed)
        total += max(map(score, drive(make(space, seed=seed), trials, score)))
    return total / seeds
