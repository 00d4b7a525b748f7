"""Killed at random moments, again and again: what is lost, what is damaged, what is left running.

    python tools/bench/kill_test.py --kills 100 --json kill_test.json

A small road from a search to a bundle that has learned: `search`, `train`, `export`, `report`, `enroll`, on synthetic
images. First undisturbed, then in rounds: each command is started, ended by SIGKILL at a random moment of the time it
took undisturbed, and started again, until it comes to its end (`enroll`: until its state is there, for it adds to one
that is); then the next. After every kill:

- `lost`: trials that were finished are still in the ledger, and so are their weights;
- `corrupt`: every JSON file, ledger, weights file, state and bundle that is there can be read;
- `orphans`: of the processes that the command had started none is there after ORPHAN_S;

and after each round `different`: ranking, scores, test accuracies, graphs and the state's answers are those of the
undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import optuna
from _common import emit, parser
from PIL import Image
from safetensors import safe_open

from edgemeta.errors import EdgemetaError
from edgemeta.lowering import bundle
from tests.blobs import blob_pool

ORPHAN_S = 10.0
MOST_S = 300.0  # for a command
GROWS = 1.05  # the time that it may take, from kill to kill
MARK = "EDGEMETA_KILL_TEST"
TASK = (
    "--space tiny --in-shape 1,12,12 --data npz --root blobs.npz --cache cache --device null --latency-ms 0.06 "
    "--way 4 --rungs 3,9 --eval-episodes 10 --workers 2 --trials 6 --no-progress"
)
STAGES = {
    "search": f"search --run run {TASK}",
    "train": f"train --run run {TASK} --episodes 60 --test-episodes 10",
    "export": "export --run run --no-progress",
    "report": "report --run run --no-progress",
    "enroll": "enroll --bundle run/bundle --images shown --state state.npz",
}


@dataclass
class Found:
    """What went wrong, in words."""

    kills: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"kills": 1})
    args.add_argument("--kills", type=int, default=100, help="at least; a round is finished")
    args.add_argument("--seed", type=int, default=0)
    given = args.parse_args()
    found, rng = Found(), random.Random(given.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        quiet = Path(place) / "undisturbed"
        prepare(quiet)
        took_s = {stage: timed(partial(finish, quiet, stage)) for stage in STAGES}
        wanted = outcome(quiet)
        while found.kills < given.kills:
            root, before = Path(place) / f"round{len(rows)}", found.kills
            prepare(root)
            for stage in STAGES:
                disturbed(root, stage, took_s[stage], found, rng)
            found.different += [f"round {len(rows)}: {what}" for what in apart(wanted, outcome(root))]
            rows.append({"round": len(rows), "kills": found.kills - before, **counts(found)})
            print(rows[-1], flush=True)
    values = {"kills": found.kills, **counts(found)}
    told = {name: getattr(found, name)[:20] for name in counts(found)}
    return emit(
        "kill_test", values, rows, given.json, {"took_s": took_s, "told": told}, goals=given.goals, quick=given.quick
    )


def counts(found: Found) -> dict[str, int]:
    return {name: len(getattr(found, name)) for name in ("lost", "corrupt", "orphans", "different")}


def prepare(root: Path) -> None:
    """Synthetic classes to search with, and images of three others in folders."""
    root.mkdir(parents=True)
    pool = blob_pool(classes=25, seed=0)
    np.savez(root / "blobs.npz", x=pool.x.numpy(), y=np.repeat(np.arange(25), 10))
    shown = blob_pool(classes=3, seed=9)
    for name, positions in zip("abc", shown.by_class, strict=True):
        (root / "shown" / name).mkdir(parents=True)
        for i in positions:
            Image.fromarray(shown.x[i, 0].numpy()).save(root / "shown" / name / f"{i}.png")


def started(root: Path, stage: str, mark: str) -> subprocess.Popen:
    environment = os.environ | {MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "edgemeta.cli", *STAGES[stage].split()]
    told = open(root / f"{stage}.log", "ab")  # noqa: SIM115  (the process keeps it)
    return subprocess.Popen(command, cwd=root, env=environment, stdout=told, stderr=told, start_new_session=True)


def finish(root: Path, stage: str) -> None:
    code = started(root, stage, uuid.uuid4().hex).wait(MOST_S)
    if code:
        last = (root / f"{stage}.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise SystemExit(f"{stage} ended with {code} although nobody disturbed it: {last}")


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def disturbed(root: Path, stage: str, took_s: float, found: Found, rng: random.Random) -> None:
    """Start and kill a command until it comes to its end before that; a busy machine gives it more time each time."""
    while True:
        finished, mark = finished_trials(root), uuid.uuid4().hex
        process = started(root, stage, mark)
        try:
            code = process.wait(rng.uniform(0.02, 1.0) * took_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            found.kills += 1
            took_s *= GROWS
            code = None
        where = f"{stage}, kill {found.kills}"
        found.orphans += [f"{where}: {left}" for left in orphans(mark)]
        found.corrupt += [f"{where}: {what}" for what in damaged(root)]
        gone = finished - finished_trials(root)
        found.lost += [f"{where}: {what}" for what in sorted(gone)] + [f"{where}: {w}" for w in weightless(root)]
        if stage == "enroll" and (root / "state.npz").exists():
            return  # taught, whole: the same again would teach the same images twice
        if code is not None:
            if code:
                last = (root / f"{stage}.log").read_text(errors="replace").strip().splitlines()[-1:]
                found.corrupt.append(f"{where}: it ended with {code}: {last}")
            return


def orphans(mark: str) -> list[str]:
    """Processes with this mark in their environment that are still there after a while."""
    end = time.monotonic() + ORPHAN_S
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    return [f"{pid} {command}" for pid, command in left]


def _marked(mark: str) -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def damaged(root: Path) -> list[str]:
    """What is there under its final name and cannot be read."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".safetensors": _tensors,
        ".npz": _arrays,
        ".sqlite": lambda path: rows_of(path),
    }
    wrong = []
    for path in sorted(root.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(root).parts) or path.suffix not in readers:
            continue
        try:
            readers[path.suffix](path)
        except Exception as error:
            wrong.append(f"{path.relative_to(root)}: {type(error).__name__} {str(error)[:80]}")
    for manifest in root.glob("run/bundle*/manifest.json"):
        try:
            bundle.read(manifest.parent)
        except EdgemetaError as error:
            wrong.append(str(error))
    return wrong


def _tensors(path: Path) -> None:
    with safe_open(str(path), "pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is no dict)
            file.get_tensor(name)


def _arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            file[name]


def rows_of(ledger: Path) -> list[dict[str, Any]]:
    """What the ledger keeps of each trial, in any study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{ledger}")
    try:
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in storage.get_all_trials(study._study_id, deepcopy=False)]
        return [json.loads(trial.user_attrs["trial"]) for trial in trials]
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finished_trials(root: Path) -> set[str]:
    ledger = root / "run" / "ledger.sqlite"
    rows = rows_of(ledger) if ledger.exists() else []
    return {f"{row['arch']['picks']} at {row['fidelity']}: {row['score']}" for row in rows if row["score"] is not None}


def weightless(root: Path) -> list[str]:
    """Trained trials beyond the weights that are there."""
    trained, kept = len(finished_trials(root)), len(list((root / "run" / "weights").glob("*-*.safetensors")))
    return [f"{trained} trained trials, {kept} files of weights"] if kept < trained else []


def outcome(root: Path) -> dict[str, Any]:
    """What a run comes to, without times and dates."""
    run = root / "run"
    search, train = (json.loads((run / f"{name}.json").read_text()) for name in ("search", "train"))
    ranking = [(row["picks"], row["score"], row["fidelity"]) for row in search["ranking"]]
    graphs = {path.name: bundle.read(path).id for path in sorted(run.glob("bundle*"))}
    with np.load(root / "state.npz") as file:
        state = {name: file[name].tolist() for name in file.files if name != "head"}
    return {"ranking": ranking, "tests": train["tests"], "graphs": graphs, "state": state}


def apart(wanted: dict[str, Any], found: dict[str, Any]) -> Sequence[str]:
    return [f"{name} differs" for name in wanted if wanted[name] != found[name]]


if __name__ == "__main__":
    sys.exit(main())
