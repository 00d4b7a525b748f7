"""Predicting the latency of a network from a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np

from edgemeta.contracts import Additive, Latency, Predictor
from edgemeta.errors import BadProfile, nearest
from edgemeta.space.space import Space
from edgemeta.types import KIB, Op, Profile

from .cost import beside
from .features import KNOTS_KIB, beyond, slope_name, working_set_kib
from .unseen import FewShot


@final
class Table:
    """The sum of the profile's operators and the cost of a run; the interval by the profile's calibrated ratios.

    `run_ms` is what a run costs beyond its operators, `per_mib_beyond_<n>_kib_ms` what each MiB of weights and
    activations beyond n KiB adds, because they leave the caches. `low_ratio` and `high_ratio` are measured / predicted,
    holding nine networks in ten.
    """

    def __init__(self, profile: Profile):
        self._device = profile.device
        self._ms = {key: timing.median_ms for key, timing in profile.ops.items()}
        self._run_ms = profile.overhead.get("run_ms", 0.0)
        self._slopes = [profile.overhead.get(slope_name(knot), 0.0) for knot in KNOTS_KIB]
        self._low = profile.overhead.get("low_ratio", 1.0)
        self._high = profile.overhead.get("high_ratio", 1.0)
        self.head_ms, self.slow_ratio, self.per_ms_mj, self.precision = beside(profile)

    def latency(self, ops: Sequence[Op]) -> Latency:
        try:
            ms = self._run_ms + sum(self._ms[op.key] for op in ops)
        except KeyError as error:
            raise self._missing(error.args[0]) from None
        ms += sum(slope * over for slope, over in zip(self._slopes, beyond(ops), strict=True))
        return Latency(ms, ms * self._low, ms * self._high)

    def additive(self, space: Space) -> Additive:
        """Operators add up, and so does the working set, beyond whose knots the slopes begin."""

        def sums(networks: Sequence[Sequence[Op]]) -> np.ndarray:
            return np.array([[sum(self._ms[op.key] for op in ops), working_set_kib(ops)] for ops in networks])

        def latency_ms(terms: np.ndarray) -> np.ndarray:
            over = np.maximum(terms[:, 1:] - np.array(KNOTS_KIB), 0) / KIB
            return self._run_ms + terms[:, 0] + over @ np.array(self._slopes)

        return Additive(sums, latency_ms)

    def _missing(self, key: str) -> BadProfile:
        close = nearest(key, self._ms) if self._ms else "it has none"
        return BadProfile(
            f"profile {self._device!r} holds no operator {key}: {close}; measure this space with `edgemeta profile`"
        )


@final
class PerMac:
    """Latency in proportion to multiply-accumulates: for pretend devices, whose latencies a reader computes by hand."""

    def __init__(self, profile: Profile):
        self._per_mmac_ms = profile.overhead["per_mmac_ms"]
        self.head_ms, self.slow_ratio, self.per_ms_mj, self.precision = beside(profile)

    def latency(self, ops: Sequence[Op]) -> Latency:
        ms = self._per_mmac_ms * sum(op.macs for op in ops) / 1e6
        return Latency(ms, ms, ms)

    def additive(self, space: Space) -> Additive:
        def sums(networks: Sequence[Sequence[Op]]) -> np.ndarray:
            return np.array([[sum(op.macs for op in ops) / 1e6] for ops in networks])

        return Additive(sums, lambda terms: self._per_mmac_ms * terms[:, 0].astype(float))


PREDICTORS: Mapping[str, Callable[[Profile], Predictor]] = {
    "table": Table,
    "per_mac": PerMac,
    "few_shot": FewShot,
}


def predictor(profile: Profile) -> Predictor:
    """The predictor a profile was made for.

    >>> from edgemeta.latency import profile
    >>> predictor(profile.load("null")).latency([Op("conv", (8, 100, 100), (10, 100, 100), kernel=5)])  # 20 MMACs
    Latency(ms=20.0, low_ms=20.0, high_ms=20.0)
    """
    if "per_mmac_ms" in profile.overhead:
        return PREDICTORS["per_mac"](profile)
    return PREDICTORS["few_shot" if profile.nets and not profile.ops else "table"](profile)
