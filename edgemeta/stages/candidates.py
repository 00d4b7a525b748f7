"""From ranked candidates to the bundle that ships: the first one whose *measured* cost is under every cap."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from edgemeta.errors import Infeasible, flag
from edgemeta.latency.cost import energy_mj
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.search.feasible import violation
from edgemeta.search.jobs import load_data, load_weights
from edgemeta.search.problem import Problem
from edgemeta.types import Arch, Cost, Profile

RETRIES = 2  # a busy moment must not cost a candidate its place


@dataclass(frozen=True)
class Candidate:
    """A trained network that could ship."""

    arch: Arch
    learner: str
    weights: Path
    episodes: int  # of meta-training behind the weights
    tests: tuple[Mapping[str, Any], ...] = ()  # test accuracies, for the manifest


def searched(arch: Arch, fidelity: int, problem: Problem) -> Candidate:
    """A network as the search trained it, with the weights that this left."""
    return Candidate(arch, problem.learner, problem.weights_of(arch, fidelity), fidelity)


class Outcome(NamedTuple):
    """A candidate as a bundle, and what it really costs."""

    candidate: Candidate
    cost: Cost
    measured: Mapping[str, Any] | None  # None where the device is not this machine


def first_fitting(
    target: Path, candidates: Sequence[Candidate], problem: Problem, profile: Profile, *, measure: bool
) -> tuple[Outcome, list[Outcome]]:
    """Write the bundle of the first candidate under the caps to `target`; also those refused before it.

    Without `measure` the device is elsewhere: the predicted latency stands, and the manifest says so by carrying no
    measurement. A bundle already at `target` stays until its successor has proved to fit.
    """
    staged = target.with_name(f".{target.name}.candidate")
    refused: list[Outcome] = []
    try:
        for candidate in candidates:
            outcome = _try(staged, candidate, problem, profile, measure)
            if outcome.cost.fits(problem.cap):
                bundle.move(staged, target)
                return outcome, refused
            refused.append(outcome)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    raise Infeasible(_advice(refused, problem))


def _try(staged: Path, candidate: Candidate, problem: Problem, profile: Profile, measure: bool) -> Outcome:
    net = build(problem.space.ops(candidate.arch))
    predicted = problem.cost(candidate.arch)
    facts = {
        "space": problem.space.name,
        "picks": list(candidate.arch.picks),
        "data": problem.data.name,
        "seed": problem.seed,
        "episodes": candidate.episodes,
        "weights": candidate.weights.name,
        "device": profile.device,
        "tests": [dict(row) for row in candidate.tests],
    }
    data = load_data(problem.data)
    polarity = "ink-high" if data.ink_high and net.in_shape[0] == 1 else "as-is"
    learner, slow = LEARNERS[candidate.learner](net), load_weights(candidate.weights)
    shared: dict[str, Any] = {"slow": slow, "learner": learner, "seed": problem.seed, "scale": data.scale}
    bundle.write(staged, facts=facts, polarity=polarity, predicted=predicted, cap=problem.cap, **shared)
    graph_kib = bundle.read(staged).costs.graph_kib
    if not measure:
        return Outcome(candidate, replace(predicted, flash_kib=graph_kib), None)
    measured = _measured(staged, profile.threads, problem.cap)
    bundle.update_facts(staged, {}, measured=measured)
    taken = inference_ms(measured)
    real = Cost(taken, predicted.ram_kib, graph_kib, energy_mj(taken, problem.predictor))
    return Outcome(candidate, real, measured)


def _measured(staged: Path, threads: int, cap: Cost) -> Mapping[str, Any]:
    """One measurement where it is under the cap, else the median of three."""
    attempts = [bundle.measure(staged, threads=threads)]
    if inference_ms(attempts[0]) > cap.latency_ms:
        attempts += [bundle.measure(staged, threads=threads) for _ in range(RETRIES)]
    return sorted(attempts, key=inference_ms)[len(attempts) // 2]


def inference_ms(measured: Mapping[str, Any]) -> float:
    """Image to class scores: the body and the classification after it."""
    return measured["body_ms"]["median_ms"] + measured["classify_ms"]["median_ms"]


def _advice(refused: Sequence[Outcome], problem: Problem) -> str:
    nearest = min(refused, key=lambda outcome: violation(outcome.cost, problem.cap), default=None)
    if nearest is None:
        return f"no network under {problem.cap} is trained; raise --trials or --seconds"
    over = nearest.cost.over(problem.cap)
    flags = " or ".join(map(flag, over))
    quiet = ", or profile again on a quiet machine" if nearest.measured and "latency_ms" in over else ""
    return (
        f"{len(refused)} candidates became bundles, none fits {problem.cap}; the nearest takes {nearest.cost}; "
        f"raise {flags}{quiet}"
    )
