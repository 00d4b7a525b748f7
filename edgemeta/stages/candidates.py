"""From ranked candidates to the bundle that ships: the first one whose *measured* cost is under every cap."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from edgemeta.contracts import Learner, Params
from edgemeta.errors import Infeasible, flag
from edgemeta.latency.cost import energy_mj
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, int8
from edgemeta.nets.build import build
from edgemeta.search.feasible import violation
from edgemeta.search.jobs import load_data, load_weights
from edgemeta.search.problem import Problem
from edgemeta.stages import precision
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
    compared: precision.Compared | None = None  # with its body in the other precision, where there was a choice
    lost: bool = False  # the device wants int8, and int8 loses accuracy

    def fits(self, cap: Cost) -> bool:
        return self.cost.fits(cap) and not self.lost


def first_fitting(
    target: Path,
    candidates: Sequence[Candidate],
    problem: Problem,
    profile: Profile,
    *,
    measure: bool,
    judge: precision.Judge | None = None,
) -> tuple[Outcome, list[Outcome]]:
    """Write the bundle of the first candidate under the caps to `target`; also those refused before it.

    Without `measure` the device is elsewhere: the predicted latency stands, and the manifest says so by carrying no
    measurement. A bundle already at `target` stays until its successor has proved to fit. Where the problem allows
    int8, both bodies are made and compared by the `judge`, by default on the problem's validation classes.
    """
    folders = [target.with_name(f".{target.name}.{name}") for name in ("candidate", "int8")]
    refused: list[Outcome] = []
    judge = judge or (precision.judge_of(problem) if problem.int8 else None)
    try:
        for candidate in candidates:
            staged, outcome = _try(folders, candidate, problem, profile, measure, judge)
            if outcome.fits(problem.cap):
                bundle.move(staged, target)
                return outcome, refused
            refused.append(outcome)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    raise Infeasible(_advice(refused, problem))


def _try(
    folders: Sequence[Path],
    candidate: Candidate,
    problem: Problem,
    profile: Profile,
    measure: bool,
    judge: precision.Judge | None,
) -> tuple[Path, Outcome]:
    """The bundle of a candidate in one of the folders, and what it costs."""
    floats, quantised = folders
    net, must = build(problem.space.ops(candidate.arch)), profile.precision == "int8"
    learner, slow = LEARNERS[candidate.learner](net), load_weights(candidate.weights)
    if must and not learner.on_features:
        raise Infeasible(f"{learner.name} adapts the body, which stays float; {profile.device} was timed on int8")
    how = (candidate, learner, slow, problem, profile)
    outcome = _written(floats, *how, measure=measure)
    if judge is None or not learner.on_features:
        return floats, outcome
    body = int8.quantise(net, slow, judge.calibration)
    other = _written(quantised, *how, measure=measure, body=body)
    here = precision.How(measure, profile.threads, must)
    told = precision.compare(judge, learner, slow, floats, quantised, problem.cap, here)
    staged, chosen = (quantised, other) if told.precision == "int8" else (floats, outcome)
    bundle.update_facts(staged, {"precision": told._asdict()})
    return staged, chosen._replace(compared=told, lost=must and told.precision != "int8")


def _written(
    staged: Path,
    candidate: Candidate,
    learner: Learner,
    slow: Params,
    problem: Problem,
    profile: Profile,
    *,
    measure: bool,
    body: int8.Quantised | None = None,
) -> Outcome:
    predicted = replace(problem, int8=body is not None).cost(candidate.arch)
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
    polarity = "ink-high" if data.ink_high and learner.net.in_shape[0] == 1 else "as-is"
    shared: dict[str, Any] = {"slow": slow, "learner": learner, "seed": problem.seed, "scale": data.scale, "body": body}
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
    """Image to class scores: the body, where a bundle has one of its own, and the classification after it."""
    return sum(measured[name]["median_ms"] for name in ("body_ms", "classify_ms") if measured.get(name))


def _advice(refused: Sequence[Outcome], problem: Problem) -> str:
    if refused and all(outcome.lost for outcome in refused):
        why = refused[0].compared.why if refused[0].compared else ""
        return f"{len(refused)} candidates became bundles, none in int8, which {problem.device} was timed on: {why}"
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
