"""`edgemeta search --front`: the same search under a ladder of latency caps, and a bundle for each."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from edgemeta.config import Search as Settings
from edgemeta.errors import BadConfig, Infeasible
from edgemeta.report.tables import table
from edgemeta.search.feasible import descend, violation
from edgemeta.search.problem import Problem
from edgemeta.stages import assemble, summary
from edgemeta.stages.candidates import first_fitting, searched
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch, Profile, Trial

SLACK = 1.15  # the tightest cap leaves this much room above the fastest network, or there is nothing to choose from
Searched = Callable[[Problem], Sequence[Trial]]  # the ranking under the caps of a problem


def ladder_ms(problem: Problem, top_ms: float, rungs: int, *, rng: Random) -> list[float]:
    """`rungs` latency caps below `top_ms`, at equal ratios, the loosest first; the tightest is just above what the
    fastest network found under the other caps takes."""
    size = _size(problem)
    least = min((descend(problem.space.sample(rng=rng), problem.space, size) for _ in range(3)), key=size)
    low_ms = SLACK * problem.bound(least).latency_ms
    if low_ms >= top_ms:
        raise BadConfig(f"no front below {top_ms:.3g} ms: the fastest network takes {low_ms:.3g}; raise --latency-ms")
    return [top_ms * (low_ms / top_ms) ** (i / rungs) for i in range(1, rungs + 1)]


def _size(problem: Problem) -> Callable[[Arch], tuple[float, float]]:
    others = replace(problem.cap, latency_ms=math.inf)

    def size(arch: Arch) -> tuple[float, float]:
        bound = problem.bound(arch)
        return violation(bound, others), bound.latency_ms

    return size


def write(
    settings: Settings, folder: RunFolder, problem: Problem, profile: Profile, ranking: Sequence[Trial], run: Searched
) -> None:
    """Search under every cap of the ladder, the loosest first, so that each starts with what is trained; a bundle of
    the best network under each lands in `RUN/front/<cap>ms`, and the whole in the note `front`."""
    top_ms = problem.cap.latency_ms
    if top_ms == math.inf:
        top_ms = max(problem.bound(trial.arch).latency_ms for trial in ranking)
    rows, ranked = [], {top_ms: list(ranking)}
    for cap_ms in ladder_ms(problem, top_ms, settings.front, rng=Random(settings.seed)):
        tighter = replace(problem, cap=replace(problem.cap, latency_ms=cap_ms))
        ranked[cap_ms] = list(run(tighter))
    shutil.rmtree(folder.front, ignore_errors=True)
    for cap_ms, trials in ranked.items():
        under = replace(problem, cap=replace(problem.cap, latency_ms=cap_ms))
        rows.append(_row(settings, folder.front / f"{cap_ms:.3g}ms", under, profile, trials))
    folder.note("front", rows)


def _row(
    settings: Settings, target: Path, problem: Problem, profile: Profile, trials: Sequence[Trial]
) -> dict[str, Any]:
    row: dict[str, Any] = {"cap_ms": problem.cap.latency_ms}
    line = [searched(trial.arch, trial.fidelity, problem) for trial in trials]
    try:
        here = settings.device == assemble.HOST
        winner, refused = first_fitting(target, line, problem, profile, measure=here)
    except Infeasible as error:
        return row | {"failed": str(error)}
    best = next(trial for trial in trials if trial.arch == winner.candidate.arch)
    note = summary.outcome_note(winner) | {"score": best.score, "refused": len(refused)}
    return row | {"bundle": f"{target.parent.name}/{target.name}"} | note


def text(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each budget, the tightest first."""
    shown = []
    for row in sorted(rows, key=lambda row: row["cap_ms"]):
        if "failed" in row:
            shown.append({"cap_ms": row["cap_ms"], "bundle": f"none: {row['failed']}"})
            continue
        cost = row["cost"]
        shown.append(
            {
                "cap_ms": row["cap_ms"],
                "latency_ms": cost["latency_ms"],
                "ram_kib": cost["ram_kib"],
                "flash_kib": cost["flash_kib"],
                "validation_percent": 100 * row["score"],
                "episodes": row["episodes"],
                "bundle": row["bundle"],
            }
        )
    return table(shown)
