"""A first feasible proposal in a vast space under a tight cap, and the memory that thousands more take.

    python tools/bench/first_proposal.py --json first_proposal.json

FBNet's space of 9^22 architectures at 224 x 224 (Wu 2019), with the latency of a device of nothing but
multiply-accumulates; the cap is met by `--met` of random architectures. Each searcher has a process of its own:
`first_s` is from its construction to a network under the caps, the check that there is one included, and `grown_mib`
how much memory grew from the first tenth of the proposals to the last, each told a random score. A metapolicy that
knows nothing of the space, as here, learns from scores alone.
"""

from __future__ import annotations

import resource
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from _common import emit, parser

from edgemeta.latency.profile import load
from edgemeta.latency.table import predictor
from edgemeta.search import SEARCHERS, plan
from edgemeta.search.feasible import repair, require_feasible
from edgemeta.search.jobs import DataSpec
from edgemeta.search.problem import Problem
from edgemeta.space.named import named
from edgemeta.types import Cost, Trial

SPACE = "fbnet"
TOLD = {"gp": 60, "tpe": 400, "nsga2": 400}  # proposals of samplers that think longer with every trial


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"searchers": ["random", "evolution"], "proposals": 300, "seeds": 1})
    args.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=SEARCHERS)
    args.add_argument("--proposals", type=int, default=3000, help="for the memory, fewer of Optuna's samplers")
    args.add_argument("--met", type=float, default=1e-3, help="share of random architectures under the cap")
    args.add_argument("--seeds", type=int, default=5, help="first proposals of each; the slowest is told")
    given = args.parse_args()
    cap_ms = _cap_ms(given.met)
    rows = [_row(name, cap_ms, given.proposals, given.seeds) for name in given.searchers]
    values = {"first_s": max(row["first_s"] for row in rows), "grown_mib": max(row["grown_mib"] for row in rows)}
    values["size_log10"] = len(str(named(SPACE).size)) - 1
    return emit(
        "first_proposal",
        values,
        rows,
        given.json,
        {"cap_ms": cap_ms, "met": given.met},
        goals=given.goals,
        quick=given.quick,
    )


def _problem(cap: Cost) -> Problem:
    space = named(SPACE)
    data = DataSpec("glyphs", None, "", space.in_shape, 0)
    return Problem(space, predictor(load("null")), cap, "protonet", data, Path())


def _cap_ms(met: float) -> float:
    rng, free = Random(1), _problem(Cost())
    some = sorted(free.bound(free.space.sample(rng=rng)).latency_ms for _ in range(round(5 / met)))
    return some[5]


def _row(name: str, cap_ms: float, proposals: int, seeds: int) -> dict[str, Any]:
    """In processes of their own, so that the peak of memory is the searcher's."""
    count = min(proposals, TOLD.get(name, proposals))
    with get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        firsts = [alone.apply(_first, (name, cap_ms, seed)) for seed in range(seeds)]
        grown, each_ms = alone.apply(_grown, (name, cap_ms, count))
    return {"searcher": name, "first_s": max(firsts), "grown_mib": grown, "ask_ms": each_ms, "proposals": count}


def _first(name: str, cap_ms: float, seed: int) -> float:
    problem = _problem(Cost(latency_ms=cap_ms))
    _ = SEARCHERS[name](problem.space, seed=seed).ask()  # what only a first call imports
    began, rng = time.perf_counter(), Random(seed)
    require_feasible(problem.space, problem.bound, problem.cap, rng=rng)
    searcher = SEARCHERS[name](problem.space, seed=seed, **plan(name, 40))
    while (found := repair(searcher.ask(), problem.space, problem.bound, problem.cap, rng=rng)) is None:
        pass
    took_s = time.perf_counter() - began
    assert problem.bound(found).fits(problem.cap)
    return took_s


def _grown(name: str, cap_ms: float, count: int) -> tuple[float, float]:
    """MiB that the peak rose by after a tenth of the proposals, and milliseconds of a proposal."""
    space, cap, rng = named(SPACE), Cost(latency_ms=cap_ms), Random(0)
    searcher, early, began = SEARCHERS[name](space, seed=0, **plan(name, count)), 0.0, time.perf_counter()
    for number in range(count):
        if number == count // 10:
            early = _peak_mib()
        arch, score = searcher.ask(), rng.random()
        searcher.tell(Trial(arch, Cost(cap_ms / 2), score, 0.01, 100, 0, 1.0, name, "ok", "null", cap))
    return _peak_mib() - early, 1e3 * (time.perf_counter() - began) / count


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    sys.exit(main())
