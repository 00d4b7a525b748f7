"""Tasks per second of meta-training by 1, 2, ... processes that torchrun starts.

    python tools/bench/torchrun_speed.py --json torchrun_speed.json

Second-order MAML, five steps, on the network of `meta_speed` and tasks of noise, in as many shards as processes
at most: all find the same gradient, which is checked. Every number of processes is a torchrun of its own, in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _common import emit, parser
from meta_speed import drawn, learners
from safetensors.torch import load_file, save_file

from edgemeta.learners.group import Group
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.outer import laid_out, trained
from edgemeta.learners.ranks import Ranks

SECONDS = "seconds"  # of each update, beside the gradient in the file of a run


def main() -> int:
    options = parser(__doc__.split("\n")[0], quick={"tasks": 4, "updates": 2, "rounds": 1})
    options.add_argument("--tasks", type=int, default=16, help="per update; a multiple of the most processes")
    options.add_argument("--updates", type=int, default=10, help="timed in each round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    args = options.parse_args()
    shards = max(args.processes)
    if args.tasks % shards:
        options.error(f"{args.tasks} tasks do not split into {shards} shards; give --tasks {shards * 8}")
    found: dict[int, list[dict[str, torch.Tensor]]] = {count: [] for count in args.processes}
    for _ in range(args.rounds):
        for count, own in found.items():
            own.append(started(count, shards, args.tasks, args.updates))
    rows, values = compared(found, args.tasks)
    extra = {"tasks": args.tasks, "updates": args.updates, "rounds": args.rounds, "shards": shards}
    return emit("torchrun_speed", values, rows, args.json, extra, goals=args.goals, quick=args.quick)


def started(processes: int, shards: int, tasks: int, updates: int) -> dict[str, torch.Tensor]:
    """What `measure` writes in as many processes; ends with a line where they fail."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "found.safetensors"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        own = [__file__, "--measure", str(path), str(shards), str(tasks), str(updates)]
        done = subprocess.run([*torchrun, *own], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{processes} processes ended with exit code {done.returncode}: {done.stderr.strip()[-400:]}")
        return load_file(path)


def measure(path: str, shards: int, tasks: int, updates: int) -> None:
    """In each process of torchrun: seconds of every update but the first, and the last gradient, to a file."""
    keep_freed_memory()
    with Group() as group:
        ranks = Ranks(lambda: learners(5, False), group)
        slow = {name: laid_out(value) for name, value in _start(ranks).items()}
        for value in trained(slow).values():
            value.requires_grad_()
        batch, seconds = drawn(tasks), []
        for _ in range(updates + 1):
            began = time.perf_counter()
            update = ranks.update(0, slow, batch, (1.0,), shards=shards, device=torch.device("cpu"))
            seconds.append(time.perf_counter() - began)
        if group.leads:
            save_file({SECONDS: torch.tensor(seconds[1:]), **_plain(update.gradient)}, path)


def _start(ranks: Ranks) -> dict[str, torch.Tensor]:
    return ranks.learners[0].init(rng=torch.Generator().manual_seed(0))


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def compared(found: dict[int, list[dict[str, torch.Tensor]]], tasks: int) -> tuple[list[dict], dict[str, float]]:
    """Rows and values; ends with a line where gradients are not the same bits."""
    first = next(iter(found.values()))[0]
    for count, runs in found.items():
        for run in runs:
            if not all(torch.equal(run[name], first[name]) for name in first if name != SECONDS):
                sys.exit(f"{count} processes find another gradient than {next(iter(found))}; nothing was compared")
    rates = {count: tasks / median(torch.cat([run[SECONDS] for run in runs]).tolist()) for count, runs in found.items()}
    base = next(iter(rates))
    rows = [{"processes": count, "tasks_per_s": rate, "times": rate / rates[base]} for count, rate in rates.items()]
    values = {f"tasks_per_s_{count}": rate for count, rate in rates.items()}
    return rows, values | {f"times_{count}": rate / rates[base] for count, rate in rates.items() if count != base}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        sys.exit(main())
