"""Search with real latencies and known accuracies: NAS-Bench-Macro's networks, rebuilt and timed on this machine.

    python tools/bench/search_macro.py --data-root ../shared/data --json search_macro.json

The 6,561 networks' published CIFAR-10 accuracies (Su 2021, arXiv:2103.11922; mean of three trainings) answer what a
training would; what a network takes is measured here, with ONNX Runtime and one thread. The space is profiled as
`edgemeta profile` does it. Under each of five budgets a searcher asks for accuracies of networks that are predicted to
fit; the best of these are timed, and the first that fits is what the search returns. Then everything is timed again:
what was returned, for the budget it must not break, and every network that might have been better, for the oracle.

A rented machine's speed drifts: every timing is scaled by a reference network to the speed it had during the profile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from _common import emit, parser
from _timed import timed

from edgemeta.data.archive import read_arrays
from edgemeta.latency import batch, measure
from edgemeta.latency.table import predictor
from edgemeta.search import SEARCHERS, plan
from edgemeta.search.tabular import Table, Tabular, run
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch, Profile

SPACE, TASK, DEVICE = PUBLISHED["macro"](), "cifar10", "predicted"
BUDGETS = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the space that are predicted to be faster
HEADROOM = 1.03  # of a budget that searchers look in: predictions err by about as much
MARGIN = 1.02  # by which a timing must be under the budget: the next one differs by about as much
CHOSEN = 12  # of a search, timed
FURTHER = 1.12  # predicted times above the budget at which an oracle may still fit
QUICK = {"searchers": ["metapolicy", "random"], "queries": 8, "seeds": 1, "nets": 20, "oracles": 8, "seconds": 15.0}
ORACLES = 120  # most accurate networks that may fit, timed for each budget


class Here(NamedTuple):
    """What is known of this machine."""

    table: Table  # latencies are predicted ones
    profile: Profile
    caps_ms: tuple[float, ...]


class Found(NamedTuple):
    searcher: str
    seed: int
    cap_ms: float
    ranking: tuple[Arch, ...]  # the most accurate of what was asked, and predicted to fit


def main() -> int:
    args = _arguments()
    here = _here(args)
    found = [
        _searched(here, name, seed, cap_ms, args.queries)
        for name in args.searchers
        for seed in range(args.seeds)
        for cap_ms in here.caps_ms
    ]
    first = _timed(here, {arch for search in found for arch in search.ranking}, args)
    returned = [_first_fitting(search, first) for search in found]
    rivals = {arch for cap_ms in here.caps_ms for arch in _rivals(here, cap_ms, args.oracles)}
    again = _timed(here, rivals | {arch for arch in returned if arch}, args)
    oracles = {cap_ms: _oracle(here, cap_ms, again) for cap_ms in here.caps_ms}
    pairs = zip(found, returned, strict=True)
    rows = [_row(here, search, arch, again, oracles[search.cap_ms]) for search, arch in pairs]
    own = [row for row in rows if row["searcher"] == args.searchers[0]]
    values = {
        "broken": sum(row["broken"] for row in own),
        "mean_regret": float(np.mean([row["regret"] for row in own])),
    }
    extra = {"searches": rows, "queries": args.queries, "profile": here.profile.device}
    return emit("search_macro", values, _means(rows), args.json, extra, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    made = parser(__doc__.split("\n")[0], quick=QUICK)
    made.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    made.add_argument("--searchers", nargs="+", choices=SEARCHERS, default=["metapolicy", "evolution", "random", "tpe"])
    made.add_argument("--queries", type=int, default=60, help="accuracy queries of a search")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--nets", type=int, default=400, help="random networks of the profile")
    made.add_argument("--oracles", type=int, default=ORACLES, help="rivals timed under each budget")
    made.add_argument("--seconds", type=float, default=90.0, help="of the profile, and at most of each later timing")
    return made.parse_args()


def _here(args: argparse.Namespace) -> Here:
    path = args.data_root / "nas_bench_macro" / "nas_bench_macro_cifar10.npz"
    if not path.exists():
        sys.exit(f"no {path}; name the folder that holds nas_bench_macro/ with --data-root")
    picks, accuracy = read_arrays(path, "arch", "test_acc")
    known = measure.measure_host(SPACE, seed=0, nets=args.nets, seconds=args.seconds)
    predicted = batch.layout(SPACE, predictor(known).additive(SPACE)).latency_ms(picks.astype(np.int64))
    archs = tuple(Arch(SPACE.name, tuple(map(int, row))) for row in picks)
    points = {TASK: accuracy.mean(1).astype(float)}
    table = Table(archs, points, {}, 0.0, {DEVICE: predicted})
    return Here(table, known, tuple(map(float, np.quantile(predicted, BUDGETS))))


def _searched(here: Here, name: str, seed: int, cap_ms: float, queries: int) -> Found:
    problem = Tabular(here.table, TASK, DEVICE, cap_ms * HEADROOM)
    run(SEARCHERS[name](SPACE, seed=seed, **plan(name, queries)), problem, queries=queries, name=name)
    asked = sorted(problem.queried, key=lambda arch: -problem.queried[arch])
    return Found(name, seed, cap_ms, tuple(asked[:CHOSEN]))


def _timed(here: Here, archs: Collection[Arch], args: argparse.Namespace) -> dict[Arch, float]:
    """Milliseconds of each network at the speed that the machine had during the profile."""
    made = timed(SPACE, archs, seed=1, seconds=args.seconds)
    speed = median(ms for _, ms in here.profile.drift) / made.reference_ms
    return {arch: ms * speed for arch, ms in made.ms.items()}


def _first_fitting(search: Found, timed: Mapping[Arch, float]) -> Arch | None:
    """What a search returns: the most accurate network that was timed and is under the budget."""
    return next((arch for arch in search.ranking if timed.get(arch, np.inf) * MARGIN <= search.cap_ms), None)


def _rivals(here: Here, cap_ms: float, count: int) -> list[Arch]:
    """The most accurate networks that are predicted to fit, or nearly."""
    accuracy, predicted = here.table.accuracy[TASK], here.table.latency_ms[DEVICE]
    near = np.flatnonzero(predicted <= FURTHER * cap_ms)
    return [here.table.archs[row] for row in near[np.argsort(-accuracy[near])][:count]]


def _oracle(here: Here, cap_ms: float, timed: Mapping[Arch, float]) -> float:
    """The best accuracy under a budget by the last timings, in points."""
    return max(_points(here, arch) for arch, ms in timed.items() if ms <= cap_ms)


def _points(here: Here, arch: Arch) -> float:
    return float(here.table.accuracy[TASK][here.table.row[arch]])


def _row(here: Here, search: Found, arch: Arch | None, timed: Mapping[Arch, float], oracle: float) -> dict[str, Any]:
    """One search under one budget. A search that found nothing, or broke it, has the regret of the worst network."""
    ms = timed[arch] if arch else None
    broken = bool(ms and ms > search.cap_ms)
    points = _points(here, arch) if arch and not broken else float(here.table.accuracy[TASK].min())
    row = {"searcher": search.searcher, "seed": search.seed, "cap_ms": search.cap_ms, "measured_ms": ms}
    return row | {"accuracy": points, "regret": oracle - points, "broken": broken}


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, of each searcher under each budget."""
    found = []
    for name, cap_ms in dict.fromkeys((row["searcher"], row["cap_ms"]) for row in rows):
        own = [row for row in rows if (row["searcher"], row["cap_ms"]) == (name, cap_ms)]
        mean = {key: float(np.mean([row[key] for row in own])) for key in ("accuracy", "regret")}
        taken = [row["measured_ms"] for row in own if row["measured_ms"]]
        row = {"searcher": name, "cap_ms": cap_ms, "measured_ms": float(np.mean(taken)) if taken else None}
        found.append(row | mean | {"broken": sum(row["broken"] for row in own)})
    return found


if __name__ == "__main__":
    sys.exit(main())
