"""What worker processes are asked: train a network and score it, or test a trained one."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm

from edgemeta.contracts import Params
from edgemeta.data.dataset import Dataset
from edgemeta.data.episode import Pool, pool
from edgemeta.data.sources import load
from edgemeta.errors import EdgemetaError
from edgemeta.files import write_bytes
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import Score, evaluate, features, images_each, queries
from edgemeta.learners.train import Training, train
from edgemeta.nets.build import build
from edgemeta.search.workers import stop_orphan
from edgemeta.types import Op, Shape


@dataclass(frozen=True)
class DataSpec:
    """Enough to load the same data in another process."""

    name: str
    root: str | None
    cache: str
    in_shape: Shape
    seed: int
    ink: str = "as-is"  # of the folder source: "bright" turns dark ink on a light ground over

    def __str__(self) -> str:
        """What must be equal for accuracies to compare."""
        shape = "x".join(map(str, self.in_shape))
        return f"{self.name} {shape} seed{self.seed}" + (f" {self.root} {self.ink}" if self.root else "")


@dataclass(frozen=True)
class Job:
    """Meta-train one network and score it on validation classes."""

    ops: tuple[Op, ...]
    learner: str
    data: DataSpec
    training: Training
    done: int  # episodes that the parameters to start from have seen
    way: int
    shot: int
    eval_episodes: int
    seed: int
    weights: str  # where the trained parameters go
    warm: str | None = None  # parameters to start from; the body's carry over to another learner
    title: str = ""  # of a progress bar, where there is one
    row: int = 0  # of that bar on the terminal


@dataclass(frozen=True)
class Result:
    score: Score
    seconds: float


@lru_cache(maxsize=2)
def load_data(spec: DataSpec) -> Dataset:
    root = Path(spec.root) if spec.root else None
    settings = {"ink": spec.ink} if spec.name == "folder" else {}
    return load(spec.name, in_shape=spec.in_shape, root=root, cache=Path(spec.cache), seed=spec.seed, **settings)


@lru_cache(maxsize=2)
def fingerprint(spec: DataSpec) -> str:
    """Of the labels, the splits and a sample of the images: scores on changed data do not compare."""
    data = load_data(spec)
    sample = data.images[:: max(1, len(data.images) // 256)]
    parts = (data.labels.tobytes(), repr(sorted(data.splits.items())).encode(), np.ascontiguousarray(sample).tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@lru_cache(maxsize=6)
def data_pool(spec: DataSpec, split: str) -> Pool:
    return pool(load_data(spec), split)


def load_weights(path: str | Path) -> Params:
    try:
        return dict(load_file(str(path)))
    except FileNotFoundError as error:
        again = "run `edgemeta search`, then `edgemeta train`: they train what is missing"
        raise EdgemetaError(f"weights {path} are gone; {again}") from error
    except (OSError, SafetensorError) as error:
        again = "delete the file, then run `edgemeta search` and `edgemeta train`: they train what is missing"
        raise EdgemetaError(f"cannot read weights {path}: {error}; {again}") from error


def save_weights(path: str | Path, slow: Params) -> Path:
    return write_bytes(path, save({name: value.contiguous() for name, value in slow.items()}))


def run_job(job: Job) -> Result:
    """Deterministic given the job: every generator is seeded from it."""
    began = time.perf_counter()
    stop_orphan()
    learner, net = LEARNERS[job.learner](), build(job.ops)
    slow = learner.init(net, rng=torch.Generator().manual_seed(job.seed))
    if job.warm:
        slow |= {name: value for name, value in load_weights(job.warm).items() if name in slow}
    rng = np.random.default_rng([job.seed, job.done])  # a later stretch sees other episodes
    taught = data_pool(job.data, "train")
    bar = tqdm(total=job.training.episodes, desc=job.title, unit="ep", position=job.row, disable=not job.title)

    def tick(done: int) -> None:
        stop_orphan()
        bar.update()

    with bar:
        slow = train(learner, net, slow, taught, job.training.suited(taught), rng=rng, tick=tick)
    judge = data_pool(job.data, "val")
    z = features(net, slow, judge)
    score = evaluate(
        learner,
        slow,
        judge,
        z,
        way=job.way,
        shot=job.shot,
        query=queries(judge, job.way, job.shot),
        episodes=job.eval_episodes,
        rng=np.random.default_rng(job.seed),
    )
    save_weights(job.weights, slow)
    return Result(score, time.perf_counter() - began)


@dataclass(frozen=True)
class TestJob:
    """Accuracy of a trained network on whole splits, at several numbers of shots."""

    ops: tuple[Op, ...]
    learner: str
    weights: str
    sets: tuple[tuple[DataSpec, str], ...]  # (data, split)
    way: int
    shots: tuple[int, ...]
    episodes: int
    seed: int


def run_test(job: TestJob) -> list[dict]:
    """One row per data set and number of shots that its classes have images for."""
    learner, net, slow = LEARNERS[job.learner](), build(job.ops), load_weights(job.weights)
    rows = []
    for spec, split in job.sets:
        judge = data_pool(spec, split)
        z = features(net, slow, judge)
        way = min(job.way, len(judge.by_class))
        for shot in (shot for shot in job.shots if shot < images_each(judge, way)):
            rng = np.random.default_rng([job.seed, shot])
            query = queries(judge, way, shot)
            asked = {"way": way, "shot": shot, "query": query, "episodes": job.episodes}
            score = evaluate(learner, slow, judge, z, rng=rng, **asked)
            row = {"learner": job.learner, "data": spec.name, "split": split, "way": way, "shot": shot}
            rows.append(row | {"accuracy": score.mean, "ci95": score.ci95, "episodes": score.episodes})
    return rows
