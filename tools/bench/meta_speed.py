"""Second-order MAML, tasks per second: ours against `higher`, `torchopt` and a plain loop, in one run.

    pip install -c constraints.txt -e '.[bench]' && python tools/bench/meta_speed.py --json meta_speed.json

One network for all: four strided convolutions of 64 filters, batch norm on each batch, a linear head of five classes
(Finn 2017's for Omniglot), 5-way 1-shot with 15 queries a class, one step size. All give the same meta-gradient: that
is checked in float64 before anything is timed. On one core everything runs in this process with one thread, in turns;
on two, the others have two threads, which is what they offer, and ours two processes of one thread each. Memory is what
a process of one thread that does nothing else holds at its peak, over what it held before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import emit, parser
from torch import Tensor, nn

from edgemeta.contracts import Learner, Net
from edgemeta.data.episode import Draw, Pool, draw
from edgemeta.learners.maml import maml
from edgemeta.learners.outer import Tasks, laid_out, meta_gradient, trained
from edgemeta.learners.shards import Team, gather
from edgemeta.nets.build import build
from edgemeta.space.presets import edge

WAY, SHOT, QUERY, RATE, FILTERS = 5, 1, 15, 0.1, 64
OURS, PEERS = "edgemeta", ("higher", "torchopt", "loop")
Run = Callable[[], dict[str, Tensor]]  # one update: the mean meta-gradient by name
AGREE = 1e-10


class Conv4(nn.Module):
    """What the peers are given: the same network as PyTorch modules, with the same weights."""

    def __init__(self, slow: Mapping[str, Tensor], ops: tuple):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in (i for i, op in enumerate(ops) if op.kind == "conv"):
            weight = slow[f"{i}.weight"].detach()
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2, 1, bias=False)
            conv.weight = nn.Parameter(laid_out(weight.clone()))
            self.convs.append(conv)
            self.norms.append(nn.BatchNorm2d(weight.shape[0], track_running_stats=False).to(weight.dtype))
        self.head = nn.Linear(FILTERS, WAY).to(weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        z = x.mean((2, 3))
        return self.head(F.layer_norm(z, z.shape[1:]))

    def gradient(self) -> dict[str, Tensor]:
        """As ours is named; the rows of the head, which start alike, as one."""
        found = {"head.row": _slope(self.head.weight).sum(0)}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            parts = {"weight": conv.weight, "gamma": norm.weight, "beta": norm.bias}
            found |= {f"{i}.{name}": _slope(value) for name, value in parts.items()}
        return found


def _slope(value: Any) -> Tensor:
    return value.grad


def net() -> Net:
    space = edge()
    return build(space.ops(space.arch([{"width": FILTERS, "kind": "conv", "down": "stride"}] * 4)))


def learners(steps: int) -> list[Learner]:
    """The paper's MAML: batch statistics, constant rates, a head that is the same for every class at the start."""
    settings: dict[str, Any] = {"rates": "fixed", "head": "row", "transductive": True}
    return [maml(net(), steps=steps, lr=RATE / WAY, body_lr=RATE, **settings)]


def in_loop(model: Conv4, tasks: Tasks, steps: int) -> None:
    """The textbook: torch.func.functional_call, and autograd through every step."""
    start: dict[str, Tensor] = dict(model.named_parameters())
    for x, onehot, query_x, query_y in zip(*tasks, strict=True):
        params, y = start, onehot.argmax(1)
        for _ in range(steps):
            loss = F.cross_entropy(torch.func.functional_call(model, params, (x,)), y)
            slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {name: value - RATE * slope for (name, value), slope in zip(params.items(), slopes, strict=True)}
        outer = F.cross_entropy(torch.func.functional_call(model, params, (query_x,)), query_y)
        (outer / len(tasks.x)).backward()


def with_higher(model: Conv4, tasks: Tasks, steps: int) -> None:
    import higher

    sgd = torch.optim.SGD(model.parameters(), lr=RATE)
    for x, onehot, query_x, query_y in zip(*tasks, strict=True):
        with higher.innerloop_ctx(model, sgd, copy_initial_weights=False) as (fast, inner):
            for _ in range(steps):
                inner.step(F.cross_entropy(fast(x), onehot.argmax(1)))
            (F.cross_entropy(fast(query_x), query_y) / len(tasks.x)).backward()


def with_torchopt(model: Conv4, tasks: Tasks, steps: int) -> None:
    import torchopt

    inner = torchopt.MetaSGD(model, lr=RATE)
    weights = torchopt.extract_state_dict(model, by="reference", detach_buffers=True)
    state = torchopt.extract_state_dict(inner, by="reference")
    for x, onehot, query_x, query_y in zip(*tasks, strict=True):
        for _ in range(steps):
            inner.step(F.cross_entropy(model(x), onehot.argmax(1)))
        loss = F.cross_entropy(model(query_x), query_y) / len(tasks.x)
        torchopt.recover_state_dict(model, weights)
        torchopt.recover_state_dict(inner, state)
        loss.backward()


PEER = {"higher": with_higher, "torchopt": with_torchopt, "loop": in_loop}


def peer(name: str, tasks: Tasks, steps: int, dtype: torch.dtype = torch.float32) -> Run:
    learner = learners(steps)[0]
    model = Conv4(_slow(learner, dtype), learner.net.ops)

    def run() -> dict[str, Tensor]:
        model.zero_grad()
        PEER[name](model, tasks, steps)
        return model.gradient()

    return run


def mine(tasks: Tasks, steps: int, dtype: torch.dtype = torch.float32) -> Run:
    learner = learners(steps)[0]
    slow = _slow(learner, dtype)
    return lambda: meta_gradient(learner, slow, tasks).gradient


def _slow(learner: Learner, dtype: torch.dtype) -> dict[str, Tensor]:
    made = learner.init(rng=torch.Generator().manual_seed(0))
    slow = {name: laid_out(value.to(dtype)) for name, value in made.items()}
    for value in trained(slow).values():
        value.requires_grad_()
    return slow


def drawn(count: int) -> tuple[list[Pool], list[tuple[int, Draw]]]:
    """Tasks of noisy images: what is in them does not change what they cost."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (400, 1, 28, 28), dtype=np.uint8))
    pool = Pool(images, 1 / 255, tuple(np.split(np.arange(400), 20)), tuple(map(str, range(20))))
    return [pool], [(0, draw(pool, WAY, SHOT, QUERY, rng=rng)) for _ in range(count)]


def check(steps: int) -> float:
    """The largest difference of any meta-gradient from ours, in float64, as a share of its largest number."""
    pools, chosen = drawn(3)
    tasks = Tasks(*(field.double() if field.is_floating_point() else field for field in gather(pools, chosen)))
    want = mine(tasks, steps, torch.float64)()
    worst, largest = 0.0, max(float(value.abs().max()) for value in want.values())
    for name in PEERS:
        got = peer(name, tasks, steps, torch.float64)()
        for key, value in got.items():
            worst = max(worst, float((value - want[key]).abs().max()) / largest)
    if worst > AGREE:
        sys.exit(f"meta-gradients differ by {worst:.2g} at {steps} steps; nothing was timed")
    return worst


def in_turns(runs: Mapping[str, Run], tasks: int, rounds: int, threads: Mapping[str, int]) -> dict[str, list[float]]:
    """Tasks per second of each, round by round; the first round does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            torch.set_num_threads(threads[name])
            began = time.perf_counter()
            run()
            if turn:
                speeds[name].append(tasks / (time.perf_counter() - began))
    torch.set_num_threads(1)
    return speeds


def compare(cores: int, steps: int, count: int, rounds: int) -> list[dict[str, Any]]:
    pools, chosen = drawn(count)
    tasks = gather(pools, chosen)
    runs: dict[str, Run] = {name: peer(name, tasks, steps) for name in PEERS}
    with Team(partial(learners, steps), cores) as team:
        slow = _slow(team.learners[0], torch.float32)
        shards = 2 if cores > 1 else 1
        runs[OURS] = lambda: team.update(0, slow, tasks, (1.0,), shards=shards, device=torch.device("cpu")).gradient
        threads = {name: 1 if name == OURS else cores for name in runs}
        speeds = in_turns(runs, count, rounds, threads)
    ratio = {
        name: median(ours / theirs for ours, theirs in zip(speeds[OURS], speeds[name], strict=True)) for name in speeds
    }
    return [
        {
            "cores": cores,
            "steps": steps,
            "who": name,
            "tasks_per_s": median(speeds[name]),
            "ours_is_faster": ratio[name],
        }
        for name in (OURS, *PEERS)
    ]


def peak_mib(name: str, steps: int, count: int) -> float:
    """Of a process of its own."""
    with get_context("spawn").Pool(1) as alone:
        return alone.apply(_grown, (name, steps, count))


def _grown(name: str, steps: int, count: int) -> float:
    torch.set_num_threads(1)
    pools, chosen = drawn(count)
    tasks = gather(pools, chosen)
    run = mine(tasks, steps) if name == OURS else peer(name, tasks, steps)
    run()  # libraries and kernels are loaded now, and freed memory is kept for reuse
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident_mib("VmRSS")
    run()
    return _resident_mib("VmHWM") - before


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> int:
    args = _arguments()
    torch.set_num_threads(1)
    differences = {f"max_difference_{steps}_steps": check(steps) for steps in args.steps}
    rows = []
    for steps in args.steps:
        memory = {name: peak_mib(name, steps, args.tasks) for name in (OURS, *PEERS)}
        for cores in args.cores:
            found = compare(cores, steps, args.tasks, args.rounds)
            rows += [row | {"peak_mib": memory[row["who"]]} for row in found]
            print(rows[-4:], flush=True)
    values = dict(differences)
    for cores in args.cores:
        for name in PEERS:
            own = [row["ours_is_faster"] for row in rows if row["cores"] == cores and row["who"] == name]
            values[f"ratio_{name}_{cores}core"] = min(own)  # of the numbers of steps
    return emit("meta_speed", values, rows, args.json, vars(args) | {"json": None, "goals": None}, goals=args.goals)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0])
    options.add_argument("--tasks", type=int, default=16, help="per update")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--steps", type=int, nargs="+", default=[1, 5], help="inner steps")
    options.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(main())
