"""Which networks to time on a device of which nothing is known yet: those that tell most about all others."""

from __future__ import annotations

import numpy as np

from .fewshot import CONSTANT_SD, Prior

TYPICAL_SD = (0.1, 0.02, 0.015)  # of the wiggles, for the choice alone: the middle of their grid
NOISE_SD = 0.03


def design(prior: Prior, features: np.ndarray, count: int) -> list[int]:
    """Rows of `features` (candidates, features), the most telling first.

    Greedy A-optimal design: each choice lowers the variance of all candidates most, summed (Chaloner 1995,
    doi:10.1214/ss/1177009939, sec. 2). It needs no timing, so all can be taken at once.
    """
    left = covariance(prior, features)
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        gain = (left**2).sum(0) / (np.diag(left) + NOISE_SD**2)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        left = left - np.outer(left[:, best], left[best]) / (left[best, best] + NOISE_SD**2)
    return chosen


def covariance(prior: Prior, features: np.ndarray) -> np.ndarray:
    """(candidates, candidates) of log latencies over the devices of the prior."""
    weight = np.exp(prior.log_weight)
    weight = weight / weight.sum()
    centres = features @ prior.centres
    centres = (centres - (centres @ weight)[:, None]) * np.sqrt(weight)
    total = centres @ centres.T + CONSTANT_SD**2
    for deviation, wiggle in zip(TYPICAL_SD, prior.wiggles(features), strict=True):
        total += deviation**2 * (wiggle @ wiggle.T)
    return total
