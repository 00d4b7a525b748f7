"""Float or int8: a body is quantised where that is worth it, and the figures of both are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Pool
from edgemeta.errors import BadConfig
from edgemeta.latency.measure import time_model
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features, queries
from edgemeta.lowering import bundle, check
from edgemeta.nets.build import build
from edgemeta.search.jobs import data_pool
from edgemeta.search.problem import Problem
from edgemeta.types import Cost

LOST = 0.005  # of accuracy at most, 0..1
FASTER = 0.97  # of the float body's latency at most: what is between is noise
CALIBRATED = 512  # images at most
TURNS = 5  # each body is timed so often, in turns
TOGETHER = 256  # images


class Judge(NamedTuple):
    """What a body is calibrated on and what accuracy is told of."""

    calibration: np.ndarray  # float32 (n, C, H, W), as a body takes them
    pool: Pool
    accuracy: Callable[[Learner, Params, Tensor], float | None]  # of the features of its images; None: cannot be told
    told: str


class How(NamedTuple):
    """Whether the device is this machine, with how many threads, and whether it wants int8 whatever the gain."""

    here: bool
    threads: int
    must: bool
    spent_ms: Mapping[str, float] = {}  # of each body on a device that is not this machine; {}: not known


class Compared(NamedTuple):
    """Which body ships, and why."""

    precision: str
    why: str
    accuracy_of: str
    fp32: Mapping[str, float | None]  # accuracy (0..1), body_ms where the device is this machine, graph_kib
    int8: Mapping[str, float | None]


def require(learner: str, problem: Problem) -> None:
    """Refuse int8 of a learner that changes the body: its gradients are float."""
    made = LEARNERS[learner](build(problem.space.ops(problem.space.sample(rng=Random(0)))))
    if not made.on_features:
        others = ", ".join(name for name, make in LEARNERS.items() if make(made.net).on_features)
        raise BadConfig(f"int8 bundles of {learner}: it adapts the body, which stays float; choose one of: {others}")


def judge_of(problem: Problem) -> Judge:
    """Training images to calibrate on, and validation classes to compare by: the test classes decide nothing."""
    taught, held = data_pool(problem.data, "train"), data_pool(problem.data, "val")
    asked: dict[str, Any] = {"way": problem.way, "shot": problem.shot}
    asked |= {"query": queries(held, problem.way, problem.shot), "episodes": max(600, problem.eval_episodes)}

    def accuracy(learner: Learner, slow: Params, z: Tensor) -> float:
        return evaluate(learner, slow, held, z, rng=np.random.default_rng(problem.seed), **asked).mean

    told = f"validation classes, {problem.way} of {problem.shot}"
    return Judge(calibration(taught, seed=problem.seed), held, accuracy, told)


def calibration(pool: Pool, *, seed: int) -> np.ndarray:
    """Up to CALIBRATED images of a pool, drawn at random: float32 (n, C, H, W)."""
    chosen = np.random.default_rng(seed).permutation(len(pool.x))[:CALIBRATED]
    return pool.images(chosen).numpy()


def compare(judge: Judge, learner: Learner, slow: Params, floats: Path, int8: Path, cap: Cost, how: How) -> Compared:
    """The bundles in two folders, one of each precision."""
    folders = {"fp32": floats, "int8": int8}
    sizes = {name: bundle.read(folder).costs.graph_kib for name, folder in folders.items()}
    z = features(learner, slow, judge.pool)
    assert z is not None  # see `require`
    hits = {"fp32": judge.accuracy(learner, slow, z)}
    hits["int8"] = judge.accuracy(learner, slow, embedded((int8 / "body.onnx").read_bytes(), judge.pool))
    spent = _in_turns(folders, judge, how.threads) if how.here else how.spent_ms
    rows = {name: {"accuracy": hits[name], "body_ms": spent.get(name), "graph_kib": sizes[name]} for name in folders}
    chosen = _chosen(rows["fp32"], rows["int8"], cap, must=how.must)
    return Compared(*chosen, judge.told, rows["fp32"], rows["int8"])


def _chosen(floats: Mapping[str, Any], int8: Mapping[str, Any], cap: Cost, *, must: bool) -> tuple[str, str]:
    if floats["accuracy"] is None:
        return "fp32", "what int8 loses cannot be told: no class has two images"
    lost = 100 * (floats["accuracy"] - int8["accuracy"])
    if lost > 100 * LOST:
        return "fp32", f"int8 loses {lost:.2f} points of accuracy, more than {100 * LOST:g}"
    if must:
        return "int8", "the device was timed on int8 networks"
    if floats["graph_kib"] > cap.flash_kib >= int8["graph_kib"]:
        return "int8", "only int8 is under the flash cap"
    if int8["body_ms"] is None:
        return "fp32", "whether int8 is faster on a device that is not this machine is not known"
    ratio = int8["body_ms"] / floats["body_ms"]
    if ratio <= FASTER:
        return "int8", f"int8 takes {ratio:.2f} of the time"
    return "fp32", f"int8 takes {ratio:.2f} of the time"


def embedded(body: bytes, pool: Pool) -> Tensor:
    """Features (n, dim) of every image of a pool, by a graph."""
    runtime = check.load("body", body)
    parts = np.split(np.arange(len(pool.x)), range(TOGETHER, len(pool.x), TOGETHER))
    found = [check.run("body", runtime, {"x": pool.images(part).numpy()}, "comparison")[0] for part in parts]
    return torch.from_numpy(np.concatenate(found))


def _in_turns(folders: Mapping[str, Path], judge: Judge, threads: int) -> dict[str, float]:
    """Median latency of each body, timed one after the other so that both see the same moments of the machine."""
    feeds, found = {"x": judge.calibration[:1]}, dict[str, list[float]]()
    bodies = {name: (folder / "body.onnx").read_bytes() for name, folder in folders.items()}
    for _ in range(TURNS):
        for name, body in bodies.items():
            timing = time_model(body, feeds, threads=threads, max_seconds=0.2)
            found.setdefault(name, []).append(timing.median_ms)
    return {name: median(each) for name, each in found.items()}
