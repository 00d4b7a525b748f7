"""Second-order MAML, tasks per second: ours against `higher`, `torchopt` and a plain loop, in one run.

    pip install -c constraints.txt -e '.[bench]' && python tools/bench/meta_speed.py --json meta_speed.json

One network for all: four strided convolutions of 64 filters, batch norm, a linear head of five classes (Finn 2017's for
Omniglot), 5-way 1-shot with 15 queries a class, one step size. Batch norm uses running statistics, as our learners do,
or with `batch` each batch's own, as the paper. All give the same meta-gradient: that is checked in float64 before
anything is timed. The peers are PyTorch modules as their documentation has them.

Each contestant is a process of its own, started once, and they run in turns. On one core each has one thread; on two,
the others have two threads, which is what they offer, and ours two processes of one thread each. Memory is the peak of
a process of one thread in its first update, over what it held before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import emit, parser, table
from torch import Tensor, nn

from edgemeta.contracts import Learner, Net
from edgemeta.data.episode import Pool, draw
from edgemeta.learners.maml import maml
from edgemeta.learners.memory import keep_freed_memory
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

    def __init__(self, slow: Mapping[str, Tensor], ops: tuple, *, batch: bool):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in (i for i, op in enumerate(ops) if op.kind == "conv"):
            weight = slow[f"{i}.weight"].detach()
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2, 1, bias=False)
            conv.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
            self.convs.append(conv)
            self.norms.append(nn.BatchNorm2d(weight.shape[0], track_running_stats=not batch).to(weight.dtype))
            if not batch:
                known = {"running_mean": slow[f"stat.{i}.mean"], "running_var": slow[f"stat.{i}.var"]}
                self.norms[-1].load_state_dict(known, strict=False)
        self.head = nn.Linear(FILTERS, WAY).to(weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.train(batch)

    def forward(self, x: Tensor) -> Tensor:
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


def learners(steps: int, batch: bool) -> list[Learner]:
    """MAML with constant rates and a head that is the same for every class at the start."""
    settings: dict[str, Any] = {"rates": "fixed", "head": "row", "transductive": batch}
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


def peer(name: str, tasks: Tasks, steps: int, learner: Learner, slow: dict[str, Tensor]) -> Run:
    model = Conv4(slow, learner.net.ops, batch=learner.transductive)

    def run() -> dict[str, Tensor]:
        model.zero_grad()
        PEER[name](model, tasks, steps)
        return model.gradient()

    return run


def _slow(learner: Learner, dtype: torch.dtype) -> dict[str, Tensor]:
    made = learner.init(rng=torch.Generator().manual_seed(0))
    slow = {name: laid_out(value.to(dtype)) for name, value in made.items()}
    for value in trained(slow).values():
        value.requires_grad_()
    return slow


def drawn(count: int) -> Tasks:
    """Tasks of noise: what is in the images does not change what they cost."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (400, 1, 28, 28), dtype=np.uint8))
    pool = Pool(images, 1 / 255, tuple(np.split(np.arange(400), 20)), tuple(map(str, range(20))))
    return gather([pool], [(0, draw(pool, WAY, SHOT, QUERY, rng=rng)) for _ in range(count)])


def check(steps: int, batch: bool) -> float:
    """The largest difference of any meta-gradient from ours, in float64, as a share of its largest number."""
    tasks = Tasks(*(field.double() if field.is_floating_point() else field for field in drawn(3)))
    learner = learners(steps, batch)[0]
    slow = _slow(learner, torch.float64)
    want = meta_gradient(learner, slow, tasks).gradient  # at the statistics that `slow` has from now on
    worst, largest = 0.0, max(float(value.abs().max()) for value in want.values())
    for name in PEERS:
        got = peer(name, tasks, steps, learner, slow)()
        worst = max(worst, *(float((value - want[key]).abs().max()) / largest for key, value in got.items()))
    if worst > AGREE:
        sys.exit(f"meta-gradients differ by {worst:.2g} at {steps} steps; nothing was timed")
    return worst


def contestant(link: Connection, name: str, steps: int, batch: bool, cores: int, count: int) -> None:
    """A process that runs one update for each message and answers with its seconds; first with its memory in MiB."""
    torch.set_num_threads(1 if name == OURS else cores)
    tasks = drawn(count)
    if name != OURS:
        learner = learners(steps, batch)[0]
        _answer(link, peer(name, tasks, steps, learner, _slow(learner, torch.float32)))
        return
    keep_freed_memory()
    with Team(partial(learners, steps, batch), cores) as team:
        slow = _slow(team.learners[0], torch.float32)
        cpu = torch.device("cpu")
        _answer(link, lambda: team.update(0, slow, tasks, (1.0,), shards=cores, device=cpu).gradient)


def _answer(link: Connection, run: Run) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    before = _resident_mib("VmRSS")
    run()
    link.send(_resident_mib("VmHWM") - before)
    while link.recv():
        began = time.perf_counter()
        run()
        link.send(time.perf_counter() - began)


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def compare(cores: int, steps: int, batch: bool, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Everyone in turns, in another order each time, and how often faster ours was in the same turn."""
    context, links, processes = get_context("spawn"), {}, []
    for name in (OURS, *PEERS):
        links[name], there = context.Pipe()
        settings = (there, name, steps, batch, cores, args.tasks)
        processes.append(context.Process(target=contestant, args=settings))
        processes[-1].start()
    memory: dict[str, float] = {name: link.recv() for name, link in links.items()}
    seconds: dict[str, list[float]] = {name: [] for name in links}
    order, rng = list(links), Random(0)
    for _ in range(args.rounds):
        rng.shuffle(order)
        for name in order:
            links[name].send(True)
            seconds[name].append(links[name].recv())
    for link, process in zip(links.values(), processes, strict=True):
        link.send(False)
        process.join()
    norm = "batch" if batch else "running"
    return [
        {
            "norm": norm,
            "cores": cores,
            "steps": steps,
            "who": name,
            "tasks_per_s": args.tasks / median(taken),
            "ours_is_faster": median(theirs / own for theirs, own in zip(taken, seconds[OURS], strict=True)),
            "peak_mib": memory[name] if cores == 1 else None,
        }
        for name, taken in seconds.items()
    ]


def main() -> int:
    args = _arguments()
    torch.set_num_threads(1)
    rows, values = [], {}
    for batch in (False, True):
        kind = "batch_" if batch else ""
        for steps in args.steps:
            values[f"{kind}difference_{steps}_steps"] = check(steps, batch)
            for cores in args.cores:
                rows += compare(cores, steps, batch, args)
                print(table(rows[-1 - len(PEERS) :]), flush=True)
        for cores in args.cores:
            for name in PEERS:
                mode = {"norm": "batch" if batch else "running", "cores": cores, "who": name}
                own = [row["ours_is_faster"] for row in rows if row.items() >= mode.items()]
                values[f"{kind}ratio_{name}_{cores}core"] = min(own)  # of the numbers of steps
    return emit(
        "meta_speed",
        values,
        rows,
        args.json,
        vars(args) | {"json": None, "goals": None},
        goals=args.goals,
        quick=args.quick,
    )


def _arguments() -> argparse.Namespace:
    options = parser(__doc__.split("\n")[0], quick={"tasks": 4, "rounds": 2, "steps": [1]})
    options.add_argument("--tasks", type=int, default=16, help="per update")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--steps", type=int, nargs="+", default=[1, 5], help="inner steps")
    options.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(main())
