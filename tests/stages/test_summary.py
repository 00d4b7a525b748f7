from dataclasses import replace
from random import Random

import pytest
import torch

from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.stages import summary
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch, NetTiming, Profile, Timing

SPACE = tiny((1, 12, 12))
ARCHS = list({SPACE.sample(rng=Random(seed)): None for seed in range(14)})[:10]
UNMEASURED = {"refused": [], "winner": {"measured": None}}


def op_ms(op) -> float:
    return 1e-3 + op.macs / 3e7


def profile(*, run_ms: float = 0.004) -> Profile:
    """A device whose networks take the sum of their operators, and `run_ms` for the run."""
    rows = {op.key: Timing(op_ms(op), 0.0, 3) for arch in ARCHS for op in SPACE.ops(arch)}
    nets = tuple(NetTiming(a, Timing(run_ms + sum(map(op_ms, SPACE.ops(a))), 0.0, 2), SPACE.ops(a)) for a in ARCHS)
    constants = {"run_ms": run_ms, "low_ratio": 0.9, "high_ratio": 1.1}
    known = {"affinity": (0,), "drift": ((0.0, 1.0), (1.0, 1.1)), "doubts": ("a busy machine",)}
    settings = ("box", "onnxruntime", {}, 1, "fp32", 1, "2026-01-02", "A CPU", "unknown", False)
    return Profile(*settings, constants, rows, nets, **known)


def checks(tmp_path, profile: Profile, noted=UNMEASURED):
    return list(summary._checks(RunFolder(tmp_path), noted, profile, predictor(profile), SPACE))


def test_shares_are_those_of_the_prediction_and_the_run_takes_the_rest():
    own, ops = profile(), SPACE.ops(ARCHS[0])
    whole = predictor(own).latency(ops).ms
    found = summary.shares(ops, whole, own)
    assert sum(found.values()) == pytest.approx(1) and found["run"] == pytest.approx(0.004 / whole)
    assert found["gap"] == pytest.approx(1e-3 / whole)


def test_every_network_of_the_space_is_held_against_its_prediction(tmp_path):
    other = NetTiming(Arch("elsewhere", (0,)), Timing(1.0, 0.0, 2))
    found = checks(tmp_path, replace(profile(), nets=(*profile().nets, other)))
    assert [check.name for check in found] == [str(arch) for arch in ARCHS]
    assert all(check.predicted.ms == pytest.approx(check.measured_ms) and check.shares for check in found)


def test_bundles_are_checked_as_measured(tmp_path):
    timed = zip(ARCHS[:2], (0.5, 0.25), strict=True)
    outcomes = [{"picks": list(arch.picks), "measured": {"body_ms": {"median_ms": ms}}} for arch, ms in timed]
    found = checks(tmp_path, profile(), {"refused": outcomes[:1], "winner": outcomes[1]})
    later = {check.name: check.measured_ms for check in found if check.group == "search"}
    assert later == {str(ARCHS[0]): 0.5, str(ARCHS[1]): 0.25}


def test_of_two_bundles_of_a_network_the_main_one_is_told(tmp_path):
    """Its body is timed again for each learner's bundle; the page speaks of the winner's."""
    folder = RunFolder(tmp_path)
    for name, ms in (("protonet", 0.25), ("anil", 0.5)):
        place = folder.bundle if name == "protonet" else summary.sibling(folder.bundle, name)
        learner = LEARNERS[name](build(SPACE.ops(ARCHS[0])))
        slow = learner.init(rng=torch.Generator().manual_seed(0))
        bundle.write(place, slow=slow, learner=learner, facts={"picks": list(ARCHS[0].picks)})
        measured = bundle.measure(place)
        measured["body_ms"]["median_ms"] = ms
        bundle.update_facts(place, {"picks": list(ARCHS[0].picks)}, measured=measured)
    assert summary._bodies(folder, UNMEASURED, SPACE, "fp32") == {ARCHS[0]: 0.25}


def test_a_device_seen_ten_times_has_checks_with_intervals_and_no_operators(tmp_path):
    few = replace(profile(), ops={}, overhead={}, drift=(), doubts=())
    found = checks(tmp_path, few)
    assert len(found) == 10 and not any(check.shares for check in found)
    assert all(0 < check.predicted.low_ms < check.predicted.ms < check.predicted.high_ms for check in found)
    assert not summary._adds_up(few) and summary._adds_up(profile())
