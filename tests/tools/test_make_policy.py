"""The parts of making the policy that ships: reading scores, carrying them to other networks, devices."""

from __future__ import annotations

import json
import math
from random import Random

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgemeta.latency import profile
from edgemeta.space.presets import edge
from tools import make_policy

SPACE = edge()


def points(arch) -> float:
    """Work helps, less and less; the kernel of the first stage matters, too; no score is exact."""
    noise = Random(str(arch)).gauss(0, 0.2)
    return 100 - 60 * sum(op.macs for op in SPACE.ops(arch)) ** -0.15 - 2 * arch.picks[2] + noise


@pytest.fixture(scope="module")
def archs():
    rng = Random(0)
    return [SPACE.sample(rng=rng) for _ in range(160)]


def test_scores_are_carried_to_networks_that_were_never_scored(archs):
    known, others = archs[:60], archs[60:]
    found, left_out = make_policy.carried(SPACE, {arch: points(arch) for arch in known}, others)
    assert spearmanr(found, [points(arch) for arch in others]).statistic > 0.9
    assert left_out > 0.85


def test_every_domain_and_number_of_shots_is_a_task_of_its_own_scored_on_validation_classes(tmp_path, archs):
    tests = [
        ("glyphs", "val", 1, 0.5),
        ("glyphs", "val", 5, 0.7),
        ("omniglot", "val", 1, 0.9),
        ("glyphs", "test", 1, 0.0),
    ]
    rows = [dict(zip(("data", "split", "shot", "accuracy"), row, strict=True)) for row in tests]
    for i, arch in enumerate(archs[: make_policy.FEWEST]):
        (tmp_path / f"{i}.json").write_text(json.dumps({"arch": str(arch), "tests": rows}))
    space, scored = make_policy._scored(tmp_path)
    assert space == SPACE and set(scored) == set(archs[: make_policy.FEWEST])
    assert scored[archs[0]] == pytest.approx({"glyphs 1": 50.0, "glyphs 5": 70.0, "omniglot 1": 90.0})
    (tmp_path / "0.json").unlink()
    with pytest.raises(SystemExit, match="run tools/make_zoo.py first"):
        make_policy._scored(tmp_path)


def test_devices_are_those_that_ship_and_simulated_ones(archs):
    found = make_policy._devices(SPACE, archs[:40], simulated=3, seed=0)
    real = {own.device for path in profile.available().values() if not (own := profile.load(path)).synthetic}
    assert set(found) == real | {f"simulated {i}" for i in range(3)}
    work = np.log([sum(op.macs for op in SPACE.ops(arch)) for arch in archs[:40]])
    for log_ms in found.values():
        assert log_ms.shape == (40,) and np.isfinite(log_ms).all() and math.isfinite(log_ms.std())
        assert spearmanr(log_ms, work).statistic > 0.5
