"""What scores of some networks tell of others: a Gaussian process over the slots in which they differ."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr


def posterior(
    told: np.ndarray,
    above: np.ndarray,
    asked: np.ndarray,
    *,
    structure: float,
    noise: float,
    reach: float,
    level: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) means and standard deviations of what asking for `asked` (m, slots) answers above what was expected of it,
    `told` (n, slots) having answered `above` (n,).

    Deviations: `structure` of what networks share, the less the more slots they differ in, to 1 / e of its variance in
    `reach` slots; `level` of what all share; `noise` of what no network tells of another. Source: Rasmussen & Williams
    2006, eqs. 2.25-2.26.
    """
    prior = level**2 + structure**2 + noise**2
    if not len(told):
        return np.zeros(len(asked)), np.full(len(asked), math.sqrt(prior))

    def covariance(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        apart = (some[:, None] != others[None]).sum(-1)
        return level**2 + structure**2 * np.exp(-apart / reach)

    cross = covariance(told, asked)
    weights = np.linalg.solve(covariance(told, told) + noise**2 * np.eye(len(told)), cross)
    return above @ weights, np.sqrt(np.maximum(prior - (cross * weights).sum(0), noise**2))


def improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """(n,) expected improvement on `best` (Mockus 1978); on nothing, -inf, the means themselves.

    >>> improvement(np.array([0.0, 2.0]), np.array([1.0, 1.0]), 0.0).round(3)
    array([0.399, 2.008])
    """
    if best == -math.inf:
        return mean
    z = (mean - best) / sd
    return sd * (z * ndtr(z) + np.exp(-z * z / 2) / math.sqrt(2 * math.pi))
