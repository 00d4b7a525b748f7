"""What `train` trains and tests: in worker processes, or by all processes that torchrun started."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from edgemeta import __version__
from edgemeta import config as configs
from edgemeta.errors import BadConfig
from edgemeta.learners.group import Group, digest
from edgemeta.learners.ranks import Ranks
from edgemeta.learners.settings import recipe
from edgemeta.processes import place
from edgemeta.search.jobs import DataSpec, Job, TestJob, crew_of, data_pool, keep, load_weights, trained
from edgemeta.space.presets import LANDMARKS
from edgemeta.space.space import Space
from edgemeta.stages import assemble
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch

TEST_SHOTS = (1, 2, 3, 5, 10)
OTHER_DOMAIN = "digits"  # handwritten digits: nothing like them was trained on


def jobs_of(config: configs.Train, folder: RunFolder) -> tuple[Arch, dict[str, Job]]:
    """The network, and learner -> its training; data that they cannot be trained on is refused."""
    space = assemble.space_of(config)
    arch, warm, done = winner(config, folder, space)
    jobs = {
        name: _train_job(config, folder, space.ops(arch), name, warm, done, row)
        for row, name in enumerate(config.learners)
    }
    trainings = [job.training.after(done) for job in jobs.values()]
    mix = assemble.mixed(config)
    assemble.require_data(assemble.data_of(config), config.way, config.shot, trainings=trainings, mix=mix)
    return arch, jobs


def winner(config: configs.Train, folder: RunFolder, space: Space) -> tuple[Arch, Path | None, int]:
    """The architecture to train, the parameters to start from and the episodes they have seen.

    Parameters that were taught other classes than these are left alone: some of them may be held out now.
    """
    if config.arch:
        return assemble.pick(LANDMARKS, "architecture", config.arch)(space), None, 0
    noted = folder.need("search", "search")
    winner, arch = noted["winner"], Arch(space.name, tuple(noted["winner"]["picks"]))
    if noted["data"] != str(assemble.data_of(config)):
        return arch, None, 0
    return arch, folder.weights_at(winner["weights"]), winner["episodes"]


def _train_job(
    config: configs.Train, folder: RunFolder, ops: tuple, learner: str, warm: Path | None, done: int, row: int
) -> Job:
    """The body's parameters carry over from the search, whichever learner trained them there."""
    data, mix = assemble.data_of(config), assemble.mixed(config)
    training = replace(recipe(learner).lasting(config.episodes), patience=config.patience)
    training = training.split(config.shards or training.shards)
    judged = (config.way, config.shot, config.eval_episodes) if config.patience else None
    said = (ops, learner, training, config.seed, str(data), warm and warm.name, list(map(str, mix)), judged)
    identity = repr(said if config.precision == "fp32" else (*said, config.precision))
    path = folder.weights / f"{learner}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.safetensors"
    return Job(
        ops=ops,
        learner=learner,
        data=data,
        training=training,
        done=done,
        way=config.way,
        shot=config.shot,
        eval_episodes=config.eval_episodes,
        seed=config.seed,
        weights=str(path),
        warm=str(warm) if warm else None,
        title=f"train {learner}" if config.progress else "",
        row=row,
        mix=mix,
        keep=str(path.with_suffix(".checkpoint")),
        at=assemble.accelerator(config.accelerator, config.precision),
        precision=config.precision,
    )


def test_job(config: configs.Train, job: Job) -> TestJob:
    sets = [(job.data, "test")]
    if config.in_shape[0] == 1 and config.data != OTHER_DOMAIN:
        sets.append((assemble.data_of(config, OTHER_DOMAIN), "test"))
    return TestJob(
        job.ops, job.learner, job.weights, tuple(sets), config.way, TEST_SHOTS, config.test_episodes, config.seed
    )


def require_alone(command: str) -> None:
    """Refuse a command that several processes would only run several times."""
    if place().world > 1:
        raise BadConfig(
            f"torchrun started {place().world} processes, and `{command}` is the work of one; start it without "
            "torchrun: they share `train` alone"
        )


def together(jobs: Sequence[Job], group: Group) -> None:
    """What is not trained yet, one job after another, by all processes; nothing where torchrun started none."""
    if not group.place.launched:
        return
    group.require_same(group.together(lambda: _facts(jobs)))
    there = json.loads(group.from_lead(lambda: json.dumps([Path(job.weights).exists() for job in jobs]).encode()))
    missing = [job for job, done in zip(jobs, there, strict=True) if not done]
    for job in missing:
        _require_work(job, group.place.world)
    for job in missing:
        own = job if group.leads else replace(job, title="", keep=None)
        slow = trained(own, Ranks(crew_of(own), group))
        if group.leads:
            keep(own, slow)


def _require_work(job: Job, processes: int) -> None:
    if job.training.shards < processes:
        raise BadConfig(
            f"{job.learner} has {job.training.shards} to share of each update, and torchrun started {processes} "
            f"processes; give --shards {processes}, or more"
        )


def _facts(jobs: Sequence[Job]) -> dict[str, str]:
    """What must be the same everywhere: name -> value, or its digest."""
    specs = {spec for job in jobs for spec in (job.data, *job.mix)}
    found = {"edgemeta": __version__, "torch": torch.__version__}
    found |= {f"data {spec.name!r}": _of_data(spec) for spec in sorted(specs, key=str)}
    found |= {f"training {job.learner!r}": _of_training(job) for job in jobs}
    return found | {f"weights that {job.learner!r} starts from": _of_weights(job.warm) for job in jobs if job.warm}


def _of_training(job: Job) -> str:
    """Not of where its files lie, which may differ."""
    judged = (job.way, job.shot, job.eval_episodes) if job.training.patience else None
    return digest(repr((job.ops, job.learner, job.training, job.done, job.seed, job.precision, judged)))


def _of_weights(path: str) -> str:
    kept = load_weights(path)
    return digest(*(kept[name].numpy().tobytes() for name in sorted(kept)))


def _of_data(spec: DataSpec) -> str:
    """Of every image and label that is trained on."""
    pool = data_pool(spec, "train")
    sizes = repr((tuple(pool.x.shape), pool.scale, pool.class_names))
    return digest(sizes, *(own.tobytes() for own in pool.by_class), pool.x.contiguous().numpy().data.cast("B"))
