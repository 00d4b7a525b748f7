"""Latency of a device seen a few times: a mixture of real and simulated devices, weighed by what they say of it.

    log latency = constant + one device of the mixture + three Gaussian wiggles around it + Student-t noise

in closed form on a fixed grid of settings, averaged by marginal likelihood (Rasmussen & Williams 2006, ch. 2 and 5; the
t noise by its variational bound, Tipping 2005, doi:10.1016/j.neucom.2005.02.016). Latencies are never normalised by
others of the target device: every timing that is used is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .basis import Basis
from .parts import Parts

DEVICES = 3000  # simulated; 600 are nearly as good
CONSTANT_SD = 1.0  # of the log of the device's speed around the mean timing
TAIL = 4.0  # degrees of freedom of the noise
ROUNDS = 4  # of the bound on the t noise
AXES = 20  # directions in which simulated devices differ most
COARSE_NOISE = 0.1  # least standard deviation of log timings in whole milliseconds
RIDGE = (1.0, 3.0)  # prior standard deviation, in noise, of a real device along kinds and choices of operators
REAL = 0.5  # weight of the real devices in the mixture, where there are any

# Standard deviations of the three wiggles (along the ways devices differ, per kind of operator, per choice) and of the
# noise, all of log latency. One grid for every space and device; what fits a device is told by its timings.
GRID = np.array(
    [
        (device, kind, choice, noise)
        for device, kind, choice, noise in itertools.product(
            (0.1, 0.3, 1.0), (0.0, 0.02), (0.003, 0.015, 0.04), (0.0025, 0.005, 0.02, 0.06, 0.1, 0.15)
        )
        if choice <= max(2 * noise, 0.015)
    ]
)


class Prior(NamedTuple):
    """What is believed of any device before it is timed; every function of architectures is a weighting of features."""

    basis: Basis
    centres: np.ndarray  # (features, devices) the mixture
    log_weight: np.ndarray  # (devices,)
    axes: np.ndarray  # (features, directions) along which devices differ

    def wiggles(self, features: np.ndarray) -> list[np.ndarray]:
        """What each of the three wiggles moves an architecture by, per unit of its directions: (n, directions) each."""
        _, kinds, choices = self.basis.blocks
        return [features @ self.axes, features[:, kinds], features[:, choices]]

    def along(self, steps: Sequence[np.ndarray]) -> np.ndarray:
        """Weights (features, n) of a step along the directions of each wiggle, (directions, n) each."""
        weights = self.axes @ steps[0]
        for block, step in zip(self.basis.blocks[1:], steps[1:], strict=True):
            weights[block] += step
        return weights


class Posterior(NamedTuple):
    """What is believed of one device after its timings."""

    prior: Prior
    level: float  # mean of the log timings
    weights: np.ndarray  # (features,) of the mean
    constant: float
    evidence: float  # log marginal likelihood
    draws: Draws


class Draws(NamedTuple):
    """Samples of the posterior, for intervals."""

    weights: np.ndarray  # (features, draws) mean of the component each sample fell on
    constants: np.ndarray  # (draws,)
    setting: np.ndarray  # (draws,) row of `covariances`
    covariances: np.ndarray  # (settings, timings, timings) inverse of what the timings covary with
    scales: np.ndarray  # (settings, 4) variances of the wiggles and the noise
    wiggles: tuple[np.ndarray, ...]  # of the timed networks, (timings, directions) each
    normal: np.ndarray  # (draws,) what each sample moves by, in standard deviations of its component
    noise: np.ndarray  # (draws,) and in those of the noise


def prior(typical: Parts, real: Sequence[np.ndarray] = (), *, basis_of: tuple[Basis, np.ndarray]) -> Prior:
    """The prior of a space. `real` are devices as (features,) weights, from `learn`."""
    basis, simulated = basis_of
    features = basis(typical)
    pretend = np.zeros((len(basis.mean), simulated.shape[1]))
    pretend[basis.blocks[0]] = simulated
    known = np.array(real).T if len(real) else np.zeros((len(basis.mean), 0))
    weight = np.full(pretend.shape[1], (1 - REAL if len(real) else 1.0) / pretend.shape[1])
    log_weight = np.log(np.concatenate([np.full(known.shape[1], REAL / max(1, known.shape[1])), weight]))
    axes = _axes(features, known, pretend)
    return Prior(basis, np.hstack([known, pretend]), log_weight, axes)


def _axes(features: np.ndarray, known: np.ndarray, pretend: np.ndarray) -> np.ndarray:
    """(features, directions) along which devices differ, real ones from each other and simulated ones."""
    mean = pretend.mean(1)
    apart = pretend - mean[:, None]
    _, _, directions = np.linalg.svd(features @ apart, full_matrices=False)
    found = [0.3 * mean[:, None], apart @ directions[:AXES].T / np.sqrt(pretend.shape[1])]
    if known.shape[1]:
        mean = known.mean(1)
        found += [0.5 * mean[:, None], (known - mean[:, None]) / np.sqrt(max(1, known.shape[1] - 1))]
    return np.hstack(found)


def learn(basis: Basis, features: np.ndarray, latency_ms: np.ndarray, *, landmarks: float = 0.0) -> np.ndarray:
    """A real device as (features,) weights: ridge regression of many log latencies, the extreme ones clipped.

    `landmarks`: how far, in noise, a device may lean on the log latencies of landmark devices. In a space whose
    latencies differ tenfold they do not add up over choices on a log scale, and landmarks must carry them: four
    devices timed on `edge` are off by 2 to 6 % with 1.0, by 7 to 16 % without.
    """
    log = np.log(latency_ms)
    log = np.clip(log, *np.percentile(log, (0.5, 99.5)))
    reach = (landmarks, *RIDGE)
    scale = np.concatenate([np.full(b.stop - b.start, s) for b, s in zip(basis.blocks, reach, strict=True)])
    scaled = (features - features.mean(0)) * scale
    gram = scaled @ scaled.T
    return scale * (scaled.T @ np.linalg.solve(gram + np.eye(len(log)), log - log.mean()))


def _least_noise(latency_ms: np.ndarray) -> float:
    """Whole milliseconds come from a stopwatch, not from a benchmark: noise beyond the rounding comes with them.

    The public timings of phones in whole milliseconds scatter by 3 to 15 %, those of other devices by 0.4 to 5 %.
    """
    return COARSE_NOISE if (latency_ms == np.round(latency_ms)).all() else 0.0


class _Fit(NamedTuple):
    weight: np.ndarray  # (grid, devices) posterior of each setting and centre
    inverse: np.ndarray  # (grid, timings, timings)
    pull: np.ndarray  # (grid, timings) weighted sum over centres of what multiplies the covariance with the timings
    evidence: float


def fit(prior: Prior, support: np.ndarray, latency_ms: np.ndarray, *, draws: int = 200) -> Posterior:
    """Condition on timings: support (timings, features), latency_ms (timings,)."""
    log = np.log(latency_ms)
    level = float(log.mean())
    residual = (log - level)[:, None] - support @ prior.centres
    wiggles = prior.wiggles(support)
    kernels = np.stack([wiggle @ wiggle.T for wiggle in wiggles])
    noise = np.repeat(GRID[:, 3:] ** 2, len(log), axis=1)
    believed = np.where(GRID[:, 3] < _least_noise(latency_ms), -np.inf, 0.0)
    done = _fit(prior, residual, kernels, noise, believed)
    for _ in range(ROUNDS):
        precision = _precision(done, noise)
        noise = GRID[:, 3:] ** 2 / precision
        bound = (TAIL / 2 * (np.log(precision) - precision + 1)).sum(1)
        done = _fit(prior, residual, kernels, noise, bound + believed)
    pulls = (GRID[:, :3] ** 2).T @ done.pull
    steps = [wiggle.T @ pull[:, None] for wiggle, pull in zip(wiggles, pulls, strict=True)]
    weights = prior.centres @ done.weight.sum(0) + prior.along(steps)[:, 0]
    constant = CONSTANT_SD**2 * float(done.pull.sum())
    sampled = _draw(prior, done, wiggles, residual, draws)
    return Posterior(prior, level, weights, constant, done.evidence, sampled)


def _fit(prior: Prior, residual: np.ndarray, kernels: np.ndarray, noise: np.ndarray, bound: np.ndarray) -> _Fit:
    """Weights of every setting and centre, given the noise (grid, timings)."""
    count = len(residual)
    covariance = np.tensordot(GRID[:, :3] ** 2, kernels, 1) + CONSTANT_SD**2 + noise[:, :, None] * np.eye(count)
    lower = np.linalg.cholesky(covariance)
    inverse_lower = np.linalg.inv(lower)
    whitened = inverse_lower @ residual[None]
    log = -0.5 * (whitened**2).sum(1) + prior.log_weight
    log += (bound - np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(1))[:, None]
    weight = np.exp(log - log.max())
    evidence = float(log.max() + np.log(weight.sum()) - 0.5 * count * np.log(2 * np.pi))
    weight /= weight.sum()
    inverse = inverse_lower.transpose(0, 2, 1) @ inverse_lower
    pull = np.einsum("gij,gj->gi", inverse, weight @ residual.T)
    return _Fit(weight, inverse, pull, evidence)


def _precision(done: _Fit, noise: np.ndarray) -> np.ndarray:
    """(grid, timings) by which the t noise trusts each timing more or less than its setting's variance."""
    mean = done.pull / np.maximum(done.weight.sum(1), 1e-12)[:, None]
    off = (noise * mean) ** 2 + np.maximum(noise - noise**2 * np.diagonal(done.inverse, axis1=1, axis2=2), 0)
    return (TAIL + 1) / (TAIL + off / GRID[:, 3:] ** 2)


def _draw(prior: Prior, done: _Fit, wiggles: Sequence[np.ndarray], residual: np.ndarray, count: int) -> Draws:
    rng = np.random.default_rng(0)  # common random numbers: an interval is a function of its architecture
    settings, centres = np.divmod(rng.choice(done.weight.size, count, p=done.weight.ravel()), done.weight.shape[1])
    used, setting = np.unique(settings, return_inverse=True)
    pull = np.einsum("dij,dj->id", done.inverse[settings], residual[:, centres].T)  # (timings, draws)
    steps = [wiggle.T @ pull * scale for wiggle, scale in zip(wiggles, (GRID[settings, :3] ** 2).T, strict=True)]
    return Draws(
        prior.centres[:, centres] + prior.along(steps),
        CONSTANT_SD**2 * pull.sum(0),
        setting,
        done.inverse[used],
        GRID[used] ** 2,
        tuple(wiggles),
        rng.standard_normal(count),
        rng.standard_t(TAIL, count),
    )


def mean(posterior: Posterior, features: np.ndarray) -> np.ndarray:
    """(architectures,) posterior mean of the log latency in ms."""
    return posterior.level + posterior.constant + features @ posterior.weights


def interval(posterior: Posterior, features: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the log latency in ms that hold a timing with probability `level`: quantiles of posterior samples."""
    draws, wiggles = posterior.draws, posterior.prior.wiggles(features)
    centre = posterior.level + draws.constants + features @ draws.weights
    across = np.stack([wiggle @ timed.T for wiggle, timed in zip(wiggles, draws.wiggles, strict=True)])
    own = np.stack([(wiggle**2).sum(1) for wiggle in wiggles])
    cross = CONSTANT_SD**2 + np.tensordot(draws.scales[:, :3], across, 1)  # (settings, architectures, timings)
    left = CONSTANT_SD**2 + draws.scales[:, :3] @ own - (cross @ draws.covariances * cross).sum(2)
    spread = np.sqrt(np.maximum(left, 1e-9))
    noise = np.sqrt(draws.scales[draws.setting, 3]) * draws.noise
    samples = centre + spread[draws.setting].T * draws.normal + noise
    low, high = np.quantile(samples, ((1 - level) / 2, (1 + level) / 2), axis=1)
    return low, high
