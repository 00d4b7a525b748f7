"""From ranked candidates to the bundle that ships, measured on this machine."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgemeta.errors import Infeasible
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.search.jobs import DataSpec, save_weights
from edgemeta.search.problem import Problem
from edgemeta.stages.candidates import Candidate, first_fitting, inference_ms
from edgemeta.types import Cost
from tests.blobs import blob_pool


@pytest.fixture
def problem(tmp_path, tiny, profile):
    pool = blob_pool(classes=20, seed=0)
    np.savez(tmp_path / "blobs.npz", x=pool.x.numpy().astype(np.float32), y=np.repeat(np.arange(20), 10))
    data = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path), (1, 12, 12), 0)
    return Problem(tiny, predictor(profile), Cost(), "protonet", data, tmp_path)


def candidate(problem, tmp_path, **settings) -> Candidate:
    """An untrained network as a candidate."""
    arch = problem.space.arch([settings, settings])
    slow = LEARNERS["protonet"](build(problem.space.ops(arch))).init(rng=torch.Generator().manual_seed(0))
    return Candidate(arch, "protonet", save_weights(tmp_path / f"{arch.picks}.safetensors", slow), 1)


def test_a_candidate_over_the_cap_when_measured_gives_way_to_the_next(problem, profile, tmp_path):
    large = candidate(problem, tmp_path, width=8, depth=2, kind="mb6", kernel=5)
    small = candidate(problem, tmp_path, width=4, down="stride")
    probe = tmp_path / "probe"
    sizes = [first_fitting(probe, [each], problem, profile, measure=True)[0].cost for each in (large, small)]
    between = replace(problem, cap=Cost(latency_ms=(sizes[0].latency_ms + sizes[1].latency_ms) / 2))
    outcome, refused = first_fitting(tmp_path / "bundle", [large, small], between, profile, measure=True)
    manifest = bundle.read(tmp_path / "bundle")
    assert outcome.candidate == small and [each.candidate for each in refused] == [large]
    assert inference_ms(manifest.costs.measured.model_dump()) <= between.cap.latency_ms
    assert not list(tmp_path.glob(".bundle*"))


def test_nothing_that_fits_leaves_the_old_bundle(problem, profile, tmp_path):
    small = candidate(problem, tmp_path, width=4)
    first_fitting(tmp_path / "bundle", [small], problem, profile, measure=False)
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()
    impossible = replace(problem, cap=Cost(flash_kib=1.0))
    with pytest.raises(Infeasible, match="raise --flash-kib"):
        first_fitting(tmp_path / "bundle", [small], impossible, profile, measure=False)
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before


def test_energy_of_a_bundle_follows_its_measured_latency(problem, profile, tmp_path):
    small = candidate(problem, tmp_path, width=4)
    rated = replace(profile, overhead={**profile.overhead, "per_ms_mj": 10.0})
    capped = replace(problem, predictor=predictor(rated), cap=Cost(energy_mj=1e6))
    outcome, _ = first_fitting(tmp_path / "bundle", [small], capped, rated, measure=True)
    costs = bundle.read(tmp_path / "bundle").costs
    assert outcome.cost.energy_mj == 10.0 * inference_ms(costs.measured.model_dump())
    assert costs.predicted.energy_mj == pytest.approx(10.0 * costs.predicted.latency_ms)
    assert costs.caps.energy_mj == 1e6
    with pytest.raises(Infeasible, match="raise --energy-mj"):
        tight = replace(capped, cap=Cost(energy_mj=1e-6))
        first_fitting(tmp_path / "bundle", [small], tight, rated, measure=True)


def test_a_bundle_says_by_none_that_energy_was_not_measured(problem, profile, tmp_path):
    outcome, _ = first_fitting(tmp_path / "b", [candidate(problem, tmp_path)], problem, profile, measure=False)
    costs = bundle.read(tmp_path / "b").costs
    assert costs.predicted.energy_mj is None and costs.caps.energy_mj is None
    assert outcome.cost.energy_mj == float("inf") and outcome.cost.fits(problem.cap)


def test_the_manifest_has_the_scale_of_the_data(problem, profile, tmp_path):
    """Float arrays are taken as they are; only bytes are divided by 255."""
    first_fitting(tmp_path / "bundle", [candidate(problem, tmp_path)], problem, profile, measure=False)
    assert bundle.read(tmp_path / "bundle").normalisation.scale == 1.0
