"""Search under a latency cap on a device and a data set that are both unseen: the meta-policy, and everyone else.

    python tools/bench/constrained_search.py --data-root ../shared/data --json constrained_search.json

NAS-Bench-201; CIFAR-100 is the target, CIFAR-10 and ImageNet16-120 teach; split ND of the devices. Every timing of the
target device and every accuracy query on the target data set is counted, and every returned network is held against its
measured latency. `regret` is in points below the best network under the cap.

What was chosen on what: all on CIFAR-10 as a pretended target with ImageNet16-120 as the only teacher and the reverse,
under caps of source devices: the constants of `search.tabular` (how far one query tells of like networks), timings
before each query or all timings before all queries, how many timings come first and of which networks, on 1080ti_32,
silver_4210r and samsung_a50, taught by the other six devices. What short training weighs beside the long is estimated
from the sources alone, as if the target were one more of their kind (`short_weight`). CIFAR-100's table and the five
devices' judge the 15 rows and nothing else. Short trainings of the target are not asked for: given those of the source
tasks, they lower the deviation of a prediction among the sources' better networks by 1 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import emit, parser, require_folder
from tqdm import tqdm
from unseen_device import SPLITS

from edgemeta.latency import basis, choose, fewshot, simulate
from edgemeta.latency.parts import count
from edgemeta.search import SEARCHERS, plan, tabular
from edgemeta.search.metapolicy import Knowledge, Sources, Triple, little_known, meta_train, propose, scores_of, trusted
from edgemeta.search.tabular import Belief, Table, Tabular
from edgemeta.space.named import named
from edgemeta.tasks.policy import TaskGraph, task_graph
from edgemeta.types import Arch

TARGET = "cifar100"
ATTRIBUTES = {
    "cifar10": {"classes": 10, "examples": 5000, "channels": 3, "resolution": 32, "epochs": 200},
    "imagenet16_120": {"classes": 120, "examples": 1264, "channels": 3, "resolution": 16, "epochs": 200},
    "cifar100": {"classes": 100, "examples": 500, "channels": 3, "resolution": 32, "epochs": 200},
}
CAPS_MS = {
    "titan_rtx_256": (18, 21, 25),
    "gold_6226": (8, 11, 14),
    "pixel2": (14, 18, 22),
    "eyeriss": (5, 7, 9),
    "fpga": (4, 5, 6),
}
# HELP (Lee 2021, arXiv:2106.08630): accuracy at measured ms, each for the cap of the same place.
HELP = {
    "titan_rtx_256": ((69.7, 17.8), (71.5, 18.9), (71.8, 24.2)),
    "gold_6226": ((67.3, 8.0), (70.2, 10.7), (72.1, 14.3)),
    "pixel2": ((69.7, 13.0), (71.8, 19.0), (73.2, 25.0)),
    "eyeriss": ((71.5, 3.9), (71.8, 5.1), (73.5, 9.1)),
    "fpga": ((70.2, 3.8), (71.8, 4.7), (73.5, 7.4)),
}
SLOW = ("gp",)  # compared where it is asked for: it takes a second per proposal
TIMINGS, QUERIES = 20, 5
FIRST = 8  # timings before anything is proposed; the naive baseline has 10
NAIVE_FIRST = 10
NEARLY = 1.05  # times the cap: predictions up to there are tried by the naive search
PROPOSALS = 1000  # samples of the policy
SHORT = 0.5  # weight of a source's short training beside the long, where a single source leaves it unknown
BETTER = 0.2  # share of the networks, the best on the sources, of which it is estimated
DEVICES = 1000  # simulated
TYPICAL, POOL = 600, 900  # networks the basis is built on, and those that source devices teach with
DRAWN = 300  # networks that the first timings are chosen from ...
SCOUTED = 20  # ... and samples of the policy for each source device and tightness that they are drawn from
TIGHTNESS = (0.1, 0.3, 0.5, 0.7, 0.9)  # share of the networks under a cap
CHUNK = 100
QUICK = {"seeds": 1, "searchers": ["random"], "queries": 10}


class World(NamedTuple):
    """All that stands before a search begins: nothing of the target."""

    table: Table
    prior: fewshot.Prior
    features: Callable[[Sequence[Arch]], np.ndarray]
    sources: Sources
    knowledge: Knowledge


class Outcome(NamedTuple):
    """What a search returned and spent."""

    accuracy: float
    regret: float
    broken: bool
    timings: int
    queries: float


def main() -> int:
    args = _arguments()
    torch.set_num_threads(1)
    require_folder(args.data_root, "nb201_accuracy")
    begin = time.perf_counter()
    table = tabular.nb201(args.data_root)
    world = world_of(table, _teachers(TARGET), SPLITS["ND"].sources.split(), seed=0)
    facts = {"seeds": args.seeds, "prepared_s": time.perf_counter() - begin, "asks_past_queries": args.queries}
    found = _ours(world, args.seeds)
    curves = _curves(table, args.searchers, args.seeds, args.queries)
    rows = list(_rows(found, curves))
    values, needed = _values(found, curves)
    facts |= {"queries_until_our_regret": {name: _finite(n) for name, n in needed.items()}}
    print("accuracy queries until our mean regret:", {name: _finite(n) for name, n in needed.items()}, end="\n\n")
    return emit("constrained_search", values, rows, args.json, facts, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    made = parser("Search under a latency cap on an unseen device and an unseen data set.", quick=QUICK)
    root = Path(__file__).resolve().parents[3] / "shared" / "data"
    others = [name for name in SEARCHERS if name != "metapolicy"]
    usual = [name for name in others if name not in SLOW]
    made.add_argument("--data-root", type=Path, default=root, metavar="DIR", help="folder with help/, nb201_accuracy/")
    made.add_argument("--seeds", type=int, default=10, help="searches of each row and searcher")
    made.add_argument("--searchers", nargs="*", choices=others, default=usual, help="to compare with")
    made.add_argument("--queries", type=int, default=150, help="accuracy queries that those may spend")
    return made.parse_args()


def _teachers(target: str) -> list[str]:
    return [task for task in ATTRIBUTES if task not in (target, TARGET)]


def world_of(table: Table, tasks: Sequence[str], devices: Sequence[str], *, seed: int) -> World:
    """Taught by these tasks and devices alone."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(table.archs))
    features, prior = _device_prior(table, order, devices)
    weight = short_weight(table, tasks)
    scores = {task: _carried(table, task, weight) for task in tasks}
    log_ms = {device: np.log(table.latency_ms[device]) for device in devices}
    sources = Sources(table.picks, scores, {task: ATTRIBUTES[task] for task in tasks}, log_ms)
    knowledge = meta_train(named("nb201"), sources, seed=seed, doubt=little_known(len(tasks)))
    return World(table, prior, features, sources, knowledge)


def short_weight(table: Table, tasks: Sequence[str]) -> float:
    """Weight of the sources' short trainings beside their long ones, both in spreads, that predicts one more task best.

    Tasks are taken for exchangeable: what a new one's accuracies have in common with a source's is what two sources'
    have in common. Then means of long and short trainings over the sources have known covariances with it, and the
    best linear predictor (Rasmussen & Williams 2006, eq. 2.25) has the ratio of weights that is returned.
    """
    if len(tasks) < 2:
        return SHORT
    long, short = (np.array([_unitless(of[task]) for task in tasks]) for of in (table.accuracy, table.cheap))
    better = long.mean(0) >= np.quantile(long.mean(0), 1 - BETTER)
    count, apart = len(tasks), ~np.eye(len(tasks), dtype=bool)
    every = np.cov(np.concatenate([long, short])[:, better])
    known = np.cov(np.stack([long.mean(0), short.mean(0)])[:, better])
    shared = [every[:count, :count][apart].mean(), every[:count, count:][apart].mean()]
    weights = np.linalg.solve(known, shared)
    return float(max(0.0, weights[1] / weights[0]))


def _unitless(points: np.ndarray) -> np.ndarray:
    return (points - np.median(points)) / _spread(points)


def _carried(table: Table, task: str, weight: float) -> np.ndarray:
    """(networks,) points: a task's accuracies, raised where training is fast: such networks do better elsewhere."""
    full = table.accuracy[task]
    return full + weight * _spread(full) * _unitless(table.cheap[task])


def _spread(values: np.ndarray) -> float:
    return float(np.sort(values)[len(values) // 2 :].std())


def _device_prior(
    table: Table, order: np.ndarray, devices: Sequence[str]
) -> tuple[Callable[[Sequence[Arch]], np.ndarray], fewshot.Prior]:
    space = named("nb201")
    typical = count([space.ops(table.archs[row]) for row in order[-TYPICAL:]])
    of = basis.build(typical, simulate.draw(DEVICES, rng=np.random.default_rng(0)))
    known: dict[Arch, np.ndarray] = {}

    def features(archs: Sequence[Arch]) -> np.ndarray:
        if new := [arch for arch in dict.fromkeys(archs) if arch not in known]:
            known.update(zip(new, of[0](count([space.ops(arch) for arch in new])), strict=True))
        return np.array([known[arch] for arch in archs])

    pool = order[:POOL]
    rows = features([table.archs[row] for row in pool])
    real = [fewshot.learn(of[0], rows, table.latency_ms[device][pool]) for device in devices]
    return features, fewshot.prior(typical, real, basis_of=of)


def _first(world: World, graph: TaskGraph, timings: int, seed: int) -> list[Arch]:
    """The networks to time on a device of which nothing is known: the most telling of what the policy would propose for
    source devices. They tell of networks like the candidates to come, and may be among these."""
    found: list[Arch] = []
    rows = [world.table.row[arch] for arch in _anchors(world)]
    for log in world.sources.log_ms.values():
        for share in TIGHTNESS:
            cap_ms = float(np.exp(np.quantile(log, share)))
            triple = Triple(graph, log[rows], cap_ms)
            found += propose(world.knowledge, named("nb201"), triple, count=SCOUTED, seed=seed)
    distinct = list(dict.fromkeys(found))
    pool = Random(seed).sample(distinct, min(DRAWN, len(distinct)))
    return [pool[row] for row in choose.design(world.prior, world.features(pool), timings)]


def _anchors(world: World) -> list[Arch]:
    return [Arch("nb201", tuple(row)) for row in world.knowledge.anchors.tolist()]


def metapolicy(world: World, problem: Tabular, *, seed: int, queries: int, timings: int = TIMINGS) -> Outcome:
    """One search: first timings, one forward pass, a handful of measured candidates."""
    belief, graph = Belief(world.prior, world.features), task_graph(ATTRIBUTES[problem.task])
    first = _first(world, graph, FIRST, seed)
    belief.see({arch: problem.time_ms(arch) for arch in first})
    triple = Triple(graph, belief.log_ms(_anchors(world)), problem.cap_ms)
    proposed = propose(world.knowledge, named("nb201"), triple, count=PROPOSALS, seed=seed)
    candidates = list(dict.fromkeys([*proposed, *first]))
    rows = [world.table.row[arch] for arch in candidates]
    known = np.array([score[rows] for score in world.sources.scores.values()])
    expected = scores_of(world.knowledge, graph, known)
    unit = float(trusted(world.knowledge, graph) @ world.knowledge.unit)
    found = tabular.decide(problem, candidates, expected, belief, unit=unit, timings=timings, queries=queries)
    return _outcome(problem, found)


def naive(world: World, problem: Tabular, *, seed: int, queries: int, timings: int = TIMINGS) -> Outcome:
    """Ten timings at random; then, in the order of summed source accuracies, each in its own spreads, what is predicted
    to fit, or nearly, is timed until one fits, or as many as may be queried, or `timings` are spent."""
    belief = Belief(world.prior, world.features)
    belief.see({arch: problem.time_ms(arch) for arch in Random(seed).sample(world.table.archs, NAIVE_FIRST)})
    accuracy = [world.table.accuracy[task] for task in world.sources.scores]
    total = np.sum([(of - of.mean()) / of.std() for of in accuracy], axis=0)
    fitting: list[Arch] = []
    for arch in _predicted(world, belief, np.argsort(-total, kind="stable"), problem.cap_ms):
        problem.time_ms(arch)
        fitting += [arch] * problem.fits(arch)
        if len(fitting) >= max(1, queries) or problem.spent.timings >= timings:
            break
    if not fitting:  # none of the promising: the best of the random ones that fits, else the fastest
        rank = {arch: -total[world.table.row[arch]] for arch in problem.timed}
        fitting = sorted(problem.timed, key=lambda arch: (not problem.fits(arch), rank[arch]))[:1]
    for arch in fitting[:queries]:
        problem.query(arch)
    return _outcome(problem, problem.best() or fitting[0])


def _predicted(world: World, belief: Belief, order: np.ndarray, cap_ms: float) -> Iterator[Arch]:
    for start in range(0, len(order), CHUNK):
        archs = [world.table.archs[row] for row in order[start : start + CHUNK]]
        for arch, log in zip(archs, belief.log_ms(archs), strict=True):
            if log <= np.log(NEARLY * cap_ms):
                yield arch


def _outcome(problem: Tabular, arch: Arch | None) -> Outcome:
    """A search that returns nothing has broken its budget."""
    spent = problem.spent
    if arch is None:
        return Outcome(0.0, problem.oracle, True, *spent)
    regret = problem.regret(arch)
    return Outcome(problem.oracle - regret, regret, problem.broken(arch), *spent)


Found = Mapping[str, Mapping[tuple[str, float], Sequence[Outcome]]]  # method -> (device, cap) -> seeds


def _ours(world: World, seeds: int) -> Found:
    methods = {
        "metapolicy": partial(metapolicy, queries=QUERIES),
        "metapolicy_0q": partial(metapolicy, queries=0),
        "naive": partial(naive, queries=QUERIES),
        "naive_0q": partial(naive, queries=0),
    }
    found: dict[str, dict[tuple[str, float], list[Outcome]]] = {name: {} for name in methods}
    for device, cap in tqdm(_searches(), desc="meta-policy", unit="row"):
        for name, search in methods.items():
            problems = [Tabular(world.table, TARGET, device, cap) for _ in range(seeds)]
            found[name][device, cap] = [search(world, problem, seed=seed) for seed, problem in enumerate(problems)]
    return found


def _searches() -> list[tuple[str, float]]:
    return [(device, cap) for device, caps in CAPS_MS.items() for cap in caps]


Curves = Mapping[str, Mapping[tuple[str, float], Sequence[Sequence[float]]]]


def _curves(table: Table, names: Sequence[str], seeds: int, queries: int) -> Curves:
    """Regret after each query: every searcher times all it proposes, and queries what fits."""
    found: dict[str, dict[tuple[str, float], list[list[float]]]] = {name: {} for name in names}
    for name in names:
        for device, cap in tqdm(_searches(), desc=name, unit="row"):
            found[name][device, cap] = [
                tabular.run(
                    SEARCHERS[name](named("nb201"), seed=seed, **plan(name, queries)),
                    Tabular(table, TARGET, device, cap),
                    queries=queries,
                    name=name,
                )
                for seed in range(seeds)
            ]
    return found


def _rows(found: Found, curves: Curves) -> Iterator[dict[str, Any]]:
    for place, (device, cap) in enumerate(_searches()):
        ours, blind, plain = (found[name][device, cap] for name in ("metapolicy", "metapolicy_0q", "naive"))
        oracle = ours[0].accuracy + ours[0].regret
        accuracy, took = HELP[device][place % 3]
        yield {
            "device": device,
            "cap_ms": cap,
            "oracle": oracle,
            "accuracy": _mean(ours, "accuracy"),
            "regret": _mean(ours, "regret"),
            "broken": sum(one.broken for one in ours),
            "timings": _mean(ours, "timings"),
            "queries": _mean(ours, "queries"),
            "regret_0q": _mean(blind, "regret"),
            "timings_0q": _mean(blind, "timings"),
            "naive_regret": _mean(plain, "regret"),
            "naive_timings": _mean(plain, "timings"),
            "help_accuracy": accuracy,
            "help_regret": oracle - accuracy,
            "help_over_cap": took > cap,
            **{f"{name}_at_{QUERIES}q": _at(curves[name][device, cap], QUERIES) for name in curves},
        }


def _at(curves: Sequence[Sequence[float]], queries: int) -> float:
    return float(np.mean([curve[min(queries, len(curve)) - 1] for curve in curves if curve]))


def _mean(outcomes: Sequence[Outcome], field: str) -> float:
    return float(np.mean([getattr(one, field) for one in outcomes]))


def _values(found: Found, curves: Curves) -> tuple[dict[str, float], dict[str, float]]:
    """What is published, and each searcher's queries until our mean regret (inf: more than it was given)."""
    every = {name: [one for row in rows.values() for one in row] for name, rows in found.items()}
    ours, blind = every["metapolicy"], every["metapolicy_0q"]
    values = {
        "metapolicy_broken": float(sum(one.broken for one in (*ours, *blind))),
        "metapolicy_regret": _mean(ours, "regret"),
        "metapolicy_timings": float(max(one.timings for one in (*ours, *blind))),
        "metapolicy_queries": float(max(one.queries for one in ours)),
        "metapolicy_regret_0q": _mean(blind, "regret"),
        "naive_regret": _mean(every["naive"], "regret"),
        "naive_timings": _mean(every["naive"], "timings"),
        "naive_regret_0q": _mean(every["naive_0q"], "regret"),
        "naive_timings_0q": _mean(every["naive_0q"], "timings"),
    }
    needed = {
        name: tabular.queries_until([curve for row in rows.values() for curve in row], values["metapolicy_regret"])
        for name, rows in curves.items()
    }
    if needed:
        longest = {name: max(len(curve) for row in rows.values() for curve in row) for name, rows in curves.items()}
        least = min(n if np.isfinite(n) else longest[name] + 1 for name, n in needed.items())
        values["query_ratio_best_other"] = least / values["metapolicy_queries"]
    return values, needed


def _finite(queries: float) -> float | None:
    return queries if np.isfinite(queries) else None


if __name__ == "__main__":
    sys.exit(main())
