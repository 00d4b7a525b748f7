"""A predictor for a device of which only a few whole networks were timed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple, final

import numpy as np

from edgemeta.contracts import Additive, Latency
from edgemeta.errors import BadProfile
from edgemeta.space.named import named
from edgemeta.space.space import Space
from edgemeta.types import Arch, Op, Profile

from . import basis, checks, choose, fewshot, profile, simulate
from .cost import beside
from .parts import Parts, count

TYPICAL = 600  # random architectures that stand for a space
MOST_TIMINGS = 60  # more than these say little new and cost cubic time
CANDIDATES = 300  # from which the most telling to time are chosen
MOST_CANDIDATES = 1000  # and the most telling of what was timed


class Ground(NamedTuple):
    """What a space gives to any device: its typical networks and the prior."""

    space: Space
    typical: Parts
    prior: fewshot.Prior


@lru_cache(maxsize=4)
def ground(name: str, without: str = "") -> Ground:
    """The prior of a space: simulated devices, and the shipped profiles that timed many of its networks.

    `without` leaves one of these out, to judge the prediction by it.
    """
    space = named(name)
    rng = Random(0)
    typical = count([space.ops(space.sample(rng=rng)) for _ in range(TYPICAL)])
    of_space = basis.build(typical, simulate.draw(fewshot.DEVICES, rng=np.random.default_rng(0)))
    known = [p for p in _shipped(name) if p.device != without]
    real = [_learned(of_space[0], space, p) for p in known]
    return Ground(space, typical, fewshot.prior(typical, real, basis_of=of_space))


def _shipped(name: str) -> list[Profile]:
    return [p for p in profile.measured() if len(p.nets) >= CANDIDATES and p.nets[0].arch.space == name]


def _learned(of_space: basis.Basis, space: Space, known: Profile) -> np.ndarray:
    features = of_space(count([space.ops(net.arch) for net in known.nets]))
    return fewshot.learn(of_space, features, np.array([net.timing.median_ms for net in known.nets]), landmarks=1.0)


def support(space: Space, timings: int, *, seed: int) -> list[Arch]:
    """The architectures to time on a device of which nothing is known, the most telling first."""
    if timings < 1:
        raise BadProfile(f"{timings} timings tell nothing; time 3 to 20 networks")
    rng = Random(seed)
    pool = list(dict.fromkeys(space.sample(rng=rng) for _ in range(CANDIDATES)))
    prior = ground(space.name).prior
    features = prior.basis(count([space.ops(arch) for arch in pool]))
    return [pool[i] for i in choose.design(prior, features, timings)]


@final
class FewShot:
    """Conditions the prior of the space that was timed on the profile's networks.

    It answers for that space alone. What devices take for the networks of one published space says less of another
    than counting multiply-accumulates does (rank correlations of 0.4 to 0.9 from FBNet to NAS-Bench-201).
    """

    def __init__(self, profile: Profile):
        self.head_ms, self.slow_ratio, self.per_ms_mj, self.precision = beside(profile)
        self._device, self._space = profile.device, profile.nets[0].arch.space if profile.nets else ""
        nets = checks.nets_of(profile, self._space)
        known = ground(self._space)
        self._basis = known.prior.basis
        if len(nets) > MOST_CANDIDATES:
            nets = tuple(Random(0).sample(nets, MOST_CANDIDATES))
        features = self._basis(count([net.ops or known.space.ops(net.arch) for net in nets]))
        times = np.array([net.timing.median_ms for net in nets])
        if len(nets) > MOST_TIMINGS:
            chosen = choose.design(known.prior, features, MOST_TIMINGS)
            features, times = features[chosen], times[chosen]
        self._posterior = fewshot.fit(known.prior, features, times)

    def latency(self, ops: Sequence[Op]) -> Latency:
        features = self._basis(self._known([ops]))
        low, high = fewshot.interval(self._posterior, features)
        return Latency(*(float(np.exp(log[0])) for log in (fewshot.mean(self._posterior, features), low, high)))

    def _known(self, networks: Sequence[Sequence[Op]]) -> Parts:
        parts = count(networks)
        if not self._basis.knows(parts):
            raise BadProfile(
                f"profile {self._device!r} never saw this space, only {self._space}; time some of its networks on that "
                "device: `edgemeta profile --timings 10`"
            )
        return parts

    def additive(self, space: Space) -> Additive:
        """What landmark devices take adds up, and so do counts; their logarithms are weighed."""
        of = self._basis
        weights = self._posterior.weights / of.spread
        first = of.blocks[0].stop
        constant = self._posterior.level + self._posterior.constant - float(of.mean @ weights)
        logs, started = weights[:first].astype(np.float32), of.landmarks.constant.astype(np.float32)
        self._known([space.ops(space.sample(rng=Random(0)))])

        def sums(networks: Sequence[Sequence[Op]]) -> np.ndarray:
            parts = count(networks)
            times = parts.counts @ simulate.part_times(parts, of.landmarks, of.scale)
            return np.hstack([times, (of.counts(parts) @ weights[first:])[:, None]])

        def latency_ms(terms: np.ndarray) -> np.ndarray:
            return np.exp(np.log(terms[:, :-1] + started) @ logs + terms[:, -1] + constant)

        return Additive(sums, latency_ms)
