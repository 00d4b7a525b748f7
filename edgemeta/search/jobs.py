"""What worker processes are asked: train a network and score it, or test a trained one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgemeta import terminal
from edgemeta.contracts import Learner, Params
from edgemeta.data.dataset import Dataset
from edgemeta.data.episode import Pool, pool
from edgemeta.data.sources import load
from edgemeta.errors import Diverged, EdgemetaError
from edgemeta.files import write_bytes
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import Score, evaluate, features, images_each, queries
from edgemeta.learners.memory import keep_freed_memory
from edgemeta.learners.protonet import protonet
from edgemeta.learners.ranks import Ranks
from edgemeta.learners.settings import Training
from edgemeta.learners.shards import Team
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.nets.halved import PRECISIONS
from edgemeta.types import Op, Shape, text_of


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
        shape = text_of(self.in_shape)
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
    mix: tuple[DataSpec, ...] = ()  # other domains to train on
    keep: str | None = None  # where a training under way is kept, to go on from when it was killed
    workers: int = 1  # processes of this job; more than the training has shards are of no use
    at: str = "cpu"  # where it trains, as torch names devices
    precision: str = "fp32"  # of the training, one of `nets.halved.PRECISIONS`; scores are those of float32


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


def crew(ops: tuple[Op, ...], learner: str, precision: str = "fp32") -> Sequence[Learner]:
    """Who meta-trains a network: what warms it up, and the learner."""
    net = PRECISIONS[precision](build(ops))
    return protonet(net), LEARNERS[learner](net)


def run_job(job: Job) -> Result:
    """Deterministic given the job, but for `workers`, which change nothing: every generator is seeded from it."""
    began = time.perf_counter()
    with Team(crew_of(job), min(job.workers, job.training.shards)) as team:
        slow = trained(job, team)
    keep(job, slow)
    return Result(_score(job, crew(job.ops, job.learner)[1], slow), time.perf_counter() - began)


def crew_of(job: Job) -> partial[Sequence[Learner]]:
    return partial(crew, job.ops, job.learner, job.precision)


def keep(job: Job, slow: Params) -> None:
    """The weights are safe: what the training kept to go on from is of no more use."""
    save_weights(job.weights, slow)
    if job.keep:
        Path(job.keep).unlink(missing_ok=True)


def trained(job: Job, team: Team | Ranks) -> Params:
    """The parameters that a job trains, by the processes of a team."""
    keep_freed_memory()
    learner = team.learners[1]
    slow = learner.init(rng=torch.Generator().manual_seed(job.seed))
    if job.warm:
        slow |= {name: value for name, value in load_weights(job.warm).items() if name in slow}
    return _trained(job, learner, slow, team)


def _trained(job: Job, learner: Learner, slow: Params, team: Team | Ranks) -> Params:
    rng = np.random.default_rng([job.seed, job.done])  # a later stretch sees other episodes
    taught = [data_pool(spec, "train") for spec in (job.data, *job.mix)]
    bar = terminal.bar(
        total=job.training.episodes, desc=job.title, unit="ep", position=job.row, progress=bool(job.title)
    )

    def tick(done: int) -> None:
        bar.update(done - bar.n)

    training, keep = job.training.after(job.done), Path(job.keep) if job.keep else None
    judge = team.judged(partial(_judge, job, crew(job.ops, job.learner)[1])) if training.patience else None
    try:
        with bar:
            return train(
                learner, slow, taught, training, rng=rng, tick=tick, judge=judge, keep=keep, team=team, device=job.at
            )
    except Diverged as error:  # tensors do not cross to another process well: what is to be kept goes to disk
        last = save_weights(keep.with_suffix(".last-good"), error.kept) if keep else None
        raise Diverged(f"{error}; the last good weights are in {last}" if last else str(error)) from None


def _judge(job: Job, learner: Learner, slow: Params) -> float:
    return _score(job, learner, slow).mean


def _score(job: Job, learner: Learner, slow: Params) -> Score:
    """On validation classes."""
    judge, rng = data_pool(job.data, "val"), np.random.default_rng(job.seed)
    task = {"way": job.way, "shot": job.shot, "query": queries(judge, job.way, job.shot)}
    z = features(learner, slow, judge)
    return evaluate(learner, slow, judge, z, episodes=job.eval_episodes, rng=rng, **task)


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


def run_test(job: TestJob) -> list[dict[str, Any]]:
    """One row per data set and number of shots that its classes have images for."""
    learner, slow = LEARNERS[job.learner](build(job.ops)), load_weights(job.weights)
    rows = []
    for spec, split in job.sets:
        judge = data_pool(spec, split)
        z = features(learner, slow, judge)
        way = min(job.way, len(judge.by_class))
        if way < 2:
            continue  # an accuracy that could not be wrong
        for shot in (shot for shot in job.shots if shot < images_each(judge, way)):
            rng = np.random.default_rng([job.seed, shot])
            query = queries(judge, way, shot)
            asked = {"way": way, "shot": shot, "query": query, "episodes": job.episodes}
            score = evaluate(learner, slow, judge, z, rng=rng, **asked)
            row = {"learner": job.learner, "data": spec.name, "split": split, "way": way, "shot": shot}
            rows.append(row | {"accuracy": score.mean, "ci95": score.ci95, "episodes": score.episodes})
    return rows
