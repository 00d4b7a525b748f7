"""`edgemeta search --front`: the same search under a ladder of caps on latency, RAM or flash, and a bundle for each."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from edgemeta.config import Search as Settings
from edgemeta.errors import BadConfig, Infeasible, flag
from edgemeta.report.tables import table
from edgemeta.search.feasible import descend, violation
from edgemeta.search.problem import Problem, rank
from edgemeta.stages import precision, summary
from edgemeta.stages.candidates import first_fitting, searched
from edgemeta.stages.meters import Meter
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Arch, Profile, Trial

SLACK = 1.15  # the tightest cap leaves this much room above the fastest network, or there is nothing to choose from
APART = 1.02  # ratio of two caps, at least
UNITS = {"ms": "ms", "kib": "KiB"}
Searched = Callable[[Problem], Sequence[Trial]]  # the ranking under the caps of a problem


def ladder(problem: Problem, over: str, top: float, rungs: int, *, rng: Random) -> list[float]:
    """`rungs` caps on the field `over` of a cost below `top`, at equal ratios, the loosest first; the tightest is just
    above what the network takes that was found to take the least of it under the other caps."""
    size = _size(problem, over)
    least = min((descend(problem.space.sample(rng=rng), problem.space, size) for _ in range(3)), key=size)
    low = SLACK * getattr(problem.bound(least), over)
    if low * APART**rungs >= top:
        name, unit = over.rsplit("_", 1)
        takes = f"the network that takes least takes {low / SLACK:.3g}"
        raise BadConfig(
            f"no front of {rungs} below {name} {top:.3g} {UNITS[unit]}: {takes}; raise {flag(over)} or lower --front"
        )
    return [top * (low / top) ** (i / rungs) for i in range(1, rungs + 1)]


def _size(problem: Problem, over: str) -> Callable[[Arch], tuple[float, float]]:
    others = replace(problem.cap, **{over: math.inf})

    def size(arch: Arch) -> tuple[float, float]:
        bound = problem.bound(arch)
        return violation(bound, others), getattr(bound, over)

    return size


def require(settings: Settings, problem: Problem) -> None:
    """Refuse what would fail after the search, as far as that can be told before it: a ladder without room, int8 of a
    learner that changes the body."""
    if problem.int8:
        precision.require(settings.learner, problem)
    top = getattr(problem.cap, settings.front_over)
    if settings.front and top < math.inf:
        ladder(problem, settings.front_over, top, settings.front, rng=Random(settings.seed))


def write(
    settings: Settings,
    folder: RunFolder,
    problem: Problem,
    profile: Profile,
    ranking: Sequence[Trial],
    run: Searched,
    *,
    measure: Meter,
) -> None:
    """Search under every cap of the ladder, the loosest first, so that each starts with what is trained; a bundle of
    the best network of all searches under each lands in `RUN/front/<cap><unit>`, and the whole in the note `front`."""
    over = settings.front_over
    top, unit = getattr(problem.cap, over), over.rsplit("_", 1)[1]
    if top == math.inf:
        top = max(getattr(problem.bound(trial.arch), over) for trial in ranking)
    caps = [top, *ladder(problem, over, top, settings.front, rng=Random(settings.seed))]
    under = [replace(problem, cap=replace(problem.cap, **{over: cap})) for cap in caps]
    trained = [*ranking, *(trial for tighter in under[1:] for trial in run(tighter))]
    shutil.rmtree(folder.front, ignore_errors=True)
    rows = []
    for each in under:
        fitting = [trial for trial in trained if problem.bound(trial.arch).fits(each.cap)]
        target = folder.front / f"{getattr(each.cap, over):.3g}{unit}"
        rows.append(_row(settings, target, each, profile, rank(fitting, problem.space), measure))
    folder.note("front", rows)


def _row(
    settings: Settings, target: Path, problem: Problem, profile: Profile, trials: Sequence[Trial], measure: Meter
) -> dict[str, Any]:
    row: dict[str, Any] = {"over": settings.front_over, "cap": getattr(problem.cap, settings.front_over)}
    line = [searched(trial.arch, trial.fidelity, problem) for trial in trials]
    try:
        winner, refused = first_fitting(target, line, problem, profile, measure=measure)
    except Infeasible as error:
        return row | {"failed": str(error)}
    best = next(trial for trial in trials if trial.arch == winner.candidate.arch)
    note = summary.outcome_note(winner) | {"score": best.score, "refused": len(refused)}
    return row | {"bundle": f"{target.parent.name}/{target.name}"} | note


def text(rows: Sequence[dict[str, Any]]) -> Told:
    """One line for each budget, the tightest first."""
    shown = []
    for row in sorted(rows, key=lambda row: row["cap"]):
        cap = {f"cap_{row['over']}": row["cap"]}
        if "failed" in row:
            shown.append({**cap, "bundle": f"none: {row['failed']}"})
            continue
        cost = row["cost"]
        shown.append(
            {
                **cap,
                "latency_ms": cost["latency_ms"],
                "ram_kib": cost["ram_kib"],
                "flash_kib": cost["flash_kib"],
                "validation_percent": 100 * row["score"],
                "episodes": row["episodes"],
                "bundle": row["bundle"],
            }
        )
    return told(table(shown), {"front": shown})
