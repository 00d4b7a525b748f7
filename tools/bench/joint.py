"""The joint search on Omniglot: a cell of at most 30 thousand parameters, found and then trained for some minutes.

    python tools/bench/joint.py --minutes 60 --json joint.json

Vinyals split, rotations as classes. `joint` searches the cells of `darts` on the training classes alone; what it
proposes first is trained from scratch as in `omniglot.py`, whose options these are, and tested on the test classes.
Never transductive: each query is classified alone. Beside it stands T-NAS (Lian 2020): 99.36 % with 25 thousand
parameters, 5 ways and 1 shot, queries normalised by one another. The only cap is one on storage, what so many
parameters take with the graph that holds them, so that they are a few fewer; `--width` is that of the first cells, at
which most cells are under it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import omniglot
import torch
from _common import emit, parser, require_folder

from edgemeta.latency import profile
from edgemeta.latency.table import predictor
from edgemeta.learners import LEARNERS
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.nets.build import build
from edgemeta.nets.relaxed import skips
from edgemeta.search.jobs import DataSpec
from edgemeta.search.joint import Joint, JointSearch
from edgemeta.search.problem import Problem
from edgemeta.space.cells import darts
from edgemeta.space.space import Space
from edgemeta.types import FLOAT_BYTES, KIB, Arch, Cost

T_NAS = {"5w1s_published": 99.36, "source": "Lian 2020, T-NAS, 25k parameters, transductive"}
TASKS = ("5w1s", "5w5s")


def main() -> int:
    args = _arguments()
    require_folder(args.data_root, "omniglot")
    torch.set_num_threads(1)
    keep_freed_memory()
    data = DataSpec("omniglot", str(args.data_root / "omniglot"), "", (1, 28, 28), 0)
    space = darts(width=args.width)
    row = found(asked(space, data, args), settings_of(args), args)
    print(row, flush=True)
    row |= trained(space, Arch(space.name, tuple(row["picks"])), args)
    names = [f"{task}{kind}" for task in TASKS for kind in ("", "_ci95")]
    values = {name: row[name] for name in (*names, "params_k", "search_s", "skips_normal", "skips_reduction")}
    extra = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    extra["search"] = str(settings_of(args))
    return emit("joint", values, [row], args.json, extra, goals=args.goals, quick=args.quick)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick={"search_episodes": 6, "minutes": 0.05, "episodes": 10})
    options.add_argument("--most-k", type=float, default=30.0, help="thousand parameters of the network")
    options.add_argument("--width", type=int, default=6, help="channels of the first cells")
    options.add_argument("--search-episodes", type=int, default=Joint().episodes)
    options.add_argument("--learner", default="protonet", choices=LEARNERS)
    options.add_argument("--also-val", action="store_true", help="train on the validation classes, too")
    options.add_argument("--minutes", type=float, default=10.0, help="processor time of the training")
    options.add_argument("--hours", type=float, default=0.0, help="instead of --minutes")
    options.add_argument("--episodes", type=int, default=1000, help="test episodes per figure")
    options.add_argument("--split", default="test", choices=("test", "val"), help="val: to choose settings by")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--keep", type=Path, help="folder for the trained weights")
    return options.parse_args()


def settings_of(args: argparse.Namespace) -> Joint:
    return replace(Joint(), episodes=args.search_episodes)


def asked(space: Space, data: DataSpec, args: argparse.Namespace) -> Problem:
    """The search's problem: nothing of it is trained by the search, so that it needs no folder of weights."""
    cap = Cost(flash_kib=1e3 * args.most_k * FLOAT_BYTES / KIB)
    null = predictor(profile.load("null"))
    return Problem(space=space, predictor=null, cap=cap, learner=args.learner, data=data, weights=Path())


def found(problem: Problem, settings: Joint, args: argparse.Namespace) -> dict[str, Any]:
    """What the search proposes first, and what it took."""
    began = time.process_time()
    searcher = JointSearch(problem.space, seed=args.seed, problem=problem, settings=settings)
    arch = searcher.ask()
    search_s = time.process_time() - began
    if searcher.found is None:
        raise AssertionError("a searcher that was asked has searched")
    learned, space = searcher.found.learned, problem.space
    held = {f"skips_{cell}": number for cell, number in skips(space, arch).items()}
    rates = {f"rate_{group}": values[-1] for group, values in learned.rates.items()}
    mmacs = sum(op.macs for op in space.ops(arch)) / 1e6
    row = {"picks": list(arch.picks), "search_s": search_s, "mmacs": mmacs, "repaired": arch != searcher.found.derived}
    return row | held | rates | {"stopped": learned.stopped}


def trained(space: Space, arch: Arch, args: argparse.Namespace) -> dict[str, Any]:
    """Accuracies of the network after training from scratch (`omniglot.measured`), beside those of T-NAS."""
    net = build(space.ops(arch))
    row = omniglot.measured(args.learner, omniglot.own_recipe(args.learner), net, args)
    if row["params_k"] > args.most_k:
        raise AssertionError(f"{row['params_k']} thousand parameters are more than {args.most_k}")
    return {name: value for name, value in row.items() if not name.endswith("_published")} | T_NAS


if __name__ == "__main__":
    sys.exit(main())
