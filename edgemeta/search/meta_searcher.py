"""The meta-learned policy in a search: it samples, and what was told decides which of its samples is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata

from edgemeta.errors import BadData
from edgemeta.search.metapolicy import Knowledge, Triple, context_of
from edgemeta.search.surrogate import improvement, posterior
from edgemeta.space.moves import mutate
from edgemeta.space.space import Space
from edgemeta.tasks import policy
from edgemeta.types import Arch, Trial

ELITE, MUTATIONS = 4, 12  # told networks that are mutated, and how often each
SEEN = 256  # trials at most that a proposal is judged by, the last ones
# Chosen on NAS-Bench-201 with CIFAR-10 and ImageNet16-120 and source devices (tools/bench/constrained_search.py).
FORETOLD = 0.3  # normal quantiles for one unit of the logarithm of the policy's probability
REACH, NOISE = 2.0, 0.4  # of `search.surrogate.posterior`, in normal quantiles
CLOSE = 1.0  # slots in which networks differ until one tells 1 / e of whether the other fits


class MetaPolicy:
    """The policy as an ask/tell searcher: it samples, and what was told decides which of its samples is asked for.

    With `knowledge` it samples what the policy says of the triple; without, everything alike. Among a few samples, and
    mutations of the best that were told, the largest expected improvement is asked for: of scores as normal quantiles
    of their ranks, which the logarithm of the policy's probability foretells and `search.surrogate` corrects, times the
    chance not to be infeasible or to fail. That is how the policy adapts to one triple: departing from gradient steps
    on its weights, which spoiled it with tens of scores.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        knowledge: Knowledge | None = None,
        triple: Triple | None = None,
        samples: int = 64,
    ):
        if (knowledge is None) != (triple is None):
            raise BadData("a policy that knows must be told of which triple, and only then; give both or neither")
        self._space, self._samples = space, samples
        self._rng, self._mutations = torch.Generator().manual_seed(seed), Random(seed)
        self._slots = tuple(len(options) for _, options in space.slots)
        self._params = knowledge.params if knowledge else policy.init(self._slots, 0, 1, rng=self._rng)
        self._context = context_of(knowledge, triple) if knowledge and triple else torch.zeros(policy.DIM)
        self._told: dict[Arch, float | None] = {}
        self._asked: set[Arch] = set()

    def ask(self) -> Arch:
        """What was not asked for yet, where there is any among the candidates."""
        picks, _ = policy.sample(self._params, self._slots, self._context, self._samples, rng=self._rng)
        sampled = [Arch(self._space.name, tuple(row)) for row in picks.tolist()]
        candidates = [arch for arch in dict.fromkeys([*sampled, *self._near()]) if arch not in self._asked]
        arch = self._best(candidates) if candidates else sampled[0]
        self._asked.add(arch)
        return arch

    def tell(self, trial: Trial) -> None:
        self._told.setdefault(trial.arch, trial.score)
        self._asked.add(trial.arch)

    def _near(self) -> list[Arch]:
        """Mutations of the best."""
        scored = {arch: score for arch, score in self._told.items() if score is not None}
        best = sorted(scored, key=scored.__getitem__)[-ELITE:]
        return [mutate(arch, self._space, rng=self._mutations) for arch in best for _ in range(MUTATIONS)]

    def _best(self, candidates: Sequence[Arch]) -> Arch:
        scores = {arch: score for arch, score in self._told.items() if score is not None}
        scored = list(scores)[-SEEN:]
        refused = [arch for arch, score in self._told.items() if score is None][-SEEN:]
        if not scored:
            return candidates[0]
        told, asked, bad = (_picks(some, len(self._slots)) for some in (scored, candidates, refused))
        score = _quantiles([scores[arch] for arch in scored])
        foretold = self._foretold(np.concatenate([told, asked]))
        foretold -= foretold[: len(told)].mean()
        above, spread = score - foretold[: len(told)], {"structure": 1.0, "noise": NOISE, "reach": REACH}
        mean, sd = posterior(told, above, asked, **spread)
        worth = improvement(foretold[len(told) :] + mean, sd, score.max()) * _chance(asked, told, bad)
        return candidates[int(worth.argmax())]

    def _foretold(self, picks: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            context = self._context.expand(len(picks), -1)
            log = policy.log_prob(self._params, self._slots, context, torch.as_tensor(picks))
        return FORETOLD * log.numpy().astype(float)


def _picks(archs: Sequence[Arch], slots: int) -> np.ndarray:
    """(n, slots)"""
    return np.array([arch.picks for arch in archs], dtype=int).reshape(-1, slots)


def _chance(asked: np.ndarray, good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """(n,) how likely each is to be scored at all: the share of what was told near it that was, and one more."""
    near_good, near_bad = (np.exp(-(asked[:, None] != told[None]).sum(-1) / CLOSE).sum(1) for told in (good, bad))
    return (1 + near_good) / (1 + near_good + near_bad)


def _quantiles(scores: Sequence[float]) -> np.ndarray:
    """(n,) normal quantiles of mean ranks; equal scores have equal ones."""
    return ndtri((rankdata(scores) - 0.5) / len(scores))
