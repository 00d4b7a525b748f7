from __future__ import annotations

from random import Random

import numpy as np
import pytest

from edgemeta.latency import cover, features
from edgemeta.latency.solve import Sample, interval, solve
from edgemeta.space.presets import edge


def _true_ms(op) -> float:
    """A made-up device: launches, padded work, memory; depthwise pays double."""
    return 0.002 + 2e-7 * op.macs * (2 if op.groups > 1 else 1) + 3e-7 * op.act_bytes


def _predict(solved, ops) -> float:
    slopes = zip(solved.slopes_ms.values(), features.beyond(ops), strict=True)
    return solved.run_ms + sum(solved.op_ms[op.key] for op in ops) + sum(slope * over for slope, over in slopes)


@pytest.fixture(scope="module")
def solved(tiny):
    rng, noise = Random(0), np.random.default_rng(0)
    samples = []
    for _ in range(150):
        ops = tiny.ops(tiny.sample(rng=rng))
        ms = (0.01 + sum(map(_true_ms, ops))) * noise.lognormal(0, 0.02)
        samples.append(Sample(ops, ms))
    return solve(samples, cover.operators(tiny))


def test_networks_never_seen_are_predicted(solved, tiny):
    rng, errors, held = Random(1), [], []
    for _ in range(100):
        ops = tiny.ops(tiny.sample(rng=rng))
        truth = 0.01 + sum(map(_true_ms, ops))
        guess = _predict(solved, ops)
        errors.append(abs(guess / truth - 1))
        held.append(solved.low_ratio <= truth / guess <= solved.high_ratio)
    assert np.mean(errors) < 0.02 and max(errors) < 0.1 and np.mean(held) > 0.9


def test_operators_are_positive_and_their_spread_finite(solved, tiny):
    assert set(solved.op_ms) == set(cover.operators(tiny))
    assert min(solved.op_ms.values()) > 0
    assert np.isfinite(list(solved.op_sd_ms.values())).all() and min(solved.op_sd_ms.values()) >= 0


def test_a_cache_that_ends_is_found():
    """Beyond 512 KiB each MiB costs .1 ms more on this made-up device."""
    space, rng = edge(), Random(0)
    drawn = [space.ops(space.sample(rng=rng)) for _ in range(200)]
    truth = [0.01 + sum(map(_true_ms, ops)) + 0.1 * features.beyond(ops)[2] for ops in drawn]
    found = solve([Sample(ops, ms) for ops, ms in zip(drawn, truth, strict=True)], cover.operators(space))
    assert min(found.slopes_ms.values()) >= 0
    errors = [abs(_predict(found, ops) / ms - 1) for ops, ms in zip(drawn, truth, strict=True)]
    assert np.mean(errors) < 0.02


def test_one_sample_is_enough_to_answer(tiny, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    answer = solve([Sample(ops, 0.1)], cover.operators(tiny))
    assert np.isfinite(list(answer.op_ms.values())).all()


def test_interval_holds_nine_in_ten_of_what_comes_next():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        ratios = rng.lognormal(0, 0.05, 101)
        low, high = interval(ratios[:100])
        held.append(low <= ratios[100] <= high)
    assert 0.86 <= np.mean(held) <= 0.95


def test_interval_of_few_or_biased_ratios_still_holds_the_prediction():
    assert interval(np.array([])) == (1.0, 1.0)
    assert interval(np.array([1.2, 1.3])) == (1.0, 1.3)
