"""Fronts that searches find in equal wall-clock, and found networks against well-known ones at equal latency.

    python tools/bench/edge_front.py --jobs 2 --json edge_front.json

Hypervolume: in the space `edge`, on Omniglot (Vinyals split) and glyphs, each searcher has `--seconds` of one core,
and the settings of `edgemeta search` but for its well-known first networks (all of a front is found) and its last
round of halving, which alone would take half of the time. `random` searches under one cap, the latency that this
machine's profile predicts for Conv4-64. The others search under a ladder of latency caps from there downwards, as
`edgemeta search --front` does, and share the time among them; `random ladder` shows what the ladder alone gives. A
front is what no other network of its search beats in validation score and predicted latency; it is judged by the
accuracy of its networks on test classes, 5-way 1-shot, with the weights that the search left, never transductive.
Hypervolume is linear in both, between these references: Conv4-64's predicted latency, and the test accuracy of a
Conv4-64 that nothing was taught (seed 0); 1 would be a network that is always right and takes no time. `_from_chance`
are the same with chance, 0.2, for the second.

Equal latency: the metapolicy's front on Omniglot, seed 0, and the well-known networks are timed in turns. Against each
stands the network of the front with the highest validation score that takes no longer; and against Conv4-64 one that a
longer search finds under a third of its latency. All are trained from scratch for `--minutes` on one core and tested on
the test classes. Latencies are of bodies: the classification after them is the same for all.

What is done is kept in `--run`, and a bench that was killed goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _common import digest, emit, kept, parser, require_folder
from _equal_latency import LANDMARK, RUNGS, TRIALS, against, margins

from edgemeta import config as configs
from edgemeta.latency import profile as profiles
from edgemeta.latency.cost import cost
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.learners.settings import recipe
from edgemeta.nets.build import build
from edgemeta.report.front import front_of
from edgemeta.report.pareto import hypervolume
from edgemeta.search import SEARCHERS, searcher
from edgemeta.search.jobs import TestJob, run_job, run_test, save_weights
from edgemeta.search.knowledge import known
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem
from edgemeta.search.run import Search
from edgemeta.search.workers import worker_pool
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.stages import assemble
from edgemeta.stages.front import ladder
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch, Trial

DATA = ("omniglot", "glyphs")
BASE, OURS = "random", "metapolicy ladder"
CHANCE = 0.2
ENDLESS = 1_000_000  # networks: time decides
QUICK = {
    "searchers": ["random", "metapolicy"], "seeds": 1, "seconds": 20.0, "rungs": [20, 60], "front": 1,
    "test_episodes": 20, "minutes": 0.05, "episodes": 20, "third_trials": 3, "third_rungs": [10, 30],
    "profile": "intel-xeon-ort-1t",
}  # fmt: skip


class Here(Executor):
    """Works at once, in this thread: a search on one core."""

    def submit(self, work: Callable, /, *given: Any, **named: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(work(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def main() -> int:
    args = _arguments()
    require_folder(args.data_root, "omniglot")
    torch.set_num_threads(1)
    with RunFolder(args.run).locked():
        name, cap_ms = device(args)
        asked = searches(args, name, cap_ms)
        with worker_pool(args.jobs) as executor:
            each = {config.data: config for config in asked}
            floor = partial(untrained, arch=LANDMARKS[LANDMARK](edge()), episodes=args.test_episodes)
            floors = dict(zip(each, executor.map(floor, each.values()), strict=True))
            found = [_said(row) for row in executor.map(partial(row_of, episodes=args.test_episodes), asked)]
            nets = against(our_front(found), args, executor) if args.minutes else []
    extra: dict[str, Any] = {name: str(value) for name, value in vars(args).items() if not isinstance(value, Path)}
    extra |= {"cap_ms": cap_ms, "untrained": floors, "policy": bool(known(edge())), "searches": found}
    told = values(found, floors, cap_ms) | margins(nets)
    rows = summary(found, floors, cap_ms) + nets
    return emit("edge_front", told, rows, args.json, extra, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick=QUICK)
    options.add_argument("--searchers", nargs="+", default=["random", "evolution", "metapolicy"], choices=SEARCHERS)
    options.add_argument("--seeds", type=int, default=5, help="searches of each searcher on each data set")
    options.add_argument("--seconds", type=float, default=180.0, help="wall-clock of a search")
    options.add_argument("--rungs", type=int, nargs="+", default=[100, 300], help="training episodes, as in a search")
    caps: dict[str, Any] = {"type": int, "choices": range(1, 13), "metavar": "CAPS"}
    options.add_argument("--front", **caps, default=3, help="latency caps of the ladder below Conv4-64's latency")
    options.add_argument("--test-episodes", type=int, default=600, help="behind each accuracy of a front")
    options.add_argument("--minutes", type=float, default=3.0, help="final training of a network; 0: none")
    options.add_argument("--episodes", type=int, default=1000, help="test episodes per figure after that")
    options.add_argument("--third-trials", type=int, default=TRIALS, help="of the search under a third of its latency")
    options.add_argument("--third-rungs", type=int, nargs="+", default=list(RUNGS), help="training episodes of that")
    options.add_argument("--learner", default="protonet", choices=LEARNERS)
    options.add_argument("--jobs", type=int, default=2, help="searches or trainings beside each other, one core each")
    options.add_argument("--profile", help="of the device to search for, by name or file (default: this machine's)")
    options.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--cache", type=Path, default=configs.default_cache(), help="folder for rendered data")
    options.add_argument("--run", type=Path, default=Path("runs/edge_front"), help="folder that keeps what is done")
    return options.parse_args()


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """One search is done."""
    networks = f"{row['networks']} networks, {len(row['front'])} on the front, best {_best(row):.1f} % on test"
    print(f"{row['data']}, {row['searcher']}, seed {row['seed']}: {row['elapsed_s']:.1f} s, {networks}", flush=True)
    return row


def device(args: argparse.Namespace) -> tuple[str, float]:
    """Name or file of the profile, and the latency that it predicts for Conv4-64."""
    space, folder = edge(), RunFolder(args.run)
    if not args.profile:
        assemble.host_profile(folder, space, seed=0)
    name = args.profile or str(folder.profile(space.name))
    profile = assemble.known_profile(name, space)
    return name, cost(space.ops(LANDMARKS[LANDMARK](space)), predictor(profile)).latency_ms


def searches(args: argparse.Namespace, device: str, cap_ms: float) -> list[configs.Search]:
    """Settings of every search; `front` is 0 for the baseline, which has no ladder.

    Searchers take turns, so that a slow hour of the machine is everyone's.
    """
    same = {"device": device, "latency_ms": cap_ms, "seconds": args.seconds, "learner": args.learner}
    same |= {"rungs": tuple(args.rungs)}
    same |= {"trials": ENDLESS, "workers": 1, "progress": False, "cache": args.cache}
    contestants = [(BASE, 0), *((name, args.front) for name in args.searchers)]
    asked, profiled = [], profiles.load(device).device
    for data, seed, (name, front) in product(DATA, range(args.seeds), contestants):
        root = args.data_root / data if data == "omniglot" else None
        own = {"data": data, "root": root, "seed": seed, "searcher": name, "front": front}
        made = configs.make(configs.Search, same | own)
        settings = configs.as_json(made, configs.Search) | {"run": "", "device": profiled}
        folder = f"{data}-{label(made)}-{seed}-{digest(sorted(settings.items()), args.test_episodes)}"
        asked.append(replace(made, run=args.run / folder.replace(" ", "-")))
    return asked


def label(config: configs.Search) -> str:
    return f"{config.searcher} ladder" if config.front else config.searcher


def problem_of(config: configs.Search) -> Problem:
    space = assemble.space_of(config)
    assemble.require_data(assemble.data_of(config), config.way, config.shot, trainings=[recipe(config.learner)])
    profile = assemble.known_profile(config.device, space)
    return assemble.problem_of(config, RunFolder(config.run), space, profile)


def untrained(config: configs.Search, arch: Arch, episodes: int) -> float:
    """Test accuracy of a network that nothing was taught."""
    problem = problem_of(config)
    learner = LEARNERS[problem.learner](build(problem.space.ops(arch)))
    weights = config.run.parent / f"untrained-{config.data}-{digest(arch, problem.learner, episodes)}.safetensors"
    save_weights(weights, learner.init(rng=torch.Generator().manual_seed(0)))
    return kept(weights.with_suffix(".json"), lambda: tested(problem, arch, weights, episodes)["accuracy"])


def row_of(config: configs.Search, episodes: int) -> dict[str, Any]:
    """One search and its front, with test accuracies."""
    return kept(config.run / "row.json", lambda: _row(config, episodes))


def _row(config: configs.Search, episodes: int) -> dict[str, Any]:
    shutil.rmtree(config.run, ignore_errors=True)  # a search that was killed has lost its clock
    problem = problem_of(config)
    _warm_up(problem)
    trials, elapsed_s = searched(problem, config)
    row = {"data": config.data, "searcher": label(config), "seed": config.seed, "elapsed_s": elapsed_s}
    row["networks"] = len({trial.arch for trial in trials if trial.score is not None})
    return row | {"front": [_on_front(problem, trial, episodes) for trial in front_of(trials)]}


def _warm_up(problem: Problem) -> None:
    """What only the first training of a process takes."""
    arch = problem.space.sample(rng=Random(0))
    with TemporaryDirectory() as folder:
        job = replace(problem, weights=Path(folder), rungs=(2,), eval_episodes=2).job(arch, 0)
        run_job(job)


def searched(problem: Problem, config: configs.Search) -> tuple[list[Trial], float]:
    """Every trial of a search under each of its caps, and the seconds that it took."""
    began = time.perf_counter()
    ledger = Ledger(RunFolder(config.run).ledger, problem.space, problem.task)
    caps_ms = [config.latency_ms]
    if config.front:
        caps_ms += ladder(problem, "latency_ms", config.latency_ms, config.front, rng=Random(config.seed))
    for cap_ms, caps in zip(caps_ms, range(len(caps_ms), 0, -1), strict=True):
        now = time.perf_counter()
        under = replace(problem, cap=replace(problem.cap, latency_ms=cap_ms))
        _until(now + (began + config.seconds - now) / caps, under, config, ledger)  # the rest, shared
    return ledger.trials(), time.perf_counter() - began


def _until(end: float, problem: Problem, config: configs.Search, ledger: Ledger) -> None:
    """Search; again where halving took less time than was expected, so that there is some for other networks."""
    before = -1
    while before < len(ledger.trials()) and (left_s := end - time.perf_counter()) > 0:
        before = len(ledger.trials())
        proposing = searcher(config.searcher, problem, seed=config.seed, trials=config.trials)
        search = Search(problem, proposing, config.searcher, ledger, Here(), 1, progress=False)
        search.run(trials=config.trials, seconds=left_s)


def _on_front(problem: Problem, trial: Trial, episodes: int) -> dict[str, Any]:
    row = tested(problem, trial.arch, problem.weights_of(trial.arch, trial.fidelity), episodes)
    trained = {"picks": list(trial.arch.picks), "latency_ms": trial.cost.latency_ms, "episodes": trial.fidelity}
    return trained | {"val": trial.score, "test": row["accuracy"], "test_ci95": row["ci95"]}


def _best(row: Mapping[str, Any]) -> float:
    """Highest test accuracy of a front, in percent; 0 where nothing could be trained."""
    return 100 * max((net["test"] for net in row["front"]), default=0.0)


def tested(problem: Problem, arch: Arch, weights: Path, episodes: int) -> dict[str, Any]:
    """Accuracy on test classes with stored weights; the same episodes for all."""
    sets, shots = ((problem.data, "test"),), (problem.shot,)
    ops = problem.space.ops(arch)
    return run_test(TestJob(ops, problem.learner, str(weights), sets, problem.way, shots, episodes, seed=0))[0]


def our_front(found: Sequence[Mapping[str, Any]]) -> dict[Arch, float]:
    """Network -> validation score of the front on Omniglot that seed 0 of our searcher found."""
    ours = (row["front"] for row in found if (row["data"], row["searcher"], row["seed"]) == (DATA[0], OURS, 0))
    return {Arch(edge().name, tuple(net["picks"])): net["val"] for front in ours for net in front}


def volume(row: Mapping[str, Any], floor: float, cap_ms: float) -> float:
    """Of the test points of a front, as a share of all that there is between the references and perfection."""
    points = [(net["test"], net["latency_ms"]) for net in row["front"]]
    return hypervolume(points, (floor, cap_ms)) / ((1 - floor) * cap_ms)


def ratios(
    found: Sequence[Mapping[str, Any]], name: str, floors: Mapping[str, float], cap_ms: float
) -> dict[tuple[str, int], float]:
    """(data, seed) -> hypervolume of a searcher over that of the baseline."""
    of = {(row["searcher"], row["data"], row["seed"]): volume(row, floors[row["data"]], cap_ms) for row in found}
    made = {}
    for data, seed in [(row["data"], row["seed"]) for row in found if row["searcher"] == name]:
        base = of[BASE, data, seed]
        if not base:
            sys.exit(f"no network of random search on {data}, seed {seed}, beats an untrained one; raise --seconds")
        made[data, seed] = of[name, data, seed] / base
    return made


def summary(found: Sequence[Mapping[str, Any]], floors: Mapping[str, float], cap_ms: float) -> list[dict[str, Any]]:
    """A row for each data set and searcher: means over seeds, with their spread."""
    rows = []
    for data, name in dict.fromkeys((row["data"], row["searcher"]) for row in found):
        own = [row for row in found if (row["data"], row["searcher"]) == (data, name)]
        volumes = [volume(row, floors[data], cap_ms) for row in own]
        over = [ratio for (of, _), ratio in ratios(found, name, floors, cap_ms).items() if of == data]
        rows.append(
            {
                "data": data,
                "searcher": name,
                "hypervolume": mean(volumes),
                "hypervolume_sd": _sd(volumes),
                "ratio": mean(over),
                "ratio_sd": _sd(over),
                "ratio_least": min(over),
                "elapsed_s": mean(row["elapsed_s"] for row in own),
                "networks": mean(row["networks"] for row in own),
                "on_front": mean(len(row["front"]) for row in own),
                "best_test_percent": mean(map(_best, own)),
            }
        )
    return rows


def values(found: Sequence[Mapping[str, Any]], floors: Mapping[str, float], cap_ms: float) -> dict[str, float]:
    """Means over data sets and seeds, for each searcher but the baseline."""
    made: dict[str, float] = {}
    base_s = mean(row["elapsed_s"] for row in found if row["searcher"] == BASE)
    chance = dict.fromkeys(floors, CHANCE)
    for name in dict.fromkeys(row["searcher"] for row in found if row["searcher"] != BASE):
        key = "" if name == OURS else f"{name.replace(' ', '_')}_"
        over = list(ratios(found, name, floors, cap_ms).values())
        made[f"{key}hypervolume_ratio_vs_random"] = mean(over)
        made[f"{key}hypervolume_ratio_ci95"] = 1.96 * _sd(over) / len(over) ** 0.5
        made[f"{key}hypervolume_ratio_from_chance"] = mean(ratios(found, name, chance, cap_ms).values())
        made[f"{key}seconds_vs_random"] = mean(row["elapsed_s"] for row in found if row["searcher"] == name) / base_s
    return made


def _sd(numbers: Sequence[float]) -> float:
    return stdev(numbers) if len(numbers) > 1 else 0.0


if __name__ == "__main__":
    sys.exit(main())
