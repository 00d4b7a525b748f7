"""The Gaussian process over slots is the textbook's, and what it makes of a candidate is the expected improvement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from edgemeta.search.surrogate import improvement, posterior


def one_hot(picks, options=4):
    return np.eye(options)[picks].reshape(len(picks), -1)


def test_it_is_the_posterior_of_an_independent_implementation():
    """Slots that differ are half the squared distance of one-hot codes, so its kernel is the squared exponential."""
    rng = np.random.default_rng(0)
    told, asked, above = rng.integers(0, 4, (9, 5)), rng.integers(0, 4, (6, 5)), rng.normal(size=9)
    kernel = ConstantKernel(0.5**2) + ConstantKernel(0.8**2) * RBF(math.sqrt(2.0)) + WhiteKernel(0.3**2)
    other = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-12).fit(one_hot(told), above)
    wanted, spread = other.predict(one_hot(asked), return_std=True)
    mean, sd = posterior(told, above, asked, structure=0.8, noise=0.3, reach=2.0, level=0.5)
    np.testing.assert_allclose(mean, wanted, rtol=1e-6)
    np.testing.assert_allclose(sd, spread, rtol=1e-6)


def test_nothing_told_is_the_prior():
    mean, sd = posterior(np.zeros((0, 3), int), np.zeros(0), np.zeros((2, 3), int), structure=3.0, noise=4.0, reach=1.0)
    assert mean.tolist() == [0, 0] and sd.tolist() == [5, 5]


def test_the_improvement_is_the_mean_of_what_lies_above():
    draws = np.random.default_rng(0).normal(0.2, 0.5, 400_000)
    found = improvement(np.array([0.2, 5.0]), np.array([0.5, 1e-9]), 0.6)
    assert found[0] == pytest.approx(np.maximum(draws - 0.6, 0).mean(), rel=0.02)
    assert found[1] == pytest.approx(4.4)
    assert improvement(np.array([0.2]), np.array([0.5]), -math.inf).tolist() == [0.2]
