"""The cell that DARTS finds under a latency cap, against random cells that take as long: accuracy on unseen classes.

    python tools/bench/darts_cells.py --data-root ../shared/data --run runs/darts --json darts_cells.json

Omniglot, Vinyals split: DARTS searches on `train`, every network is trained on `train` for equally many episodes, by
the recipe of Prototypical Networks, and tested on `test`. The cap is the median of what random cells take here. Random
cells are those whose predicted latency is within `--band` of the found one's; all are then measured in turns, and
`latency_ratio` is the found one's time over their mean. `skips` counts skip-connections in each cell: a search by
gradients that collapses ends with little else. What is done is kept in `--run`, and a bench that was killed goes on
from there.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
from _common import digest, emit, kept, parser, require_folder
from _timed import timed

from edgemeta.latency import measure
from edgemeta.latency import profile as profiles
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features, queries
from edgemeta.learners.settings import recipe
from edgemeta.nets.build import build
from edgemeta.nets.relaxed import relax, skips
from edgemeta.search.bilevel import Bilevel
from edgemeta.search.by_gradient import Found
from edgemeta.search.darts import Darts
from edgemeta.search.jobs import DataSpec, Job, data_pool, load_weights, run_job
from edgemeta.search.problem import Problem
from edgemeta.search.workers import worker_pool
from edgemeta.space.named import named
from edgemeta.types import Arch, Cost, dotted

CAP_OF = 60  # random cells of which the cap is the median
TRIES = 20_000  # samples among which cells of equal latency are looked for
TASKS = ((5, 1), (20, 1))
QUICK = {"search_episodes": 8, "cells": 3, "episodes": 8, "test_episodes": 10, "nets": 20, "seconds": 8.0, "band": 0.3}


def main() -> int:
    args = _arguments()
    torch.set_num_threads(1)
    require_folder(args.data_root, "omniglot")
    problem = _problem(args)
    found = args.run / f"found-{digest(problem.task, problem.cap, args.search_episodes)}.json"
    made = kept(found, lambda: _searched(problem, args.seed, args.search_episodes))
    cell = Arch(problem.space.name, tuple(made.pop("picks")))
    others = equals(problem, cell, args.cells, args.band, rng=Random(args.seed))
    rows = _measured(problem, [cell, *others], args)
    facts = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    extra = facts | made | {"cap_ms": problem.cap.latency_ms}
    return emit("darts_cells", values(rows), rows, args.json, extra, goals=args.goals, quick=args.quick)


def _searched(problem: Problem, seed: int, episodes: int) -> dict[str, Any]:
    """What DARTS finds, and what is told of its search."""
    began = time.perf_counter()
    searcher = Darts(problem.space, seed=seed, problem=problem, settings=Bilevel(episodes=episodes))
    cell = searcher.ask()
    assert searcher.found
    return {"picks": cell.picks, "search_s": time.perf_counter() - began, **told(searcher.found)}


def _arguments() -> argparse.Namespace:
    made = parser(__doc__.split("\n")[0], quick=QUICK)
    made.add_argument("--space", default="darts-1x28x28")
    made.add_argument("--search-episodes", type=int, default=Bilevel().episodes)
    made.add_argument("--cells", type=int, default=20, help="random cells to compare with")
    made.add_argument("--band", type=float, default=0.05, help="how far their predicted latency may be, as a share")
    made.add_argument("--episodes", type=int, default=600, help="of each network's training")
    made.add_argument("--test-episodes", type=int, default=1000)
    made.add_argument("--nets", type=int, default=200, help="random networks of the profile, beside the covering ones")
    made.add_argument("--seconds", type=float, default=60.0, help="of the profile")
    made.add_argument("--jobs", type=int, default=2, help="networks trained beside each other, one core each")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--run", type=Path, default=Path("runs/darts_cells"), help="what is done is kept here")
    made.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    return made.parse_args()


def _problem(args: argparse.Namespace) -> Problem:
    space, path = named(args.space), args.run / "profile.json"
    args.run.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        profiles.save(measure.measure_host(space, seed=args.seed, nets=args.nets, seconds=args.seconds), path)
    profile, weights = profiles.load(path), args.run / "weights"
    data = DataSpec("omniglot", str(args.data_root / "omniglot"), "", space.in_shape, 0)
    how: dict[str, Any] = {"rungs": (args.episodes,), "training": recipe("protonet"), "seed": args.seed}
    free = Problem(space, predictor(profile), Cost(), "protonet", data, weights, **how)
    rng = Random(args.seed)
    cap_ms = median(free.bound(space.sample(rng=rng)).latency_ms for _ in range(CAP_OF))
    return Problem(space, free.predictor, Cost(latency_ms=cap_ms), "protonet", data, weights, **how)


def equals(problem: Problem, cell: Arch, count: int, band: float, *, rng: Random) -> list[Arch]:
    """`count` other networks that DARTS might have derived, whose predicted latency is within `band` of the cell's."""
    target_ms, known = problem.cost(cell).latency_ms, {problem.space.ops(cell)}
    found: list[Arch] = []
    net, logits = relax(problem.space), torch.Generator().manual_seed(rng.randrange(2**32))
    for _ in range(TRIES):
        arch = net.derive(net.alpha(rng=logits, spread=1.0))
        near = abs(problem.cost(arch).latency_ms / target_ms - 1) <= band
        if near and problem.space.ops(arch) not in known:
            known.add(problem.space.ops(arch))
            found.append(arch)
        if len(found) == count:
            return found
    sys.exit(f"{len(found)} of {TRIES} random cells take {target_ms:.3g} ms; raise --band or ask for fewer --cells")


def _measured(problem: Problem, archs: Sequence[Arch], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each network, the found one first."""
    ms = _latencies(problem, archs, args)
    asked = (args.run, args.test_episodes, args.seed)
    with worker_pool(args.jobs) as executor:
        tested = list(executor.map(of_cell, [(problem.job(arch, 0), *asked) for arch in archs]))
    return [
        {
            "cell": "found" if at == 0 else f"random {at}",
            "measured_ms": ms[at],
            "params_k": sum(op.weight_bytes for op in problem.space.ops(arch)) / 4e3,
            "skips": " + ".join(map(str, skips(problem.space, arch).values())),
            **row,
            "picks": dotted(arch.picks),
        }
        for at, (arch, row) in enumerate(zip(archs, tested, strict=True))
    ]


def _latencies(problem: Problem, archs: Sequence[Arch], args: argparse.Namespace) -> list[float]:
    """In turns, in the order of the networks."""

    def make() -> list[float]:
        ms = timed(problem.space, archs, seed=args.seed, seconds=args.seconds).ms
        return [ms[arch] for arch in archs]

    return kept(args.run / f"latencies-{digest(archs)}.json", make)


def of_cell(asked: tuple[Job, Path, int, int]) -> dict[str, float]:
    """Percentages of one network after its training: on validation classes, and on test classes at each task."""
    job, run, episodes, seed = asked

    def make() -> dict[str, float]:
        row = {"val": 100 * run_job(job).score.mean}
        learner, slow, held = (
            LEARNERS[job.learner](build(job.ops)),
            load_weights(job.weights),
            data_pool(job.data, "test"),
        )
        z = features(learner, slow, held)
        for way, shot in TASKS:
            task = {"way": way, "shot": shot, "query": queries(held, way, shot), "episodes": episodes}
            score = evaluate(learner, slow, held, z, rng=np.random.default_rng([seed, way, shot]), **task)
            row |= {f"{way}w{shot}s": 100 * score.mean, f"{way}w{shot}s_ci95": 100 * score.ci95}
        return row

    return kept(run / "cells" / f"{digest(job.ops, job.training, episodes, seed)}.json", make)


def values(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How far the found cell, the first row, is above the mean of the others, and in units of their spread."""
    found, *others = rows
    made = {"latency_ratio": found["measured_ms"] / mean(row["measured_ms"] for row in others)}
    for way, shot in TASKS:
        key = f"{way}w{shot}s"
        known = [row[key] for row in others]
        made |= {f"found_{key}": found[key], f"random_mean_{key}": mean(known), f"random_best_{key}": max(known)}
        made[f"gain_{key}"] = found[key] - mean(known)
        made[f"spreads_{key}"] = made[f"gain_{key}"] / (stdev(known) or math.inf)
        made[f"rank_{key}"] = 1 + sum(other > found[key] for other in known)
    return made


def told(found: Found) -> dict[str, Any]:
    """What the search came to before and after the cap was held against it."""
    return {
        "episodes_searched": found.learned.episodes,
        "stopped": found.learned.stopped,
        "derived": dotted(found.derived.picks),
        "repaired": found.derived != found.first,
    }


if __name__ == "__main__":
    sys.exit(main())
