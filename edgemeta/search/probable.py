"""From architecture logits to architectures under the caps, the most probable first."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch

from edgemeta.nets.candidates import NONE
from edgemeta.nets.relaxed import Alpha, Relaxed
from edgemeta.search.feasible import CostOf, require_feasible, violation
from edgemeta.space.moves import mutate, neighbours
from edgemeta.types import Arch, Cost

FAINTER = 1.0  # log-probability of an edge's weakest operator over that of none, where none is never derived
TWICE = 10.0  # log-probability that it costs to read one predecessor twice, which is never derived
TRIES = 500  # swaps at random where none of them helps by itself


@dataclass(frozen=True)
class Ranking:
    """Architectures by the probability of their operators, under caps."""

    relaxed: Relaxed
    logp: dict[str, list[list[float]]]  # of each operator on each edge of a cell
    cost_of: CostOf
    cap: Cost

    def of(self, arch: Arch) -> float:
        """Log-probability, as it were: what is never derived is left to caps that little else fits."""
        uses = self.relaxed.uses(arch)
        twice = len(uses) - len({(cell, row) for cell, row, _ in uses})
        return sum(self.logp[cell][row][column] for cell, row, column in uses) - TWICE * twice

    def over(self, arch: Arch) -> float:
        return violation(self.cost_of(arch), self.cap)

    def near(self, arch: Arch) -> list[Arch]:
        """What one pick changes, the most probable first."""
        found = {self.relaxed.canonical(near) for near in neighbours(arch, self.relaxed.space)} - {arch}
        return sorted(found, key=lambda near: (-self.of(near), near.picks))

    def repaired(self, arch: Arch, *, rng: Random) -> Arch:
        """`arch`, or what is left of it under the caps.

        Swaps that take most off the violation for the log-probability they cost, one after another. Where none takes
        any off, as an operator that two nodes need, swaps at random that add nothing to it; then, if need be, from
        anywhere. At last back again whatever fits.
        """
        over = self.over(arch)
        if over == 0:
            return arch
        while over > 0:
            swap = self._cheapest(arch, over) or self._drifted(arch, over, rng=rng)
            if swap is None:
                space = self.relaxed.space
                arch = self.relaxed.canonical(require_feasible(space, self.cost_of, self.cap, rng=rng))
                break
            arch, over = swap, self.over(swap)
        return self._climbed(arch)

    def _drifted(self, arch: Arch, over: float, *, rng: Random) -> Arch | None:
        """The first architecture with less violation on a random walk along those with as much."""
        for _ in range(TRIES):
            near = self.relaxed.canonical(mutate(arch, self.relaxed.space, rng=rng))
            now = self.over(near)
            if now < over:
                return near
            arch = near if now == over else arch
        return None

    def _cheapest(self, arch: Arch, over: float) -> Arch | None:
        best, least = None, math.inf
        for near in self.near(arch):
            gain = over - self.over(near)
            price = max(0.0, self.of(arch) - self.of(near)) / gain if gain > 0 else math.inf
            if price < least:
                best, least = near, price
        return best

    def _climbed(self, arch: Arch) -> Arch:
        while True:
            likelier = (near for near in self.near(arch) if self.of(near) > self.of(arch))
            better = next((near for near in likelier if self.over(near) == 0), None)
            if better is None:
                return arch
            arch = better

    def walk(self, start: Arch) -> Iterator[Arch]:
        """`start`, then the most probable feasible networks that single swaps lead to, none of them twice."""
        heap, seen, given = [(-self.of(start), start.picks, start)], {start}, set()
        while heap:
            _, _, arch = heapq.heappop(heap)
            if self.over(arch) > 0:
                continue
            ops = self.relaxed.space.ops(arch)
            if ops not in given:  # picks of another kind may build the same
                given.add(ops)
                yield arch
            for near in self.near(arch):
                if near not in seen:
                    seen.add(near)
                    heapq.heappush(heap, (-self.of(near), near.picks, near))


def ranking(relaxed: Relaxed, alpha: Alpha, cost_of: CostOf, cap: Cost) -> Ranking:
    """By the probabilities that logits give the operators of each edge, under caps."""
    logp = {}
    for cell, logits in alpha.items():
        rows = torch.log_softmax(logits.detach().double(), 1)
        for column, name in enumerate(relaxed.kind.operators):
            if name == NONE and column not in relaxed.kind.strong:
                rows[:, column] = rows[:, relaxed.kind.strong].min(1).values - FAINTER
        logp[cell] = rows.tolist()
    return Ranking(relaxed, logp, cost_of, cap)
