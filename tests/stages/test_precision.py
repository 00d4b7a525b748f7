"""Float or int8: what is compared, what decides, and that nothing ships slower or worse unsaid."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from edgemeta.errors import BadConfig, Infeasible
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.search.jobs import DataSpec, save_weights
from edgemeta.search.problem import Problem
from edgemeta.stages import precision, telling
from edgemeta.stages.candidates import Candidate, first_fitting
from edgemeta.types import Cost
from tests.blobs import blob_pool

WIDE = {"width": 8, "depth": 2, "kernel": 5}


@pytest.fixture
def problem(tmp_path, tiny, profile):
    pool = blob_pool(classes=20, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(20), 10))
    data = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path), (1, 12, 12), 0)
    head_kib = partial(bundle.head_kib, "protonet")
    return Problem(tiny, predictor(profile), Cost(), "protonet", data, tmp_path, head_kib=head_kib, way=3, int8=True)


@pytest.fixture
def candidate(problem, tmp_path) -> Candidate:
    arch = problem.space.arch([WIDE, WIDE])
    net = build(problem.space.ops(arch))
    slow = LEARNERS["protonet"](net).init(rng=torch.Generator().manual_seed(0))
    net.body(slow, torch.from_numpy(precision.judge_of(problem).calibration), train=True)
    return Candidate(arch, "protonet", save_weights(tmp_path / "weights.safetensors", slow), 1)


def judged(problem, floats: float, int8: float) -> precision.Judge:
    """Of known accuracies, in the order in which they are asked for."""
    answers = iter((floats, int8))
    return precision.judge_of(problem)._replace(accuracy=lambda learner, slow, z: next(answers))


def row(accuracy=0.9, body_ms=1.0, graph_kib=100.0):
    return {"accuracy": accuracy, "body_ms": body_ms, "graph_kib": graph_kib}


@pytest.mark.parametrize(
    ("int8", "cap", "must", "chosen", "why"),
    [
        (row(body_ms=0.8), Cost(), False, "int8", "int8 takes 0.80 of the time"),
        (row(body_ms=1.2), Cost(), False, "fp32", "int8 takes 1.20 of the time"),
        (row(accuracy=0.896, body_ms=0.8), Cost(), False, "int8", "0.80"),
        (row(accuracy=0.894, body_ms=0.8), Cost(), False, "fp32", "loses 0.60 points"),
        (row(body_ms=1.2, graph_kib=40.0), Cost(flash_kib=50.0), False, "int8", "only int8 is under the flash cap"),
        (row(body_ms=1.2, graph_kib=60.0), Cost(flash_kib=50.0), False, "fp32", "1.20"),
        (row(body_ms=None), Cost(), False, "fp32", "not this machine"),
        (row(body_ms=None), Cost(), True, "int8", "timed on int8"),
        (row(accuracy=0.5, body_ms=None), Cost(), True, "fp32", "loses 40.00 points"),
    ],
)
def test_int8_ships_where_it_is_worth_it(int8, cap, must, chosen, why):
    found = precision._chosen(row(), int8, cap, must=must)
    assert found[0] == chosen and why in found[1]


def test_int8_whose_accuracy_cannot_be_told_does_not_ship():
    found = precision._chosen(row(accuracy=None), row(accuracy=None, body_ms=0.5), Cost(), must=False)
    assert found[0] == "fp32" and "cannot be told" in found[1]


def test_both_bodies_are_made_compared_and_told(problem, profile, candidate, tmp_path):
    outcome, _ = first_fitting(tmp_path / "bundle", [candidate], problem, profile, measure=True)
    told, found = outcome.compared, bundle.read(tmp_path / "bundle")
    assert told.precision == found.precision and found.facts["precision"] == told._asdict()
    assert abs(told.fp32["accuracy"] - told.int8["accuracy"]) < 0.05 and told.fp32["accuracy"] > 0.4
    assert min(told.fp32["body_ms"], told.int8["body_ms"]) > 0
    shown = "\n".join(telling.precision_text(tmp_path / "bundle", found))
    card = (tmp_path / "bundle/README.md").read_text()
    assert "int8" in shown and "fp32" in shown and told.why in shown and told.why in card
    assert not list(tmp_path.glob(".bundle*"))


def test_a_flash_cap_that_only_int8_meets_is_met(problem, profile, candidate, tmp_path):
    floats, int8 = (replace(problem, int8=may).cost(candidate.arch).flash_kib for may in (False, True))
    capped = replace(problem, cap=Cost(flash_kib=(floats + int8) / 2))
    outcome, _ = first_fitting(
        tmp_path / "bundle", [candidate], capped, profile, measure=False, judge=judged(capped, 0.9, 0.9)
    )
    assert outcome.compared.precision == "int8" and outcome.cost.flash_kib <= capped.cap.flash_kib
    assert abs(outcome.cost.flash_kib - int8) < 1.5
    assert bundle.read(tmp_path / "bundle").costs.predicted.flash_kib == pytest.approx(int8)
    with pytest.raises(Infeasible, match="raise --flash-kib"):
        first_fitting(tmp_path / "other", [candidate], replace(capped, int8=False), profile, measure=False)


def test_a_device_of_int8_networks_gets_int8_or_nothing(problem, profile, candidate, tmp_path):
    device = replace(profile, precision="int8", device="board")
    asked = replace(problem, predictor=predictor(device), device="board")
    how = {"measure": False, "judge": judged(asked, 0.9, 0.9)}
    outcome, _ = first_fitting(tmp_path / "bundle", [candidate], asked, device, **how)
    assert outcome.compared.precision == "int8" and outcome.cost.ram_kib < problem.cost(candidate.arch).ram_kib
    judge = judged(asked, 0.9, 0.5)
    with pytest.raises(Infeasible, match="none in int8, which board was timed on: int8 loses 40.00 points"):
        first_fitting(tmp_path / "other", [candidate], asked, device, measure=False, judge=judge)
    with pytest.raises(Infeasible, match="maml adapts the body, which stays float"):
        first_fitting(tmp_path / "other", [replace(candidate, learner="maml")], asked, device, measure=False)


def test_int8_of_a_learner_on_images_is_refused_at_once(problem):
    with pytest.raises(BadConfig, match=r"int8 bundles of maml: .*choose one of: protonet"):
        precision.require("maml", problem)
    precision.require("anil", problem)
