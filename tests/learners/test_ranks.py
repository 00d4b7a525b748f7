"""Processes that torchrun joined: the same bits as one alone, and one line on all when one of them fails."""

import math
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch

from edgemeta.errors import EdgemetaError
from edgemeta.learners.group import Group
from edgemeta.learners.outer import trained
from edgemeta.learners.ranks import Ranks, _packed, _unpacked
from edgemeta.learners.settings import Training
from edgemeta.learners.shards import Team, Update
from tests.blobs import blob_pool
from tests.crews import crew, same, start_of, trained_on
from tests.learners.test_going_on import Stopped, stop_at
from tests.learners.test_shards import CPU, drawn_tasks, ready
from tests.ranked import Failed, ranked


@pytest.fixture(scope="module")
def pair():
    with ranked(2) as ask:
        yield ask


@pytest.fixture(scope="module")
def team():
    with Team(partial(crew, "protonet", "maml", "lstm"), 2) as made:
        yield made


# what a team and ranks promise alike

TRAININGS = {
    "protonet": Training(12, way=(3, 4), query=2, tasks=4, shards=4, warmup=0.3),
    "maml": Training(9, way=3, query=2, tasks=3, shards=3, warmup=0.4, multi_step=0.4),  # dealt unevenly
    "lstm": Training(6, way=3, query=2, tasks=2, shards=2, warmup=0.7, frozen=2),  # no gradient of the body
    "ridge": Training(4, way=3, query=2, tasks=1),  # nothing to share: the second process waits
}


def train_in_ranks(group: Group, name: str):
    ranks = Ranks(partial(crew, name), group)
    return as_bytes(trained_on(ranks.learners[1], TRAININGS[name], team=ranks))


def as_bytes(slow):
    return {name: (tuple(value.shape), value.contiguous().numpy().tobytes()) for name, value in slow.items()}


@pytest.mark.parametrize("name", TRAININGS)
def test_ranks_find_what_a_team_finds_and_one_process_alone(pair, team, name):
    alone = as_bytes(trained_on(crew(name)[1], TRAININGS[name]))
    assert pair(train_in_ranks, name) == [alone, alone]
    if name != "ridge":
        assert as_bytes(trained_on(crew(name)[1], TRAININGS[name], team=team)) == alone


def unlucky_crew():
    """A learner that fails in every process that is not the first of its kind."""
    _, learner = crew("protonet")

    def outer(slow, tasks, weights):
        raise ValueError("no luck\nat all")

    return [learner._replace(outer=outer) if os.environ.get("RANK") == "1" else learner]


def update_in_ranks(group: Group):
    ranks = Ranks(unlucky_crew, group)
    ranks.update(0, ready(ranks.learners[0]), drawn_tasks(), (1.0,), shards=2, device=CPU)


def test_a_shard_that_fails_on_one_is_one_line_on_all_and_they_go_on(pair):
    lead, other = pair(update_in_ranks)
    assert str(lead).startswith("EdgemetaError: process 1 of 2 on ") and str(lead).endswith(": no luck")
    assert str(other).startswith("ValueError: no luck")  # where it was, there is the whole story
    name = "protonet"
    assert pair(train_in_ranks, name)[0] == as_bytes(trained_on(crew(name)[1], TRAININGS[name]))


# what is sent


def test_an_update_comes_back_to_the_bit():
    slow = ready(crew("maml")[1])
    gradient = {name: torch.randn_like(value) for name, value in trained(slow).items() if name != "0.beta"}
    statistics = {name: torch.rand_like(value) for name, value in slow.items() if name.startswith("stat.")}
    for loss in (0.1, math.nan, math.inf):
        back = _unpacked(_packed(Update(loss, gradient, statistics), slow), slow)
        assert back.loss == loss or math.isnan(back.loss) and math.isnan(loss)
        assert same(back.gradient, gradient) and same(back.statistics, statistics)
        assert list(back.gradient) == list(gradient)  # the norm is summed in this order
        assert all(back.gradient[name].stride() == slow[name].stride() for name in gradient)


def test_numbers_keep_their_type():
    slow = {"a": torch.rand(3, dtype=torch.float64), "b": torch.rand(())}
    back = _unpacked(_packed(Update(1.0, slow, {}), slow), slow)
    assert same(back.gradient, slow) and back.gradient["a"].dtype == torch.float64


# what must be the same


def begin(group: Group, what: str):
    learner, own = crew("protonet")[1], group.place.rank == 1
    changed = {
        "seed": {"seed": 1},
        "start": {"start": start_of(learner, seed=1)},
        "data": {"pools": blob_pool(classes=12, seed=3)},
        "settings": {"settings": Training(4, way=5)},
    }[what]
    settings = {"settings": Training(4, way=4)} | (changed if own else {})
    trained_on(learner, team=Ranks(partial(crew, "protonet"), group), **settings)


@pytest.mark.parametrize("what", ["seed", "start", "data", "settings"])
def test_another_training_is_refused_by_all_in_one_line(pair, what):
    said = {str(answer) for answer in pair(begin, what)}
    (line,) = said
    assert line.startswith("BadConfig: the training (settings, start or data) of process 1 on ") and "\n" not in line


def told(group: Group, failing: tuple[int, ...]):
    def work() -> int:
        if group.place.rank in failing:
            raise EdgemetaError(f"nothing at {group.place.rank}")
        return group.place.rank

    return group.together(work)


def test_what_fails_on_one_fails_on_all(pair):
    assert pair(told, ()) == [0, 1]
    assert [str(answer) for answer in pair(told, (0, 1))] == ["EdgemetaError: nothing at 0"] * 2  # the first goes first
    lead, other = map(str, pair(told, (1,)))
    assert lead.endswith(": nothing at 1") and "process 1 of 2" in lead and other == "EdgemetaError: nothing at 1"


# who leads


def asked(group: Group):
    """Scores differ between the processes: all go by the first's."""
    calls = []

    def judge(slow) -> float:
        calls.append(1)
        return float(slow["0.weight"].double().sum().sin()) if group.leads else 1 / 0

    settings, ranks = Training(20, way=4, check_every=2, patience=2), Ranks(partial(crew, "protonet"), group)
    found = trained_on(ranks.learners[1], settings, team=ranks, judge=ranks.judged(judge))
    return as_bytes(found), len(calls)


def test_the_leading_process_alone_judges(pair):
    (first, calls), (second, none) = pair(asked)
    assert first == second and calls > 2 and none == 0


STEADY = Training(24, way=4, query=2, tasks=2, shards=2, warmup=0.3, check_every=4)


def stopped_at(group: Group, path: str, limit: int):
    ranks, ticks = Ranks(partial(crew, "anil"), group), []

    def tick(done: int) -> None:
        ticks.append(done)
        stop_at(limit)(done)

    keep = path if group.leads else None
    try:
        return as_bytes(trained_on(ranks.learners[1], STEADY, team=ranks, keep=keep, tick=tick)), ticks[0]
    except Stopped:
        return None


def test_a_checkpoint_of_the_first_is_where_all_go_on(pair, tmp_path):
    path = tmp_path / "c"
    assert pair(stopped_at, path, 13) == [None, None] and path.exists()
    alone = as_bytes(trained_on(crew("anil")[1], STEADY))
    assert pair(stopped_at, path, 99) == [(alone, 13), (alone, 13)]


def leave(group: Group):
    if group.place.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    group.exchange("are you there?")


def test_a_process_that_is_gone_is_one_line():
    with ranked(2) as ask:
        lead, gone = ask(leave)
    assert isinstance(gone, Failed) and str(gone) == "gone"
    assert str(lead).startswith(
        "EdgemetaError: another process of this training is gone; start all again"
    ) and "\n" not in str(lead)


def test_a_process_that_torchrun_did_not_start_is_a_group_of_its_own():
    with Group() as group:
        assert group.leads and group.exchange("a") == ["a"] and group.from_lead(lambda: b"b") == b"b"
        assert group.together(lambda: 3) == 3
        ranks = Ranks(partial(crew, "protonet"), group)
        assert ranks.judged(lambda slow: 0.5)({}) == 0.5
        settings = TRAININGS["protonet"]
        assert same(trained_on(ranks.learners[1], settings, team=ranks), trained_on(crew("protonet")[1], settings))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_an_update_on_an_accelerator_comes_back():
    learner = crew("maml")[1]
    slow = {name: value.cuda() for name, value in start_of(learner).items()}
    for value in trained(slow).values():
        value.requires_grad_()
    with Group() as group:
        ranks = Ranks(lambda: [learner], group)
        there = ranks.update(0, slow, drawn_tasks(), (1.0,), shards=2, device=torch.device("cuda"))
    here = Team(lambda: [learner]).update(0, ready(learner), drawn_tasks(), (1.0,), shards=2, device=CPU)
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    assert all(value.is_cuda and np.isfinite(value.cpu()).all() for value in there.gradient.values())
