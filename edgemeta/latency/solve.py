"""From timings of networks to a latency of each operator: a physical sum, corrected by a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from edgemeta.types import Op

from . import features

# Shares of an operator's physical latency by which it may be off. Of one another's grid neighbours these settings
# predict alike; they are fixed, so a profile does not depend on a search.
FAMILY_SHARE = 0.30  # all operators of a family together
SMOOTH_SHARE = 0.30  # operators alike together
OWN_SHARE = 0.03  # one operator alone
LENGTH = 2.0  # doublings over which operators are alike
NOISE_SHARE = 0.03  # of a network's timing
SLOPE_SD_MS = 0.05  # of a slope, per MiB
RUN_SD_MS = 0.003  # of the cost of a run that no operator explains
FLOOR_MS = 3e-4  # scale below which shares make no sense
LEAST_SHARE = 0.05  # no operator is predicted below this share of its physical latency


class Sample(NamedTuple):
    """A timed network; `judges` where its timing is one that the interval must hold."""

    ops: Sequence[Op]
    ms: float
    judges: bool = True


@dataclass(frozen=True)
class Solution:
    """Latencies that add up to those of networks, and the ratios measured / predicted that hold nine in ten."""

    run_ms: float  # cost of a run beyond its operators
    slopes_ms: Mapping[int, float]  # KiB -> ms per MiB of working set beyond them
    op_ms: Mapping[str, float]
    op_sd_ms: Mapping[str, float]
    low_ratio: float
    high_ratio: float


def solve(samples: Sequence[Sample], operators: Mapping[str, Op]) -> Solution:
    """Operator latencies that explain `samples`.

    The mean is a non-negative sum of physical terms, fitted to relative errors; the rest is a Gaussian process over
    operators (Rasmussen & Williams 2006, eq. 2.25), observed only in sums, and a slope for each knot of the working
    set. Slopes that come out negative are left out. Operators that no sample holds are still predicted, from those
    that are like them.
    """
    listed = list(operators.values())
    counts, times = _counts(samples, list(operators)), np.array([sample.ms for sample in samples])
    beyond = np.array([features.beyond(sample.ops) for sample in samples])
    keep = np.ones(beyond.shape[1], dtype=bool)
    while True:
        fit = _fit(counts, times, beyond * keep, listed)
        negative = keep & (fit.slopes < 0)
        if not negative.any():
            break
        keep &= ~negative
    ratios = times / np.maximum(fit.left_out, 1e-9)
    low, high = interval(ratios[[sample.judges for sample in samples]])
    return Solution(
        fit.run_ms,
        dict(zip(features.KNOTS_KIB, (fit.slopes * keep).tolist(), strict=True)),
        dict(zip(operators, fit.mean.tolist(), strict=True)),
        dict(zip(operators, fit.spread.tolist(), strict=True)),
        low,
        high,
    )


class _Fit(NamedTuple):
    run_ms: float
    slopes: np.ndarray  # (knots,) ms per MiB
    mean: np.ndarray  # (operators,) ms
    spread: np.ndarray  # (operators,) standard deviation, ms
    left_out: np.ndarray  # (samples,) prediction of each from all others, ms; the priors have seen them all


def _fit(counts: np.ndarray, times: np.ndarray, beyond: np.ndarray, operators: Sequence[Op]) -> _Fit:
    """The posterior, given counts (samples, operators) and MiB beyond each knot (samples, knots)."""
    run_ms, slopes, physical = _physical(counts, times, beyond, operators)
    covariance = _covariance(physical, operators)
    across = counts @ covariance  # (samples, operators)
    total = across @ counts.T + SLOPE_SD_MS**2 * beyond @ beyond.T + RUN_SD_MS**2 + np.diag((NOISE_SHARE * times) ** 2)
    inverse = cho_solve(cho_factor(total, lower=True), np.eye(len(times)))
    weights = inverse @ (times - run_ms - beyond @ slopes - counts @ physical)
    variance = np.diag(covariance) - np.einsum("ij,ij->j", across, inverse @ across)
    return _Fit(
        max(0.0, run_ms + RUN_SD_MS**2 * float(weights.sum())),
        slopes + SLOPE_SD_MS**2 * (beyond.T @ weights),
        np.maximum(physical + across.T @ weights, LEAST_SHARE * physical),
        np.sqrt(np.maximum(variance, 0)),
        times - weights / np.diag(inverse),  # eq. 5.12
    )


def interval(ratios: np.ndarray, level: float = 0.9) -> tuple[float, float]:
    """Bounds that hold the next ratio with probability `level`: split-conformal order statistics, one per side.

    Source: Lei 2018, arXiv:1604.04173, sec. 2; with too few ratios for a bound, the extreme ones.

    >>> interval(np.arange(81, 120) / 100)  # of 39 the second from either end
    (0.82, 1.18)
    """
    if not len(ratios):
        return 1.0, 1.0
    ranked, tail = np.sort(ratios), (1 - level) / 2
    low = max(0, math.floor((len(ranked) + 1) * tail + 1e-9) - 1)  # 40 * 0.05 is 2, in floats a little less
    return min(1.0, float(ranked[low])), max(1.0, float(ranked[-1 - low]))


def _counts(samples: Sequence[Sample], keys: Sequence[str]) -> np.ndarray:
    """(samples, operators) how often each network holds each operator."""
    column = {key: j for j, key in enumerate(keys)}
    counts = np.zeros((len(samples), len(keys)))
    for row, sample in zip(counts, samples, strict=True):
        for op in sample.ops:
            row[column[op.key]] += 1
    return counts


def _physical(
    counts: np.ndarray, times: np.ndarray, beyond: np.ndarray, operators: Sequence[Op]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Milliseconds of an empty run, slopes (knots,), and milliseconds of each operator (operators,), none negative."""
    terms, knots = features.design(operators), beyond.shape[1]
    rows = np.hstack([np.ones((len(times), 1)), beyond, counts @ terms])
    weights, _ = nnls(rows / times[:, None], np.ones(len(times)), maxiter=100 * rows.shape[1])
    return float(weights[0]), weights[1 : 1 + knots], terms @ weights[1 + knots :]


def _covariance(physical: np.ndarray, operators: Sequence[Op]) -> np.ndarray:
    scale = physical + FLOOR_MS
    families = features.likeness(operators, math.inf)
    alike = features.likeness(operators, LENGTH)
    shares = FAMILY_SHARE**2 * families + SMOOTH_SHARE**2 * alike + OWN_SHARE**2 * np.eye(len(operators))
    return np.outer(scale, scale) * shares
