"""Getting under the caps: how far an architecture is over them, and the short walk back."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from edgemeta.errors import Infeasible, flag
from edgemeta.space.moves import mutate, neighbours
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost

CostOf = Callable[[Arch], Cost]


def violation(cost: Cost, cap: Cost) -> float:
    """Sum over the fields of log(cost / cap) where it is positive; 0 exactly where `cost.fits(cap)`.

    >>> round(violation(Cost(latency_ms=2.0, ram_kib=10.0), Cost(latency_ms=1.0, ram_kib=20.0)), 4)  # log(2)
    0.6931
    """
    pairs = ((getattr(cost, name), getattr(cap, name)) for name in cost.over(cap))
    return sum(math.log(value / limit) if limit > 0 else math.inf for value, limit in pairs)


def repair(arch: Arch, space: Space, cost_of: CostOf, cap: Cost, *, rng: Random, tries: int = 100) -> Arch | None:
    """`arch`, or a feasible one near it: mutations that do not raise the violation; None when `tries` are spent.

    The walk lets every searcher use its proposals under tight caps, where nearly all random picks are over them.
    """
    over = violation(cost_of(arch), cap)
    for _ in range(tries):
        if over == 0:
            return arch
        near = mutate(arch, space, rng=rng)
        now = violation(cost_of(near), cap)
        if now <= over:
            arch, over = near, now
    return arch if over == 0 else None


def descend(arch: Arch, space: Space, size: Callable[[Arch], Any]) -> Arch:
    """Steepest descent of `size` over one-slot moves, to a local minimum."""
    best, least = arch, size(arch)
    while True:
        near = min(neighbours(best, space), key=size, default=best)
        if size(near) >= least:
            return best
        best, least = near, size(near)


def require_feasible(space: Space, cost_of: CostOf, cap: Cost, *, rng: Random, starts: int = 3) -> Arch:
    """An architecture under the caps; `Infeasible` names the nearest one where descent finds none."""
    first = space.sample(rng=rng)
    if cap.energy_mj < math.inf == cost_of(first).energy_mj:
        raise Infeasible(f"no energy is measured, so nothing fits {cap}; leave --energy-mj out and cap --latency-ms")
    if easy := repair(first, space, cost_of, cap, rng=rng):
        return easy
    found = [
        descend(space.sample(rng=rng), space, lambda arch: (violation(cost_of(arch), cap), cost_of(arch).latency_ms))
        for _ in range(starts)
    ]
    best = min(found, key=lambda arch: violation(cost_of(arch), cap))
    if violation(cost_of(best), cap) == 0:
        return best
    raise Infeasible(_advice(space, cost_of, cap, best, found[0]))


def _one_field(cost_of: CostOf, name: str) -> Callable[[Arch], float]:
    return lambda arch: getattr(cost_of(arch), name)


def _advice(space: Space, cost_of: CostOf, cap: Cost, best: Arch, start: Arch) -> str:
    least, cost = [], cost_of(best)
    over = cost.over(cap)
    for name in over:
        extreme = descend(start, space, _one_field(cost_of, name))
        kind, unit = name.rsplit("_", 1)
        unit = unit.replace("kib", "KiB").replace("mj", "mJ")
        least.append(f"{kind} {getattr(cost_of(extreme), name):.4g} {unit} > {getattr(cap, name):.4g} {unit}")
    return (
        f"no architecture of {space.name} fits {cap}: the least found is {', '.join(least)}; "
        f"nearest under all caps together: {cost}; raise {' or '.join(map(flag, over))}"
    )
