"""What a run folder holds: the notes of its stages, and the story behind the report page."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgemeta import config as configs
from edgemeta.config import make
from edgemeta.contracts import Latency, Predictor
from edgemeta.latency.cost import energy_mj
from edgemeta.latency.features import family
from edgemeta.latency.table import predictor as predictor_for
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle as bundles
from edgemeta.lowering.manifest import Manifest
from edgemeta.report.drawing import label
from edgemeta.report.story import BundleFile, Check, DataFacts, Policy, Score, Story, Winner, profile_facts
from edgemeta.search.jobs import load_data
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem
from edgemeta.space.space import Space
from edgemeta.stages import assemble
from edgemeta.stages.candidates import Candidate, Outcome, searched
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch, Cost, Op, Profile, Timing, Trial, dotted

SHOWN = 300  # infeasible proposals kept for the picture
CHECKED = 2000  # of a profile's networks held against their predictions


def search_note(
    config: configs.Search,
    profile: Profile,
    ranking: Sequence[Trial],
    winner: Outcome,
    refused: Sequence[Outcome],
    infeasible: Sequence[Trial],
) -> dict[str, Any]:
    """The search's outcome as JSON."""
    return {
        "config": configs.as_json(config, configs.Search),
        "command": configs.without_secrets(" ".join(["edgemeta", *sys.argv[1:]])),
        "device": profile.device,
        "data": str(assemble.data_of(config)),
        "ranking": [trial_note(trial) for trial in ranking],
        "winner": outcome_note(winner),
        "refused": [outcome_note(outcome) for outcome in refused],
        "beside": [outcome_note(outcome) for outcome in winner.beside],
        "infeasible": [trial_note(trial) for trial in infeasible[:SHOWN]],
    }


def trial_note(trial: Trial) -> dict[str, Any]:
    cost = trial.cost.to_json()
    return {"picks": trial.arch.picks, "score": trial.score, "fidelity": trial.fidelity, "cost": cost}


def outcome_note(outcome: Outcome) -> dict[str, Any]:
    candidate = outcome.candidate
    return {
        "picks": candidate.arch.picks,
        "learner": candidate.learner,
        "weights": str(candidate.weights),
        "episodes": candidate.episodes,
        "cost": outcome.cost.to_json(),
        "measured": outcome.measured,
        "how": outcome.how,
        "precision": outcome.compared.precision if outcome.compared else "fp32",
    }


def export_lines(
    noted: Mapping[str, Any], trained: Mapping[str, Any] | None, problem: Problem
) -> Iterator[list[Candidate]]:
    """For each learner the candidates in order: the trained winner, then what the search ranked below it."""
    name = problem.space.name
    fallback = [searched(Arch(name, tuple(entry["picks"])), entry["fidelity"], problem) for entry in noted["ranking"]]
    weights = trained["weights"] if trained else {}
    for learner in [problem.learner, *(other for other in weights if other != problem.learner)]:
        line = []
        if trained and learner in weights:
            arch = Arch(name, tuple(trained["picks"]))
            tests = tuple(row for row in trained["tests"] if row["learner"] == learner)
            line = [Candidate(arch, learner, problem.weights / Path(weights[learner]).name, trained["episodes"], tests)]
        yield line + [candidate for candidate in fallback if candidate.learner == learner]


def sibling(target: Path, learner: str) -> Path:
    """Where the bundle of another learner than the search's stands."""
    return target.with_name(f"{target.name}-{learner}")


def bundles_of(target: Path) -> list[Path]:
    """The bundle at `target` and its siblings of other learners."""
    return [
        path for path in (target, *(sibling(target, name) for name in LEARNERS)) if (path / "manifest.json").exists()
    ]


def drop_siblings(target: Path) -> None:
    """Remove the other learners' bundles beside one that a new search has replaced; `export` makes them again."""
    for path in bundles_of(target):
        if path != target:
            shutil.rmtree(path)


def trained_for(folder: RunFolder, noted: Mapping[str, Any], problem: Problem) -> dict[str, Any] | None:
    """What `train` left, unless a later search has chosen another winner or other data."""
    trained = folder.read("train")
    current = trained and trained["winner"] == list(noted["winner"]["picks"]) and trained["data"] == str(problem.data)
    return trained if current else None


def on_farm(noted: Mapping[str, Any]) -> Iterator[str]:
    """How the latency of each candidate is known, where devices of an inventory were to measure it."""
    if noted["config"].get("devices"):
        for entry in [*noted["refused"], noted["winner"], *noted["beside"]]:
            yield f"{dotted(entry['picks'])}: {entry['cost']['latency_ms']:.4g} ms, {entry['how']}"


def story(folder: RunFolder) -> Story:
    """Everything the report shows, gathered from the run folder."""
    noted = folder.need("search", "search")
    settings = make(configs.Search, noted["config"] | {"run": folder.root})
    space = assemble.space_of(settings)
    profile = assemble.profile_of(settings, folder, space)
    predictor = predictor_for(profile)
    problem = assemble.problem_of(settings, folder, space, profile)
    manifest = bundles.read(folder.bundle)
    arch = Arch(space.name, tuple(manifest.facts["picks"]))  # type: ignore[arg-type]
    ops, head = space.ops(arch), predictor.head_ms
    predicted, measured = Latency(*(ms + head for ms in predictor.latency(ops))), _inference(manifest)
    energy = energy_mj(measured.median_ms if measured else predicted.ms, predictor)
    costs = {
        "ram_kib": problem.cost(arch).ram_kib,
        "flash_kib": manifest.costs.graph_kib,
        "energy_mj": energy if energy < math.inf else None,
    }
    return Story(
        device=profile.device,
        budget=settings.cap,
        winner=Winner(arch, manifest.learner.name, ops, predicted, measured, **costs),
        trials=(*_trained(folder, problem), *_infeasible(noted, problem)),
        layers=layers(ops, predictor) if _adds_up(profile) else (),
        checks=tuple(_checks(folder, noted, profile, predictor, space)),
        scores=tuple(score for path in bundles_of(folder.bundle) for score in _scores(bundles.read(path))),
        seed=settings.seed,
        versions=manifest.versions,
        commands=(noted["command"],),
        stages=tuple((folder.read("stages") or {}).items()),
        data=_data_facts(settings),
        profile=profile_facts(profile) | ({"Candidates": "; ".join(told)} if (told := list(on_farm(noted))) else {}),
        drift=profile.drift,
        doubts=profile.doubts,
        files=tuple(BundleFile(name, info.bytes, info.sha256) for name, info in manifest.files.items()),
        policy=_policy(folder, settings),
    )


def _policy(folder: RunFolder, settings: configs.Search) -> Policy | None:
    """What the searcher knew, where the last search's was the one that knows."""
    noted = folder.read("policy") if settings.searcher == "metapolicy" else None
    return TypeAdapter(Policy).validate_python(noted) if noted else None


def _adds_up(profile: Profile) -> bool:
    """Whether a prediction is a sum over operators; one from whole networks alone has no share for each."""
    return bool(profile.ops) or "per_mmac_ms" in profile.overhead


def layers(ops: Sequence[Op], predictor: Predictor) -> tuple[tuple[str, float], ...]:
    """Each operator's share of the predicted latency: what the prediction grows by when it is added."""
    totals = [predictor.latency(ops[: end + 1]).ms for end in range(len(ops))]
    starts = [0.0, *totals[:-1]]
    labels = [f"{i + 1} {label(op)}" for i, op in enumerate(ops)]
    return tuple((label, max(0.0, end - start)) for label, end, start in zip(labels, totals, starts, strict=True))


def _checks(
    folder: RunFolder, noted: Mapping[str, Any], profile: Profile, predictor: Predictor, space: Space
) -> Iterator[Check]:
    """Networks that were both predicted and timed: the profile's own, and the bundles of the search."""
    own = [net for net in profile.nets if net.arch.space == space.name]
    for net in own[:: max(1, math.ceil(len(own) / CHECKED))]:
        yield _check(net.arch, "profile", net.ops or space.ops(net.arch), net.timing.median_ms, profile, predictor)
    for arch, body_ms in _bodies(folder, noted, space, profile.precision).items():
        yield _check(arch, "search", space.ops(arch), body_ms, profile, predictor)


def _check(arch: Arch, group: str, ops: Sequence[Op], ms: float, profile: Profile, predictor: Predictor) -> Check:
    predicted = predictor.latency(ops)
    return Check(str(arch), group, predicted, ms, shares(ops, predicted.ms, profile))


def _bodies(folder: RunFolder, noted: Mapping[str, Any], space: Space, precision: str) -> dict[Arch, float]:
    """Milliseconds of each network that became a bundle of this precision and was measured, as measured last."""
    found = {
        Arch(space.name, tuple(outcome["picks"])): outcome["measured"]["body_ms"]["median_ms"]
        for outcome in [*noted["refused"], noted["winner"]]
        if outcome["measured"] and outcome["measured"].get("body_ms") and outcome.get("precision") in (precision, None)
    }
    for manifest in map(bundles.read, reversed(bundles_of(folder.bundle))):  # the main one counts
        facts: Any = manifest.facts
        if manifest.costs.measured and manifest.costs.measured.body_ms and manifest.precision == precision:
            found[Arch(space.name, tuple(facts["picks"]))] = manifest.costs.measured.body_ms.median_ms
    return found


def shares(ops: Sequence[Op], whole_ms: float, profile: Profile) -> dict[str, float]:
    """Kind of operator -> its share of a network's predicted latency; {} where the profile has no operators.

    "run" is the rest: what a run costs beyond its operators.
    """
    if not whole_ms > 0 or any(op.key not in profile.ops for op in ops):
        return {}
    found: dict[str, float] = {}
    for op in ops:
        found[family(op)] = found.get(family(op), 0.0) + profile.ops[op.key].median_ms / whole_ms
    return found | {"run": max(0.0, 1.0 - sum(found.values()))}


def _trained(folder: RunFolder, problem: Problem) -> Iterator[Trial]:
    """Every trained network of the task, with what it costs on this device: some were proposed for another."""
    with closing(Ledger(folder.ledger, problem.space, problem.task)) as ledger:
        for trial in ledger.trials():
            yield replace(trial, cost=problem.cost(trial.arch))


def _infeasible(noted: Mapping[str, Any], problem: Problem) -> Iterator[Trial]:
    for entry in noted["infeasible"]:
        arch, cost = Arch(problem.space.name, tuple(entry["picks"])), Cost.from_json(entry["cost"])
        yield Trial(arch, cost, None, None, 0, problem.seed, 0.0, noted["config"]["searcher"], "infeasible")


def _inference(manifest: Manifest) -> Timing | None:
    """Image to class scores as measured."""
    if not (measured := manifest.costs.measured):
        return None
    parts = measured.inference
    return Timing(measured.inference_ms, sum(part.iqr_ms for part in parts), parts[0].n)


def _scores(manifest: Manifest) -> Iterator[Score]:
    """The test accuracies that a bundle carries: those of the network in it, whatever else was trained."""
    rows: Any = manifest.facts["tests"]
    for row in rows:
        figures = (row["way"], row["shot"], row["accuracy"], row["ci95"], row["episodes"])
        yield Score(row["learner"], f"{row['data']} ({row['split']} classes)", *figures)


def _data_facts(settings: configs.Search) -> tuple[DataFacts, ...]:
    data = load_data(assemble.data_of(settings))
    classes = {split: len(own) for split, own in data.splits.items()}
    return (DataFacts(data.name, len(data.images), classes, data.synthetic, data.notes),)
