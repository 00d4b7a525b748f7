"""A training that was stopped goes on to the bits it would have had."""

import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from edgemeta.errors import BadData
from edgemeta.learners.outer import meta_gradient
from edgemeta.learners.settings import Training
from edgemeta.learners.shards import Team
from edgemeta.learners.train import train
from tests import copies
from tests.blobs import blob_pool
from tests.crews import POOL, crew, same, start_of, trained_on


class Stopped(Exception):
    """What a progress bar may throw."""


def stop_at(limit: int):
    def tick(done: int) -> None:
        if done >= limit:
            raise Stopped

    return tick


def accuracy_like(slow) -> float:
    """A judge that needs no episodes: deterministic, and neither rising nor falling all the time."""
    return float(slow["0.weight"].double().sum().sin())


@pytest.fixture
def protonet():
    return crew("protonet")[1]


STEADY = Training(24, way=4, query=2, tasks=2, shards=2, warmup=0.3, multi_step=0.5, check_every=3, patience=9)


@pytest.fixture(scope="module")
def undisturbed():
    learner = crew("anil")[1]
    return {judged: trained_on(learner, STEADY, judge=judged) for judged in (None, accuracy_like)}


@pytest.mark.parametrize("judge", [None, accuracy_like], ids=["unjudged", "judged"])
@pytest.mark.parametrize("stops", [(2,), (5,), (9,), (17, 24), (4, 8, 20)], ids=str)
def test_a_stopped_training_goes_on_to_the_same_bits(undisturbed, tmp_path, stops, judge):
    """The warm-up has seven episodes: stopped in it, after it, in several places, and at the very end."""
    learner, path, ticks = crew("anil")[1], tmp_path / "c", []
    for stop in stops:
        with pytest.raises(Stopped):
            trained_on(learner, STEADY, judge=judge, keep=path, tick=stop_at(stop))
    found = trained_on(learner, STEADY, judge=judge, keep=path, tick=ticks.append)
    assert same(found, undisturbed[judge])
    assert (ticks[0] > 2) == (stops[-1] > 3)  # it went on, and not from the start


def test_a_learner_that_changes_the_body_goes_on_to_the_same_bits(tmp_path):
    maml = crew("maml")[1]
    settings = Training(8, way=3, query=2, tasks=2, warmup=0.25, check_every=2)
    with pytest.raises(Stopped):
        trained_on(maml, settings, keep=tmp_path / "c", tick=stop_at(6))
    assert same(trained_on(maml, settings, keep=tmp_path / "c"), trained_on(maml, settings))


def test_bad_updates_on_the_way_are_remembered(tmp_path):
    """They took no step of Adam's: counted as one, the steps after them would be longer."""
    learner, bad = crew("anil")[1], []

    def outer(slow, tasks, weights):
        meta = meta_gradient(learner, slow, tasks, weights)
        bad.append(float(tasks.x.sum()) * 1000 % 3 < 1)
        return meta._replace(loss=meta.loss / 0) if bad[-1] else meta

    unlucky = learner._replace(outer=outer)
    whole = trained_on(unlucky, STEADY)
    assert 0 < sum(bad[:5]) < 5
    with pytest.raises(Stopped):
        trained_on(unlucky, STEADY, keep=tmp_path / "c", tick=stop_at(21))
    assert same(trained_on(unlucky, STEADY, keep=tmp_path / "c"), whole)


def test_patience_goes_on_where_it_was(tmp_path):
    learner, path = crew("protonet")[1], tmp_path / "c"
    settings, ticks = Training(40, way=4, check_every=2, patience=2), []
    whole = trained_on(learner, settings, judge=accuracy_like, tick=ticks.append)
    last = ticks[-1]
    assert 6 <= last < 40  # it stopped early
    with pytest.raises(Stopped):
        trained_on(learner, settings, judge=accuracy_like, keep=path, tick=stop_at(last - 1))
    assert same(trained_on(learner, settings, judge=accuracy_like, keep=path, tick=ticks.append), whole)
    assert ticks[-1] == last


@pytest.mark.parametrize("other", ["seed", "start", "settings", "pool", "learner"])
def test_another_trainings_checkpoint_is_not_used(protonet, tmp_path, other):
    path, settings = tmp_path / "c", Training(6, way=4, query=2, check_every=2)
    with pytest.raises(Stopped):
        trained_on(protonet, settings, keep=path, tick=stop_at(5))
    learner = crew("matching")[1] if other == "learner" else protonet
    changed = {
        "seed": {"seed": 1},
        "start": {"start": start_of(learner, seed=1)},
        "pool": {"pools": blob_pool(classes=12, seed=3)},
    }.get(other, {})
    settings = Training(6, way=3, query=2, check_every=2) if other == "settings" else settings
    assert same(trained_on(learner, settings, keep=path, **changed), trained_on(learner, settings, **changed))


def test_a_damaged_checkpoint_is_refused(protonet, tmp_path):
    path, settings = tmp_path / "c", Training(6, way=4, check_every=2)
    with pytest.raises(Stopped):
        trained_on(protonet, settings, keep=path, tick=stop_at(5))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadData, match="cannot read the checkpoint .*; delete it to train from the start"):
        trained_on(protonet, settings, keep=path)


TEAMWORK = Training(4000, way=4, query=2, tasks=2, shards=2, check_every=4)


def test_killed_with_its_workers_it_goes_on_and_none_stays(protonet, tmp_path):
    """kill -9 of the process that trains: its worker ends by itself, and one process alone finds the same bits."""
    path = tmp_path / "c"
    here, there = multiprocessing.Pipe()
    main = copies.started(train_in_a_team, path, there)
    worker = Path("/proc") / str(here.recv())
    assert worker.exists()
    while here.recv() < 10:
        pass
    main.kill()
    main.join()
    short = shutil.copy(path, tmp_path / "copy")
    for _ in range(100):
        if not worker.exists():
            break
        time.sleep(0.05)
    assert not worker.exists()
    ticks: list[int] = []

    def tick(done: int) -> None:
        ticks.append(done)
        stop_at(30)(done)

    for keep, started_at in ((short, 8), (tmp_path / "fresh", 0)):
        with pytest.raises(Stopped):
            trained_on(protonet, TEAMWORK, keep=Path(keep), tick=tick)
        assert ticks.pop(0) > started_at
        ticks.clear()
    assert _content(short) == _content(tmp_path / "fresh")


def train_in_a_team(path, told) -> None:
    torch.set_num_threads(1)
    with Team(partial(crew, "protonet"), 2) as team:
        told.send(team._processes[0].pid)
        learner = team.learners[1]
        shared = {"keep": path, "team": team, "tick": told.send}
        train(learner, start_of(learner), POOL, TEAMWORK, rng=np.random.default_rng(0), **shared)


def _content(path) -> dict[str, bytes | str]:
    with safe_open(str(path), framework="pt") as file:
        return {**file.metadata(), **{key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}}  # noqa: SIM118
