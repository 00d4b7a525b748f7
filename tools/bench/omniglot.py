"""Few-shot accuracy on Omniglot's test classes: every learner after minutes of meta-training on one core.

    python tools/bench/omniglot.py --all --minutes 10 --jobs 2 --json omniglot.json

Vinyals split, rotations as classes; trained on `train`, settings chosen on `val`, reported on `test`. Never
transductive: each query is classified alone. All learners share one network: `tapered` has 97 thousand parameters (16,
32, 64, 128 filters), `deep` 72 thousand (16, 16, 32, 32, 48, 96) and twice the work. Published figures come from
training on what is `train` and `val` here; `--also-val` does so, once all settings are chosen. Learners whose recipe
begins with a warm-up start from one body, which class means taught for seven tenths of the time; it is trained once and
counts for each. Beside each figure stands the published one, with its source; most of those normalise queries by one
another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import emit, parser, require_folder

from edgemeta.contracts import Learner, Net, Params
from edgemeta.data.episode import Pool
from edgemeta.files import write_json
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.settings import Training, recipe
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.search.jobs import DataSpec, data_pool, load_weights, save_weights
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.space.space import Space
from edgemeta.types import Arch

DEEP = tuple({"width": w, "depth": d, "kind": "conv", "down": "pool"} for w, d in ((16, 2), (32, 2), (48, 1), (96, 1)))
NETS: dict[str, Callable[[Space], Arch]] = {**LANDMARKS, "deep": lambda space: space.arch(DEEP)}
TASKS = ((5, 1), (5, 5), (20, 1), (20, 5))
QUICK = {"learners": ["protonet", "ridge", "maml"], "arch": "deep", "minutes": 0.03, "episodes": 10}
WARM = 0.7  # of the time, for learners whose recipe begins with a warm-up


class Published(NamedTuple):
    """Accuracies in percent at TASKS; None where the paper has none."""

    figures: tuple[float | None, ...]
    source: str


PUBLISHED = {
    "protonet": Published((98.8, 99.7, 96.0, 98.9), "Snell 2017"),
    "matching": Published((98.1, 98.9, 93.8, 98.5), "Vinyals 2016"),
    "ridge": Published((98.55, 99.67, 94.70, 98.91), "Bertinetto 2019, R2-D2 with 64 filters"),
    "anil": Published((None, None, 96.2, 98.0), "Raghu 2020"),
    "maml": Published((98.7, 99.9, 95.8, 98.9), "Finn 2017, transductive"),
    "fomaml": Published((98.3, 99.2, 89.4, 97.9), "Nichol 2018, transductive"),
    "meta-sgd": Published((99.53, 99.93, 95.93, 98.97), "Li 2017, transductive"),
    "reptile": Published((95.39, 98.90, 88.14, 96.65), "Nichol 2018, not transductive"),
    "mann": Published((82.8, 94.9, None, None), "Santoro 2016, second and fifth instance"),
}


def main() -> int:
    args = _arguments()
    require_folder(args.data_root, "omniglot")
    names = list(LEARNERS) if args.all else args.learners
    warmed = [name for name in names if recipe(name).warmup]
    alone = [name for name in names if name not in warmed]
    with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(args.jobs) as pool:
        body = (args.keep or Path(folder)) / f"body-{_identity(args)}.safetensors"
        warming = pool.apply_async(_warm_up, (body, args)) if warmed and not body.exists() else None
        by_themselves = pool.imap(_row, [(name, None, args) for name in alone])
        if warming:
            warming.get()
        from_body = pool.imap(_row, [(name, body, args) for name in warmed])
        rows = [_said(row) for row in chain(by_themselves, from_body)]
    values = {f"{row['learner']}_{way}w{shot}s": row[f"{way}w{shot}s"] for row in rows for way, shot in TASKS}
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    return emit("omniglot", values, rows, args.json, settings, goals=args.goals, quick=args.quick)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    print(row, flush=True)
    return row


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick=QUICK)
    options.add_argument("--learners", nargs="+", default=["protonet"], choices=LEARNERS)
    options.add_argument("--all", action="store_true", help="every learner")
    options.add_argument("--arch", default="tapered", choices=NETS)
    options.add_argument("--also-val", action="store_true", help="train on the validation classes, too")
    options.add_argument("--minutes", type=float, default=10.0, help="processor time of each learner's training")
    options.add_argument("--hours", type=float, default=0.0, help="instead of --minutes")
    options.add_argument("--jobs", type=int, default=1, help="learners trained beside each other, one core each")
    options.add_argument("--episodes", type=int, default=1000, help="test episodes per figure")
    options.add_argument("--split", default="test", choices=("test", "val"), help="val: to choose settings by")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--data-root", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options.add_argument("--keep", type=Path, help="folder for weights and rows: what is there is not made again")
    return options.parse_args()


def _warm_up(body: Path, args: argparse.Namespace) -> None:
    """The body that class means have taught, for all learners that start from one."""
    torch.set_num_threads(1)
    keep_freed_memory()
    learner, settings = LEARNERS["protonet"](network(args.arch)), Training(way=60)
    slow = learner.init(rng=torch.Generator().manual_seed(args.seed))
    pool = taught(args)
    settings = affordable(learner, slow, pool, settings, WARM * seconds(args))
    save_weights(body, train(learner, slow, pool, settings, rng=np.random.default_rng(args.seed)))


def _row(job: tuple[str, Path | None, argparse.Namespace]) -> dict[str, Any]:
    name, body, args = job
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = own_recipe(name)
    known = args.keep / f"{name}-{_identity(args, settings)}.json" if args.keep else None
    if known and known.exists():
        return json.loads(known.read_text())
    row = measured(name, settings, network(args.arch), args, body)
    if known:
        write_json(known, row)
    return row


def _identity(args: argparse.Namespace, settings: Training | None = None) -> str:
    """Equal for runs that would end at the same figures, but for changes of the code."""
    told = (args.arch, args.also_val, seconds(args), args.seed, *((args.episodes, args.split) if settings else ()))
    return hashlib.sha256(repr((told, settings)).encode()).hexdigest()[:8]


def own_recipe(name: str) -> Training:
    """The learner's own part of its recipe. Past the first minute more ways teach better: chosen on `val`."""
    own = replace(recipe(name), warmup=0.0)
    return replace(own, way=60) if own == Training() else own


def network(arch: str) -> Net:
    space = edge()
    return build(space.ops(NETS[arch](space)))


def measured(
    name: str, settings: Training, net: Net, args: argparse.Namespace, body: Path | None = None
) -> dict[str, Any]:
    """One learner's accuracies after training, from its own start or from a warmed-up body, and what it took."""
    learner = LEARNERS[name](net)
    slow = learner.init(rng=torch.Generator().manual_seed(args.seed))
    if body:
        slow |= {key: value for key, value in load_weights(body).items() if key in net.init(rng=torch.Generator())}
    pool = taught(args)
    settings = affordable(learner, slow, pool, settings, (1 - WARM if body else 1.0) * seconds(args))
    began = time.process_time()
    slow = train(learner, slow, pool, settings, rng=np.random.default_rng(args.seed))
    params = sum(value.numel() for key, value in slow.items() if not key.startswith("stat."))
    row: dict[str, Any] = {"learner": name, "params_k": params / 1e3, "train_s": time.process_time() - began}
    row["warm_up_s"] = WARM * seconds(args) if body else 0.0
    if args.keep:
        save_weights(args.keep / f"{name}.safetensors", slow)
    judge = omniglot(args.data_root, args.split)
    z = features(learner, slow, judge)
    published = PUBLISHED.get(name, Published((None,) * len(TASKS), ""))
    for (way, shot), paper in zip(TASKS, published.figures, strict=True):
        task = {"way": way, "shot": shot, "query": 15, "episodes": args.episodes}
        score = evaluate(learner, slow, judge, z, rng=np.random.default_rng([1, way, shot]), **task)
        figures = {"": 100 * score.mean, "_ci95": 100 * score.ci95, "_published": paper}
        row |= {f"{way}w{shot}s{kind}": value for kind, value in figures.items()}
    return row | {"source": published.source, "transductive": learner.transductive, "training": str(settings)}


def seconds(args: argparse.Namespace) -> float:
    return 3600 * args.hours or 60 * args.minutes


def omniglot(root: Path, split: str) -> Pool:
    return data_pool(DataSpec("omniglot", str(root / "omniglot"), "", (1, 28, 28), 0), split)


def taught(args: argparse.Namespace) -> Pool:
    """The classes to train on."""
    pool = omniglot(args.data_root, "train")
    if not args.also_val:
        return pool
    if args.split == "val":
        sys.exit("--also-val trains on what --split val tests on; leave one of them out")
    more = omniglot(args.data_root, "val")
    by_class = pool.by_class + tuple(positions + len(pool.x) for positions in more.by_class)
    return Pool(torch.cat([pool.x, more.x]), pool.scale, by_class, pool.class_names + more.class_names)


def affordable(learner: Learner, slow: Params, pool: Pool, settings: Training, limit_s: float) -> Training:
    """As many episodes as fit the time of a core, from how much longer more of them take."""
    plain = replace(settings, frozen=min(1, settings.frozen))

    def taken_s(episodes: int) -> float:
        began = time.process_time()
        train(learner, slow, pool, plain.lasting(episodes), rng=np.random.default_rng(0))
        return time.process_time() - began

    few = episodes = 2 * settings.tasks
    fixed_s, more_s = taken_s(few), 0.0
    while more_s < limit_s / 50:
        episodes *= 2
        more_s = taken_s(episodes) - fixed_s
    return plain.lasting(max(1, int(limit_s / more_s * (episodes - few))))


if __name__ == "__main__":
    sys.exit(main())
