"""From ranked candidates to the bundle that ships: the first one whose *measured* cost is under every cap."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
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
from edgemeta.stages.meters import Meter, Reading, inference_ms, meter
from edgemeta.types import Arch, Cost, Profile


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
    measured: Mapping[str, Any] | None  # None where it was not measured
    compared: precision.Compared | None = None  # with its body in the other precision, where there was a choice
    lost: bool = False  # the device wants int8, and int8 loses accuracy
    how: str = ""  # the cost's latency came about: "measured on pi4-2"
    failed: str = ""  # why the device cannot run the bundle
    beside: tuple[Outcome, ...] = ()  # of those ranked below that were measured at the same time

    def fits(self, cap: Cost) -> bool:
        return self.cost.fits(cap) and not self.lost and not self.failed


def first_fitting(
    target: Path,
    candidates: Sequence[Candidate],
    problem: Problem,
    profile: Profile,
    *,
    measure: bool | Meter,
    judge: precision.Judge | None = None,
) -> tuple[Outcome, list[Outcome]]:
    """Write the bundle of the first candidate under the caps to `target`; also those refused before it.

    `measure` says where: True here, a meter on its devices, as many candidates at once as there are. Where the device
    is elsewhere (False) or gone the predicted latency stands; the manifest carries no measurement then, and its fact
    `latency` says why. A bundle already at `target` stays until its successor has proved to fit. Where the problem
    allows int8, both bodies are made and compared by the `judge`, by default on the problem's validation classes.
    """
    where = meter(measure)
    staging = target.with_name(f".{target.name}.candidates")
    refused: list[Outcome] = []
    judge = judge or (precision.judge_of(problem) if problem.int8 else None)
    waiting = iter(candidates)
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        while batch := list(islice(waiting, where.width)):
            made = [_made(staging / str(i), each, problem, profile, judge) for i, each in enumerate(batch)]
            read = where.read(
                [list(each.folders.values()) for each in made], threads=profile.threads, cap_ms=problem.cap.latency_ms
            )
            for i, (each, readings) in enumerate(zip(made, read, strict=True)):
                staged, outcome = _judged(each, readings, problem, profile, where, judge)
                if outcome.fits(problem.cap):
                    bundle.move(staged, target)
                    rest = zip(made[i + 1 :], read[i + 1 :], strict=True)
                    beside = tuple(_outcome(other, "fp32", own[0], problem) for other, own in rest)
                    return outcome._replace(beside=beside), refused
                refused.append(outcome)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    raise Infeasible(_advice(refused, problem))


class _Made(NamedTuple):
    """A candidate's bundles by their precision, not measured yet."""

    candidate: Candidate
    learner: Learner
    slow: Params
    folders: Mapping[str, Path]


def _made(
    staging: Path, candidate: Candidate, problem: Problem, profile: Profile, judge: precision.Judge | None
) -> _Made:
    net = build(problem.space.ops(candidate.arch))
    learner, slow = LEARNERS[candidate.learner](net), load_weights(candidate.weights)
    if profile.precision == "int8" and not learner.on_features:
        raise Infeasible(f"{learner.name} adapts the body, which stays float; {profile.device} was timed on int8")
    bodies: dict[str, int8.Quantised | None] = {"fp32": None}
    if judge is not None and learner.on_features:
        bodies["int8"] = int8.quantise(net, slow, judge.calibration)
    made = _Made(candidate, learner, slow, {name: staging / name for name in bodies})
    for name, body in bodies.items():
        _write(made.folders[name], made, problem, profile, body)
    return made


def _write(staged: Path, made: _Made, problem: Problem, profile: Profile, body: int8.Quantised | None) -> None:
    candidate, learner = made.candidate, made.learner
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
    predicted = _predicted(made, problem, int8=body is not None)
    shared: dict[str, Any] = {"slow": made.slow, "learner": learner, "seed": problem.seed, "scale": data.scale}
    shared |= {"facts": facts, "polarity": polarity, "body": body}
    bundle.write(staged, predicted=predicted, cap=problem.cap, **shared)


def _predicted(made: _Made, problem: Problem, *, int8: bool) -> Cost:
    return replace(problem, int8=int8).cost(made.candidate.arch)


def _judged(
    made: _Made,
    readings: Sequence[Reading],
    problem: Problem,
    profile: Profile,
    where: Meter,
    judge: precision.Judge | None,
) -> tuple[Path, Outcome]:
    """The bundle of a candidate that would ship, and what it costs."""
    read = dict(zip(made.folders, readings, strict=True))
    found = {name: _outcome(made, name, reading, problem) for name, reading in read.items()}
    if judge is None or "int8" not in found:
        return made.folders["fp32"], found["fp32"]
    must = profile.precision == "int8"
    how = precision.How(where.here, profile.threads, must, _bodies(read))
    floats, quantised = made.folders["fp32"], made.folders["int8"]
    told = precision.compare(judge, made.learner, made.slow, floats, quantised, problem.cap, how)
    staged = made.folders[told.precision]
    bundle.update_facts(staged, {"precision": told._asdict()})
    return staged, found[told.precision]._replace(compared=told, lost=must and told.precision != "int8")


def _outcome(made: _Made, name: str, reading: Reading, problem: Problem) -> Outcome:
    """Note in a bundle what was read of it."""
    staged, predicted = made.folders[name], _predicted(made, problem, int8=name == "int8")
    noted = bundle.update_facts(staged, {"latency": reading.told}, measured=reading.measured)
    cost = replace(predicted, flash_kib=noted.costs.graph_kib)
    if reading.measured:
        taken = inference_ms(reading.measured)
        cost = replace(cost, latency_ms=taken, energy_mj=energy_mj(taken, problem.predictor))
    return Outcome(made.candidate, cost, reading.measured, how=reading.told, failed=reading.failed)


def _bodies(read: Mapping[str, Reading]) -> dict[str, float]:
    """Milliseconds of each body, as the device they are for has timed them; {} where it has not."""
    timed = {name: reading.measured["body_ms"]["median_ms"] for name, reading in read.items() if reading.measured}
    return timed if len(timed) == len(read) else {}


def _advice(refused: Sequence[Outcome], problem: Problem) -> str:
    if refused and all(outcome.failed for outcome in refused):
        return f"of {len(refused)} that became bundles, the device runs none: {refused[0].failed}"
    if refused and all(outcome.lost for outcome in refused):
        why = refused[0].compared.why if refused[0].compared else ""
        return f"of {len(refused)} that became bundles, none in int8, which {problem.device} was timed on: {why}"
    nearest = min(refused, key=lambda outcome: violation(outcome.cost, problem.cap), default=None)
    if nearest is None:
        return f"no network under {problem.cap} is trained; raise --trials or --seconds"
    over = nearest.cost.over(problem.cap)
    flags = " or ".join(map(flag, over))
    quiet = ", or profile again on a quiet machine" if nearest.measured and "latency_ms" in over else ""
    return (
        f"of {len(refused)} that became bundles, none fits {problem.cap}; the nearest takes {nearest.cost}; "
        f"raise {flags}{quiet}"
    )
