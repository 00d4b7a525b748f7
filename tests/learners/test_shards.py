"""An update in parts: the same bits however many processes share it, and one line when one of them fails."""

import math
import multiprocessing
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch

from edgemeta.contracts import Learner
from edgemeta.errors import EdgemetaError
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import Tasks, meta_gradient, trained
from edgemeta.learners.settings import Training, draw_tasks
from edgemeta.learners.shards import Team, gather, merged, shard
from edgemeta.learners.train import train
from tests.blobs import blob_pool
from tests.crews import POOL, crew, same, start_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teams():
    """Teams of one, two and three processes, each with both learners."""
    make = partial(crew, "protonet", "maml")
    with Team(make) as one, Team(make, 2) as two, Team(make, 3) as three:
        yield one, two, three


@pytest.mark.parametrize(("tasks", "shards"), [(4, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_parameters_do_not_depend_on_the_number_of_processes(teams, name, tasks, shards):
    learner = crew(name)[1]
    settings = Training(3 * tasks, way=(3, 4), query=2, tasks=tasks, shards=shards, warmup=0.25, multi_step=0.4)
    start = start_of(learner)
    one, two, three = (train(learner, start, POOL, settings, rng=np.random.default_rng(0), team=team) for team in teams)
    assert same(one, two) and same(one, three)
    assert not any(torch.equal(one[name], start[name]) for name in ("0.weight", "stat.0.mean"))


def drawn_tasks(tasks: int = 4, pools=(POOL,)) -> Tasks:
    settings = Training(way=3, shot=2, query=2, tasks=tasks)
    return gather(pools, draw_tasks(pools, settings, rng=np.random.default_rng(0)))


def ready(learner: Learner):
    slow = start_of(learner)
    for value in trained(slow).values():
        value.requires_grad_()
    return slow


def test_shards_are_averaged_in_loss_gradient_and_statistics():
    learner, tasks = crew("anil")[1], drawn_tasks()
    slow = ready(learner)
    whole = Team(lambda: [learner]).update(0, slow, tasks, (1.0,), shards=4, device=CPU)
    alone = [shard(learner, slow, Tasks(*(field[i : i + 1] for field in tasks)), (1.0,)) for i in range(4)]
    assert whole.loss == pytest.approx(np.mean([update.loss for update in alone]))
    for name, value in whole.gradient.items():
        torch.testing.assert_close(value, torch.stack([update.gradient[name] for update in alone]).mean(0))
    for name, value in whole.statistics.items():
        torch.testing.assert_close(value, torch.stack([update.statistics[name] for update in alone]).mean(0))
    assert merged(alone[:1]) is alone[0]


def test_a_shard_leaves_the_parameters_alone():
    learner = crew("protonet")[1]
    slow = ready(learner)
    kept = {name: value.detach().clone() for name, value in slow.items()}
    update = shard(learner, slow, drawn_tasks(), (1.0,))
    assert same(kept, {name: value.detach() for name, value in slow.items()})
    assert not torch.equal(update.statistics["stat.0.mean"], slow["stat.0.mean"])


def test_an_equation_without_a_solution_is_a_loss_that_is_no_number():
    learner = crew("ridge")[1]
    slow = ready(learner)
    with torch.no_grad():
        slow["0.weight"].fill_(math.nan)
    update = shard(learner, slow, drawn_tasks(), (1.0,))
    assert math.isnan(update.loss) and update.gradient.keys() == trained(slow).keys()


def test_tasks_hold_the_images_that_were_drawn_from_each_pool():
    bright = blob_pool(classes=5, seed=1)
    pools, settings = (POOL, bright), Training(way=3, shot=2, query=2, tasks=8)
    drawn = draw_tasks(pools, settings, rng=np.random.default_rng(0))
    tasks = gather(pools, drawn)
    assert {place for place, _ in drawn} == {0, 1}
    for i, (place, chosen) in enumerate(drawn):
        assert torch.equal(tasks.x[i], pools[place].images(chosen.support.ravel()))
        assert torch.equal(tasks.query_x[i], pools[place].images(chosen.query.ravel()))
    assert tasks.onehot[0].argmax(1).tolist() == [0, 0, 1, 1, 2, 2] == tasks.query_y[0].tolist()


def failing_crew() -> list[Learner]:
    """A learner that fails in every process but the first."""
    _, learner = crew("protonet")

    def outer(slow, tasks, weights):
        if multiprocessing.parent_process() is not None:
            raise ValueError("no luck\nat all")
        return meta_gradient(learner, slow, tasks, weights)

    return [learner._replace(outer=outer)]


def test_a_worker_that_fails_or_dies_is_one_line_and_none_stays():
    with Team(failing_crew, 2) as team:
        (process,) = team._processes
        asked = partial(team.update, 0, ready(team.learners[0]), drawn_tasks(), (1.0,), shards=2, device=CPU)
        with pytest.raises(EdgemetaError, match=r"^a training worker failed: no luck; run again with one worker"):
            asked()
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(
            EdgemetaError, match=r"^a training worker ended \(exit code -9\); run the same again"
        ) as told:
            asked()
        assert "\n" not in str(told.value)
    assert not process.is_alive() and process not in multiprocessing.active_children()


def test_leaving_by_an_exception_ends_workers_at_once():
    with pytest.raises(KeyboardInterrupt), Team(failing_crew, 2) as team:
        (process,) = team._processes
        raise KeyboardInterrupt
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_is_made_on_another_device_than_the_parameters_are(name):
    """Torch's `meta` device has shapes and no numbers: it refuses operands elsewhere, as an accelerator does."""
    learner = crew(name)[1]
    slow = {key: value.to("meta") for key, value in start_of(learner).items()}
    for value in trained(slow).values():
        value.requires_grad_()
    found = meta_gradient(learner, slow, Tasks(*(field.to("meta") for field in drawn_tasks(2))), (1.0,))
    assert found.loss.is_meta and all(value.is_meta for value in found.gradient.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", LEARNERS)
def test_an_accelerator_finds_what_the_processor_finds(name):
    learner, tasks = crew(name)[1], drawn_tasks()
    here = shard(learner, ready(learner), tasks, (1.0,))
    slow = {key: value.cuda() for key, value in start_of(learner).items()}
    for value in trained(slow).values():
        value.requires_grad_()
    there = shard(learner, slow, Tasks(*(field.cuda() for field in tasks)), (1.0,))
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    settings = Training(8, way=3, query=2, tasks=4, shards=2, warmup=0.5)
    moved = train(learner, start_of(learner), POOL, settings, rng=np.random.default_rng(0), device="cuda")
    assert all(value.device == CPU and value.isfinite().all() for value in moved.values())
