"""Which networks to time, against brute force and against chance."""

from __future__ import annotations

import numpy as np
import pytest

from edgemeta.latency import choose
from tests.latency.pretend import POOL


@pytest.fixture(params=["cells", "toys"])
def lab(request):
    return request.getfixturevalue(request.param)


def left(total: np.ndarray, chosen: list[int]) -> float:
    """Variance of all candidates, summed, once some are timed."""
    timed = total[np.ix_(chosen, chosen)] + choose.NOISE_SD**2 * np.eye(len(chosen))
    return float(np.trace(total - total[:, chosen] @ np.linalg.solve(timed, total[chosen])))


def test_a_covariance_is_one(lab):
    total = choose.covariance(lab.ground.prior, lab.features[:POOL])
    assert np.allclose(total, total.T)
    assert np.linalg.eigvalsh(total).min() > -1e-8
    assert (np.diag(total) > 0).all()


def test_each_pick_is_the_best_one(lab):
    """Greedy is brute force for one pick; for the next too, given those before."""
    features = lab.features[:40]
    total = choose.covariance(lab.ground.prior, features)
    chosen = choose.design(lab.ground.prior, features, 4)
    for step in range(4):
        before = chosen[:step]
        others = [i for i in range(40) if i not in before]
        best = min(others, key=lambda i: left(total, [*before, i]))
        assert left(total, [*before, chosen[step]]) == pytest.approx(left(total, [*before, best]), rel=1e-6)


def test_picks_are_distinct_and_more_only_adds(lab):
    features = lab.features[:POOL]
    chosen = choose.design(lab.ground.prior, features, 25)
    assert len(set(chosen)) == 25 and all(0 <= i < POOL for i in chosen)
    assert choose.design(lab.ground.prior, features, 10) == chosen[:10]


def test_asking_for_more_than_there_are_gives_all(lab):
    assert sorted(choose.design(lab.ground.prior, lab.features[:6], 20)) == list(range(6))


def test_a_network_is_never_chosen_twice(lab):
    """Not even where all tell the same, and timing the first again would help as much."""
    assert sorted(choose.design(lab.ground.prior, lab.features[[0] * 5], 5)) == list(range(5))


def test_twins_are_not_both_timed_first(lab):
    """A second copy of the first pick tells little."""
    features = lab.features[:40]
    first = choose.design(lab.ground.prior, features, 1)[0]
    doubled = np.vstack([features, features[first]])
    assert not {first, 40} <= set(choose.design(lab.ground.prior, doubled, 5))


def test_chosen_timings_leave_less_variance_than_random_ones(lab):
    total = choose.covariance(lab.ground.prior, lab.features[:POOL])
    ours = left(total, choose.design(lab.ground.prior, lab.features[:POOL], 5))
    random = [left(total, lab.drawn(5, seed=seed).tolist()) for seed in range(20)]
    assert ours < min(random)


def test_chosen_timings_predict_better_than_random_ones(cells):
    """Over devices that are not in the prior, in root mean square error of log latency: what the design lowers."""
    design = np.array(choose.design(cells.ground.prior, cells.features[:POOL], 5))
    ours, random = [], []
    for device in range(12):
        for rows, found in ((design, ours), (cells.drawn(5, seed=device), random)):
            found.append(cells.error(cells.fit(rows, cells.ms[rows, device]), device))
    assert np.mean(ours) < 0.9 * np.mean(random)
