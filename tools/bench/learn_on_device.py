"""What a device learns from a few examples: every learner, from 1 to 20 of them, beside torch.

    python tools/bench/learn_on_device.py --jobs 2 --json learn_on_device.json

The network of the zoo that is best on its validation classes, meta-trained on with each learner (`--episodes`, glyphs).
Then 5 classes that no training saw, of held-out scripts and of handwritten digits, are taught to the Python runtime in
`--tasks` tasks of 1, 2, 5, 10 and 20 examples a class; queries are other images. `before`: what the learner answers
before its first step. `gap`: points between the runtime and torch on the same tasks.

Four kinds of learners: the head (most), the norms (maml-norm), the last block (maml-last), the whole network (maml,
fomaml, reptile, meta-sgd). `adapt_us`: the whole adaptation in ONNX Runtime on one thread, from features where the
learner leaves the body alone. `kib`: the most that its tensors take meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _common import emit, parser

from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Pool, draw, episode
from edgemeta.latency.measure import time_model
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import queries
from edgemeta.learners.outer import steps_of
from edgemeta.learners.settings import recipe
from edgemeta.learners.train import train
from edgemeta.lowering import bundle, to_onnx
from edgemeta.lowering.memory import peak_kib
from edgemeta.lowering.trace import Sizes, reads, trace
from edgemeta.nets.build import build
from edgemeta.search import zoo as zoos
from edgemeta.search.jobs import DataSpec, data_pool
from edgemeta.stages import device_side

WAY, SHOTS = 5, (1, 2, 5, 10, 20)
CHANGES = {"maml-norm": "norms", "maml-last": "last block"}


def main() -> int:
    args = parser(
        __doc__.split("\n")[0], quick={"learners": ["protonet", "anil", "maml-last"], "episodes": 10, "tasks": 3}
    )
    args.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=LEARNERS)
    args.add_argument("--episodes", type=int, default=1000, help="meta-training of each learner")
    args.add_argument("--tasks", type=int, default=100, help="tasks of each figure")
    args.add_argument("--jobs", type=int, default=1, help="learners at once, one thread each; timing comes after")
    given = args.parse_args()
    torch.set_num_threads(1)
    scripts()  # rendered once, before processes ask for it
    learned = partial(of_learner, episodes=given.episodes, tasks=given.tasks)
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as executor:
        rows = [row for rows in executor.map(learned, given.learners) for row in rows]
    for row in rows:
        row |= cost(row["learner"], row["shot"])
    values = {"max_accuracy_gap_vs_torch": max(row["gap"] for row in rows)} | means(rows)
    settings = {"episodes": given.episodes, "tasks": given.tasks}
    return emit("learn_on_device", values, rows, given.json, settings, goals=given.goals, quick=given.quick)


def pool(split: str, name: str = "glyphs", seed: int = 0) -> Pool:
    return data_pool(DataSpec(name, None, str(default_cache()), (1, 28, 28), seed, "as-is"), split)


def scripts() -> Pool:
    """Held-out scripts, rendered twice: 20 examples and the queries are more images than a class has."""
    one, other = pool("test"), pool("test", seed=1)
    shared = sorted(set(one.class_names) & set(other.class_names))
    places = [
        (one.by_class[one.class_names.index(name)], other.by_class[other.class_names.index(name)]) for name in shared
    ]
    by_class = tuple(np.concatenate([first, second + len(one.x)]) for first, second in places)
    return Pool(torch.cat([one.x, other.x]), one.scale, by_class, tuple(shared))


def start(name: str) -> tuple[Learner, Params]:
    """A learner on the weights of the zoo's best network."""
    zoo = zoos.read(zoos.SHIPPED)
    best = max(zoo.members, key=lambda member: member.accuracy("val", 1))
    learner = LEARNERS[name](build(zoo.space.ops(best.arch)))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    return learner, slow | {key: value for key, value in zoo.weights(best).items() if key in slow}


def of_learner(name: str, *, episodes: int, tasks: int) -> list[dict[str, Any]]:
    """Trained, written as a bundle, and taught tasks by the runtime and in torch."""
    torch.set_num_threads(1)
    learner, slow = start(name)
    slow = train(learner, slow, pool("train"), recipe(name).lasting(episodes), rng=np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as place:
        folder = bundle.write(Path(place) / name, slow=slow, learner=learner, facts={})
        device = device_side.runtime(folder).Device(folder)
        rows = []
        for data, held in (("held-out scripts", scripts()), ("digits", pool("test", "digits"))):
            for shot in SHOTS:
                found = compared(device, learner, slow, held, shot, tasks)
                rows.append({"learner": name, "changes": changes(learner), "data": data, "shot": shot, **found})
    print(rows[-1], flush=True)
    return rows


def compared(device: Any, learner: Learner, slow: Params, held: Pool, shot: int, tasks: int) -> dict[str, float]:
    """Percentages over the same tasks, and the points between them."""
    rng, query = np.random.default_rng(shot), queries(held, WAY, shot)
    hits = np.array([_task(device, learner, slow, held, (shot, query), rng) for _ in range(tasks)])
    before, torch_own, own, agreed = 100 * hits.mean(0)
    ci95 = 196 * hits[:, 2].std(ddof=1) / len(hits) ** 0.5
    figures = {"before": before, "device": own, "ci95": ci95, "torch": torch_own, "agreed": agreed}
    return figures | {"gap": abs(own - torch_own)}


@torch.no_grad()
def _task(
    device: Any, learner: Learner, slow: Params, held: Pool, size: tuple[int, int], rng: np.random.Generator
) -> list[float]:
    """Of one task: right before, right in torch, right on the device, the same answer on both; 0..1."""
    shot, query = size
    positions = draw(held, WAY, shot, query, rng=rng)
    task = episode(held, positions)
    for known in device.names:
        device.forget(known)
    device.enroll(list(_raw(held, positions.support)), [str(label) for label in task.support_y.tolist()])
    names, _ = device.predict(list(_raw(held, positions.query)))
    own, truth = np.array([int(name) for name in names]), task.query_y.numpy()
    before, after = (device_side.torch_guess(learner, slow, task, steps=steps) for steps in (False, True))
    return [(before == truth).mean(), (after == truth).mean(), (own == truth).mean(), (own == after).mean()]


def _raw(held: Pool, positions: np.ndarray) -> np.ndarray:
    """Images as a camera gives them: uint8 (n, H, W)."""
    return held.x[torch.from_numpy(positions.reshape(-1))].numpy()[:, 0]


def cost(name: str, shot: int) -> dict[str, float]:
    """Of one adaptation in ONNX Runtime. Time does not depend on what was learned."""
    learner, slow = start(name)
    n, (reading, shape) = WAY * shot, reads(learner)
    rng, steps = np.random.default_rng(0), steps_of(learner, n)
    x, onehot = rng.random((n, *shape), dtype=np.float32), np.eye(WAY, dtype=np.float32)[np.arange(n) % WAY]
    feeds = {reading: x, "onehot": onehot, "steps": np.array(steps)}
    timing = time_model(to_onnx.adapt(trace(learner, slow), slow).SerializeToString(), feeds)
    unrolled = to_onnx.unrolled(trace(learner, slow, Sizes(n, WAY, 1)), slow, steps=min(2, steps))
    return {"adapt_us": 1e3 * timing.median_ms, "adapt_iqr_us": 1e3 * timing.iqr_ms, "kib": peak_kib(unrolled)}


def changes(learner: Learner) -> str:
    return "head" if learner.on_features else CHANGES.get(learner.name, "whole network")


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy of each kind of learner, over learners and data."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(f"{row['changes'].replace(' ', '_')}_{row['shot']}", []).append(row["device"])
    return {name: float(np.mean(each)) for name, each in found.items()}


if __name__ == "__main__":
    sys.exit(main())
