"""How cost grows: with processes that share a search, with trials in the ledger, with processes that share a training.

    python tools/bench/scale.py --json scale.json

- `speedup_*`: the same search by 1 and 2 processes (`--processes`) of one worker each, on a PostgreSQL server of its
  own: seconds from the first command to the end of the last, start of Python included. Trainings are all that takes
  long (`--episodes` each, synthetic images). `same`: every ranking is that of the lone process; `trained_s`: what the
  trainings took in all, which is more where processes hinder one another.
- `ask_ms_10k`: an `ask` of the searcher that `edgemeta search` takes by default, told 10^4 trials; the rows have all
  searchers that need no training of their own.
- ledgers in SQLite of 10^2 to 10^5 trials: seconds to open and read, milliseconds to append, MiB that it takes here.
- `tasks_per_s`: meta-training by 1 and 2 processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from _common import emit, parser

from edgemeta import config as configs
from edgemeta.data.episode import Pool
from edgemeta.learners.settings import recipe
from edgemeta.learners.shards import Team
from edgemeta.learners.train import train
from edgemeta.search import SEARCHERS
from edgemeta.search.jobs import crew
from edgemeta.search.ledger import Ledger
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.types import Cost, Trial
from tests import postgres
from tests.blobs import blob_pool

SIZE, CLASSES = 28, 40  # of synthetic images
ASKED = ("random", "evolution", "metaqnn", "enas", "tpe", "nsga2", "metapolicy")
QUICK = {"trials": 4, "episodes": 10, "lookahead": 2, "sizes": [100, 1000], "told": 1000, "trained": 32}
TRIED = 9  # asks of which the median counts
OPTIONS = (
    "--space edge --data npz --root blobs.npz --cache cache --device null --way 5 --eval-episodes 100 --workers 1 "
    "--no-progress"
)


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick=QUICK)
    args.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="that share a search; 1 first")
    args.add_argument("--trials", type=int, default=64)
    args.add_argument("--episodes", type=int, default=150, help="of each training")
    args.add_argument("--lookahead", type=int, default=8, help="networks under way at once, of all processes")
    args.add_argument(
        "--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="of ledgers, in trials"
    )
    args.add_argument("--told", type=int, default=10_000, help="trials before an ask")
    args.add_argument("--trained", type=int, default=160, help="tasks of a meta-training")
    args.add_argument("--only", nargs="+", default=["search", "ask", "ledger", "training"])
    given = args.parse_args()
    torch.set_num_threads(1)
    values: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    parts = {"search": shared_search, "ask": asks, "ledger": ledgers, "training": trainings}
    for name in given.only:
        for row, found in parts[name](given):
            rows.append({"part": name, **row})
            values |= found
            print(rows[-1], flush=True)
    facts = {name: value for name, value in vars(given).items() if not isinstance(value, Path)}
    return emit("scale", values, [], given.json, facts | {"table": rows}, goals=given.goals, quick=given.quick)


Row = tuple[dict[str, Any], dict[str, float]]


def shared_search(given: argparse.Namespace) -> Iterator[Row]:
    """One search by so many processes, each time on a server that knows nothing."""
    alone_s, wanted = 0.0, None
    for processes in given.processes:
        with tempfile.TemporaryDirectory() as folder, postgres.server() as server:
            began = time.perf_counter()
            found = together(Path(folder), server.url, processes, given)
            took_s = time.perf_counter() - began
            trained_s = sum(trained(Path(folder) / "run0" / "ledger.sqlite"))
        alone_s, wanted = alone_s or took_s, wanted or found[0]
        row = {"processes": processes, "took_s": took_s, "trained_s": trained_s, "speedup": alone_s / took_s}
        row["same"] = float(all(ranking == wanted for ranking in found))
        name = f"speedup_{processes}_workers_postgres"
        yield row, {name: row["speedup"]} if processes > 1 else {"search_s": took_s}


def together(place: Path, url: str, processes: int, given: argparse.Namespace) -> list[Any]:
    """The ranking that each process ends with."""
    pool = blob_pool(classes=CLASSES, seed=0, size=SIZE)
    np.savez(place / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(CLASSES), 10))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    size = f"--trials {given.trials} --rungs {given.episodes} --lookahead {given.lookahead}"
    asked = f"search {OPTIONS} {size} --storage {url}"
    command = [sys.executable, "-m", "edgemeta.cli", *asked.split()]
    running = [subprocess.Popen([*command, "--run", f"run{n}"], cwd=place, env=environment) for n in range(processes)]
    if any(process.wait() for process in running):
        raise SystemExit("a search failed; it says why above")
    notes = [json.loads((place / f"run{n}" / "search.json").read_text()) for n in range(processes)]
    return [[(row["picks"], row["score"]) for row in note["ranking"]] for note in notes]


def trained(ledger: Path) -> list[float]:
    """Seconds that each training of a ledger took, wherever it was."""
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'trial'").fetchall()
    return [json.loads(json.loads(text))["seconds"] for (text,) in rows]


def trials_of(count: int) -> Iterator[Trial]:
    space, rng = edge(), Random(0)
    for _ in range(count):
        cost, score = Cost(rng.random(), rng.random(), rng.random()), rng.random()
        yield Trial(space.sample(rng=rng), cost, score, 0.01, 100, 0, 1.0, "random", "ok", "null")


def asks(given: argparse.Namespace) -> Iterator[Row]:
    """An `ask` after so many trials."""
    for name in ASKED:
        row: dict[str, Any] = {"searcher": name}
        for count in (100, given.told):
            searcher = SEARCHERS[name](edge(), seed=0)
            for trial in trials_of(count):
                searcher.tell(trial)
            searcher.ask()
            row[f"ask_ms_{count}"] = 1e3 * median(took_s(searcher.ask) for _ in range(TRIED))
        known = "ask_ms_10k" if given.told == 10_000 else f"ask_ms_{given.told}"
        yield row, {known: row[f"ask_ms_{given.told}"]} if name == configs.Search().searcher else {}


def took_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ledgers(given: argparse.Namespace) -> Iterator[Row]:
    """A ledger of so many trials, read in a process of its own."""
    for count in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.sqlite"
            filled(path, count)
            code = f"import scale; from pathlib import Path; scale.read(Path({str(path)!r}))"
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
            row = {"trials": count, **json.loads(told.stdout), "file_mib": path.stat().st_size / 2**20}
        yield row, {f"append_ms_{count}": row["append_ms"], f"open_s_{count}": row["open_s"]}


def filled(path: Path, count: int) -> None:
    """The first trials are recorded; the others are written as Optuna does it, many at once."""
    some = list(trials_of(10))
    with closing(Ledger(path, edge(), "bench")) as ledger:
        for trial in some[:count]:
            ledger.record(trial)
    with closing(sqlite3.connect(path)) as to, to:
        for n in range(len(some), count):
            old = n % len(some) + 1
            fields = "study_id, state, datetime_start, datetime_complete"
            cursor = to.execute(
                f"INSERT INTO trials (number, {fields}) SELECT ?, {fields} FROM trials WHERE trial_id = ?", (n, old)
            )
            new = cursor.lastrowid
            for table, columns in (
                ("trial_params", "param_name, param_value, distribution_json"),
                ("trial_values", "objective, value, value_type"),
                ("trial_user_attributes", "key, value_json"),
            ):
                asked = f"INSERT INTO {table} (trial_id, {columns}) SELECT ?, {columns} FROM {table} WHERE trial_id = ?"
                to.execute(asked, (new, old))


def read(path: Path) -> None:
    """Print what a ledger takes to open, to read and to append to."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with closing(Ledger(path, edge(), "bench")) as ledger:
        ledger.trials()
        opened_s = time.perf_counter() - began
        appended = [took_s(partial(ledger.record, trial)) for trial in trials_of(TRIED)]
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    print(json.dumps({"open_s": opened_s, "append_ms": 1e3 * median(appended), "ram_mib": grown_kib / 1024}))


def trainings(given: argparse.Namespace) -> Iterator[Row]:
    """Tasks a second of ANIL and ProtoNet on Conv4-64, by processes."""
    pool = blob_pool(classes=CLASSES, seed=0, size=SIZE)
    for learner in ("protonet", "anil"):
        alone = 0.0
        for workers in (1, 2):
            speed = tasks_per_s(pool, learner, workers, given.trained)
            alone = alone or speed
            row = {"learner": learner, "processes": workers, "tasks_per_s": speed, "speedup": speed / alone}
            yield row, {f"tasks_per_s_{learner}_{workers}": speed}


def tasks_per_s(pool: Pool, learner: str, workers: int, episodes: int) -> float:
    ops = edge().ops(LANDMARKS["conv4-64"](edge()))
    with Team(partial(crew, ops, learner), workers) as team:
        _, own = crew(ops, learner)
        slow = own.init(rng=torch.Generator().manual_seed(0))

        def run(training: Any) -> None:
            train(own, slow, [pool], training, rng=np.random.default_rng(0), team=team)

        run(recipe(learner).split(2).lasting(8))  # processes start
        return episodes / took_s(lambda: run(recipe(learner).split(2).lasting(episodes)))


if __name__ == "__main__":
    sys.exit(main())
