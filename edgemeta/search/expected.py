"""The latency that a relaxed network stands for, as a function that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgemeta.nets.candidates import Use
from edgemeta.nets.relaxed import Alpha, Relaxed
from edgemeta.space.cells import ENTRIES
from edgemeta.types import Arch

TESTED = 5  # one in so many architectures is kept from the fit, to tell how good it is
LEAST = 0.05  # of the fastest architecture seen: an expectation past it would be an extrapolation to nothing


@dataclass(frozen=True)
class Expected:
    """Latencies as a sum over the operators of an architecture, and how well that fits those it was not fitted to."""

    relaxed: Relaxed
    base_ms: float
    use_ms: dict[Use, float]
    least_ms: float
    r2: float  # share of the variance that is explained
    error: float  # mean of |predicted / true - 1|

    def ms(self, arch: Arch) -> float:
        """Of an architecture that can be derived."""
        return self.base_ms + sum(self.use_ms[use] for use in self.relaxed.uses(arch))

    def latency_ms(self, alpha: Alpha) -> Tensor:
        """() expectation where operators are drawn by the softmax of `alpha`, and the edges a node keeps evenly.

        Linear in these probabilities (Cai 2019, arXiv:1812.00332, eqs. 3 and 4). They are those of the operators that
        can be derived: none, where it is not among them, would make networks look fast that are slow.
        """
        kind, total = self.relaxed.kind, torch.tensor(self.base_ms)
        rows = range(len(kind.edges))
        kept = torch.tensor([_kept(self.relaxed, row) for row in rows])
        for cell, logits in alpha.items():
            ms = torch.tensor([[self.use_ms[cell, row, column] for column in kind.strong] for row in rows])
            share = torch.softmax(logits[:, kind.strong], 1)
            total = total + (kept.to(share) * (share * ms.to(share)).sum(1)).sum()
        return total.clamp_min(self.least_ms)


def fit(relaxed: Relaxed, latency_ms: Callable[[Arch], float], *, rng: torch.Generator, samples: int = 300) -> Expected:
    """Least squares over random architectures of those that can be derived.

    Where a node keeps some edges only, what counts of an edge is the operator, the cell, and whether it reads one of
    the cell's entries: there the strides are, and their convolutions are laid for those that are read.
    """
    uses = [
        (cell, row, column)
        for cell in relaxed.kind.cells
        for row in range(len(relaxed.kind.edges))
        for column in relaxed.kind.strong
    ]
    places: dict[tuple, int] = {}
    place = {use: places.setdefault(_alike(relaxed, use), len(places)) for use in uses}
    archs = [relaxed.derive(relaxed.alpha(rng=rng, spread=1.0)) for _ in range(samples)]
    counts = np.zeros((samples, len(places) + 1))
    counts[:, -1] = 1
    for row, arch in enumerate(archs):
        np.add.at(counts[row], [place[use] for use in relaxed.uses(arch)], 1)
    true = np.array([latency_ms(arch) for arch in archs])
    fitted = np.arange(samples) % TESTED != 0
    coefficients = np.linalg.lstsq(counts[fitted], true[fitted], rcond=None)[0]
    told, held = counts[~fitted] @ coefficients, true[~fitted]
    unexplained = float(((told - held) ** 2).sum())
    spread = float(((held - held.mean()) ** 2).sum())
    r2 = 1 - unexplained / spread if spread else float(unexplained < 1e-9)
    use_ms = {use: float(coefficients[at]) for use, at in place.items()}
    error = float(np.mean(np.abs(told / held - 1)))
    return Expected(relaxed, float(coefficients[-1]), use_ms, LEAST * float(true.min()), r2, error)


def _kept(relaxed: Relaxed, row: int) -> float:
    """How likely a node keeps an edge."""
    edges, inputs = relaxed.kind.edges, relaxed.kind.inputs
    rivals = sum(target == edges[row][1] for _, target in edges)
    return 1.0 if inputs is None else inputs / rivals


def _alike(relaxed: Relaxed, use: Use) -> tuple:
    """What two operators share where they cost the same."""
    cell, row, column = use
    return use if relaxed.kind.inputs is None else (cell, relaxed.kind.edges[row][0] < ENTRIES, column)
