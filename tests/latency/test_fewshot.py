"""Devices that are in no prior, predicted from a few of their timings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgemeta.latency import basis, fewshot, simulate
from tests.latency.pretend import Lab

DEVICES = range(10)
NOISE = 0.02  # standard deviation of log timings


@pytest.fixture(params=["cells", "toys"])
def lab(request) -> Lab:
    return request.getfixturevalue(request.param)


def noisy(lab: Lab, device: int, sd: float = NOISE) -> np.ndarray:
    """(networks,) one timing of each."""
    return lab.ms[:, device] * np.exp(sd * np.random.default_rng(device).standard_normal(len(lab.ms)))


def halfwidths(posterior: fewshot.Posterior, lab: Lab, level: float = 0.9) -> np.ndarray:
    low, high = fewshot.interval(posterior, lab.features[lab.held], level)
    return (high - low) / 2


def test_ten_exact_timings_predict_the_rest(lab):
    ranks = []
    for device in DEVICES:
        rows = lab.drawn(10, seed=device)
        ranks.append(lab.rank(lab.fit(rows, lab.ms[rows, device]), device))
    assert np.mean(ranks) > 0.98 and min(ranks) > 0.93


def test_more_timings_help_on_average(lab):
    errors = []
    for timings in (3, 7, 20):
        found = []
        for device in range(6):
            rows, ms = lab.drawn(20, seed=device)[:timings], noisy(lab, device)
            found.append(lab.error(lab.fit(rows, ms[rows]), device))
        errors.append(np.mean(found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_one_timing_already_says_something(lab):
    """The speed of the device; what differs between devices, the prior guesses."""
    rows = lab.drawn(1, seed=0)
    posterior = lab.fit(rows, lab.ms[rows, 0])
    assert lab.rank(posterior, 0) > 0.5
    assert fewshot.mean(posterior, lab.features[rows])[0] == pytest.approx(math.log(lab.ms[rows[0], 0]), abs=0.3)


@pytest.mark.parametrize("factor", [7.0, 1 / 64])
def test_times_scale(lab, factor):
    rows = lab.drawn(8, seed=1)
    ms = noisy(lab, 1)[rows]
    one, other = lab.fit(rows, ms), lab.fit(rows, factor * ms)
    shift = math.log(factor)
    assert fewshot.mean(other, lab.features) == pytest.approx(fewshot.mean(one, lab.features) + shift, abs=1e-8)
    for bound, moved in zip(fewshot.interval(one, lab.features), fewshot.interval(other, lab.features), strict=True):
        assert moved == pytest.approx(bound + shift, abs=1e-8)
    assert other.evidence == pytest.approx(one.evidence)


def test_the_order_of_timings_decides_nothing(lab):
    rows = lab.drawn(8, seed=2)
    ms = noisy(lab, 2)
    one, other = lab.fit(rows, ms[rows]), lab.fit(rows[::-1], ms[rows[::-1]])
    assert fewshot.mean(other, lab.features) == pytest.approx(fewshot.mean(one, lab.features), abs=1e-6)


def test_the_evidence_prefers_the_right_devices(lab):
    """A prior of the device itself and copies of it explains its timings better than one of another device."""
    of = lab.ground.prior.basis
    scale = simulate.scales(lab.ground.typical, drawn := simulate.draw(60, rng=np.random.default_rng(8)))
    logs = simulate.log_times(lab.parts, drawn, scale)
    made = [fewshot.learn(of, lab.features, np.exp(logs[:, i])) for i in range(60)]
    rows = lab.drawn(10, seed=3)
    mine, others = [], []
    for i in range(0, 12, 2):
        ms = np.exp(logs[rows, i].astype(float))
        for known, found in (([made[i]] * 3, mine), ([made[i + 1]] * 3, others)):
            centres = np.array(known).T
            prior = lab.ground.prior._replace(centres=centres, log_weight=np.full(3, -math.log(3)))
            found.append(fewshot.fit(prior, lab.features[rows], ms).evidence)
    assert np.mean(mine) > np.mean(others) + 1


def test_a_real_device_is_learned_from_many_timings(lab):
    """Its weights give latencies of networks back that were not among them."""
    known, rest = np.arange(200), np.arange(200, len(lab.archs))
    found = []
    for device in DEVICES:
        weights = fewshot.learn(lab.ground.prior.basis, lab.features[known], lab.ms[known, device])
        found.append(np.corrcoef(lab.features[rest] @ weights, np.log(lab.ms[rest, device]))[0, 1])
    assert np.median(found) > 0.9 and min(found) > 0.8


def test_what_real_devices_share_beyond_simulated_ones_is_learned(lab):
    """All real devices like some choices more than any simulated one would; sources tell the target's prediction so."""
    few = simulate.draw(300, rng=np.random.default_rng(0))
    of = basis.build(lab.ground.typical, few)
    features = of[0](lab.parts)
    choices = features[:, of[0].blocks[2]]
    quirk = choices @ np.random.default_rng(1).normal(0, 0.3, choices.shape[1])
    ms = lab.ms * np.exp(quirk - quirk.mean())[:, None]
    real = [fewshot.learn(of[0], features[:200], ms[:200, device]) for device in range(5, 10)]
    errors = []
    for known in ((), real):
        prior = fewshot.prior(lab.ground.typical, known, basis_of=of)
        assert prior.centres.shape[1] == 300 + len(known)
        assert np.exp(prior.log_weight).sum() == pytest.approx(1)
        found = []
        for device in range(5):
            rows = lab.drawn(5, seed=device)
            predicted = fewshot.mean(fewshot.fit(prior, features[rows], ms[rows, device]), features[200:])
            found.append(np.sqrt(np.mean((predicted - np.log(ms[200:, device])) ** 2)))
        errors.append(np.mean(found))
    assert errors[1] < 0.8 * errors[0]


def test_learning_survives_a_broken_timing(lab):
    """Extreme timings are clipped: one of a hundredfold length moves little."""
    ms = lab.ms[:200, 0].copy()
    features = lab.features[:200]
    clean = features @ fewshot.learn(lab.ground.prior.basis, features, ms)
    ms[5] *= 100
    broken = features @ fewshot.learn(lab.ground.prior.basis, features, ms)
    others = np.arange(200) != 5
    assert np.corrcoef(clean[others], broken[others])[0, 1] > 0.98


def test_whole_milliseconds_are_trusted_less(lab):
    rows = lab.drawn(10, seed=4)
    ms = np.round(40 * lab.ms[rows, 4])
    coarse, fine = lab.fit(rows, ms), lab.fit(rows, ms + 0.001)
    assert np.median(halfwidths(coarse, lab)) > np.median(halfwidths(fine, lab))


def test_an_outlier_moves_predictions_less_than_under_gaussian_noise(lab, monkeypatch):
    """One of ten timings is twice what it should be."""

    def moved() -> float:
        found = []
        for device in range(6):
            rows, ms = lab.drawn(10, seed=device), noisy(lab, device)
            wrong = ms[rows] * np.where(np.arange(10) == 0, 2.0, 1.0)
            fits = [fewshot.mean(lab.fit(rows, times), lab.features[lab.held]) for times in (ms[rows], wrong)]
            found.append(np.abs(fits[1] - fits[0]).mean())
        return float(np.mean(found))

    ours = moved()
    monkeypatch.setattr(fewshot, "TAIL", 1e6)  # Student's t with so many degrees of freedom is normal
    assert ours < 0.8 * moved()


def test_intervals_hold_what_they_should(lab):
    """Nine timings in ten, over devices and networks; timings scatter as those seen do."""
    inside = []
    for device in range(16):
        rows, ms = lab.drawn(10, seed=device), noisy(lab, device)
        low, high = fewshot.interval(lab.fit(rows, ms[rows]), lab.features[lab.held])
        log = np.log(ms[lab.held])
        inside.append(np.mean((low <= log) & (log <= high)))
    assert 0.8 <= np.mean(inside) <= 0.99
    assert min(inside) > 0.4


def test_intervals_nest(lab):
    rows = lab.drawn(5, seed=5)
    posterior = lab.fit(rows, noisy(lab, 5)[rows])
    bounds = [fewshot.interval(posterior, lab.features[lab.held], level) for level in (0.5, 0.8, 0.9, 0.98)]
    lows, highs = (np.array(side) for side in zip(*bounds, strict=True))
    assert (np.diff(lows, axis=0) <= 0).all() and (np.diff(highs, axis=0) >= 0).all()
    assert (lows[0] < highs[0]).all()


def test_the_mean_is_inside_its_interval(lab):
    for device in DEVICES:
        rows = lab.drawn(10, seed=device)
        posterior = lab.fit(rows, noisy(lab, device)[rows])
        mean = fewshot.mean(posterior, lab.features)
        low, high = fewshot.interval(posterior, lab.features)
        assert (low <= mean).all() and (mean <= high).all()


def test_intervals_are_narrow_where_it_was_timed_and_narrow_with_timings(lab):
    ms = noisy(lab, 6)
    widths = []
    for timings in (3, 20):
        rows = lab.drawn(20, seed=6)[:timings]
        posterior = lab.fit(rows, ms[rows])
        low, high = fewshot.interval(posterior, lab.features[rows])
        assert np.median((high - low) / 2) <= 1.05 * np.median(halfwidths(posterior, lab))
        widths.append(np.median(halfwidths(posterior, lab)))
    assert widths[1] < widths[0] / 1.5


def test_noisier_timings_make_wider_intervals(lab):
    rows = lab.drawn(20, seed=7)
    exact, rough = (np.median(halfwidths(lab.fit(rows, noisy(lab, 7, sd)[rows]), lab)) for sd in (0.0, 0.1))
    assert rough > 2 * exact


def test_the_same_interval_every_time_and_for_each_alone(lab):
    """An interval is a function of its architecture, not of those asked beside it."""
    rows = lab.drawn(5, seed=8)
    posterior = lab.fit(rows, noisy(lab, 8)[rows])
    again = lab.fit(rows, noisy(lab, 8)[rows])
    together = fewshot.interval(posterior, lab.features[:20])
    assert np.array_equal(together, fewshot.interval(again, lab.features[:20]))
    alone = fewshot.interval(posterior, lab.features[7:8])
    assert [bound[0] for bound in alone] == pytest.approx([bound[7] for bound in together], abs=1e-9)


def test_two_timings_of_the_same_network_agree_on_their_middle(lab):
    rows = np.array([3, 3, 40, 41, 42])
    ms = lab.ms[rows, 9] * np.array([0.98, 1.02, 1, 1, 1])
    posterior = lab.fit(rows, ms)
    assert fewshot.mean(posterior, lab.features[[3]])[0] == pytest.approx(math.log(lab.ms[3, 9]), abs=0.05)
