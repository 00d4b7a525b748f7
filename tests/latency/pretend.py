"""Simulated devices that are in no prior, and networks that shaped none: what a prediction can be held against."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from edgemeta.latency import fewshot, simulate, unseen
from edgemeta.latency.parts import Parts, count
from edgemeta.types import Arch

POOL = 100  # of a lab's networks may be timed, the others are held out
OF_TRUTH = 4242  # seed; the priors' devices have another
SLOW = 3.0  # ms of a typical network


class Lab(NamedTuple):
    """Networks of a space and what each of several devices takes for them."""

    ground: unseen.Ground
    archs: list[Arch]
    parts: Parts
    features: np.ndarray  # (networks, features)
    ms: np.ndarray  # (networks, devices)

    @property
    def held(self) -> np.ndarray:
        return np.arange(POOL, len(self.archs))

    def drawn(self, timings: int, *, seed: int) -> np.ndarray:
        """Networks to time."""
        return np.random.default_rng(seed).choice(POOL, timings, replace=False)

    def fit(self, rows: np.ndarray, latency_ms: np.ndarray) -> fewshot.Posterior:
        return fewshot.fit(self.ground.prior, self.features[rows], latency_ms)

    def rank(self, posterior: fewshot.Posterior, device: int) -> float:
        """Rank correlation over the held-out networks."""
        predicted = fewshot.mean(posterior, self.features[self.held])
        return float(spearmanr(predicted, self.ms[self.held, device])[0])

    def error(self, posterior: fewshot.Posterior, device: int) -> float:
        """Root mean square error of log latency over the held-out networks."""
        predicted = fewshot.mean(posterior, self.features[self.held])
        return float(np.sqrt(np.mean((predicted - np.log(self.ms[self.held, device])) ** 2)))


def lab(name: str, *, networks: int, devices: int) -> Lab:
    ground, rng = unseen.ground(name), Random(7)
    archs = [ground.space.sample(rng=rng) for _ in range(networks)]
    parts = count([ground.space.ops(arch) for arch in archs])
    drawn = simulate.draw(devices, rng=np.random.default_rng(OF_TRUTH))
    logs = simulate.log_times(parts, drawn, simulate.scales(ground.typical, drawn))
    return Lab(ground, archs, parts, ground.prior.basis(parts), SLOW * np.exp(logs.astype(float)))
