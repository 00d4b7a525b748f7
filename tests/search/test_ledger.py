"""What is remembered of a search."""

import math
import multiprocessing
import os
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, replace
from random import Random

import pytest
from sqlalchemy.event import listen

from edgemeta.errors import EdgemetaError
from edgemeta.search.ledger import Ledger
from edgemeta.space.presets import tiny as tiny_space
from edgemeta.types import Cost, Trial
from tests import copies


def some_trial(tiny, seed, score=0.5):
    cost = Cost(0.1, 2.0, 3.0)
    status = "ok" if score is not None else "failed: loss is nan"
    return Trial(
        tiny.sample(rng=Random(seed)), cost, score, None if score is None else 0.01, 60, 0, 1.5, "test", status
    )


def test_trials_come_back_as_they_went_in_and_in_order(tmp_path, tiny):
    trials = [some_trial(tiny, 0), some_trial(tiny, 1, score=None), some_trial(tiny, 2)]
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite", tiny, "task")
    for trial in trials:
        ledger.record(trial)
    assert ledger.trials() == trials
    assert Ledger(tmp_path / "run" / "ledger.sqlite", tiny, "task").trials() == trials


def test_what_is_marked_stands_beside_the_trials(tmp_path, tiny):
    ledger = Ledger(tmp_path / "ledger.sqlite", tiny, "task")
    assert ledger.marked("hypervolume") is None
    ledger.mark("hypervolume", {"evolution": 0.5})
    assert Ledger(tmp_path / "ledger.sqlite", tiny, "task").marked("hypervolume") == {"evolution": 0.5}


def test_scores_of_different_tasks_are_kept_apart(tmp_path, tiny):
    Ledger(tmp_path / "ledger.sqlite", tiny, "protonet 5w1s").record(some_trial(tiny, 0))
    with pytest.warns(UserWarning, match="has 1 trials of another task: theirs is 5w1s, this is 20w1s; they stay"):
        assert Ledger(tmp_path / "ledger.sqlite", tiny, "protonet 20w1s").trials() == []


def test_a_damaged_file_is_named(tmp_path, tiny):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(EdgemetaError, match=r"cannot open ledger .*ledger\.sqlite.*move the file away") as caught:
        Ledger(path, tiny, "task")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_as_such(tmp_path, tiny):
    """SQLite is held to the pages it has, which is what a full disk does to it."""
    ledger = Ledger(tmp_path / "ledger.sqlite", tiny, "task")
    engine = ledger._study._storage._backend.engine  # type: ignore[attr-defined]
    listen(engine, "checkout", lambda connection, *_: connection.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(EdgemetaError, match="cannot write ledger .* database or disk is full; free space"):
        for seed in range(100):
            ledger.record(some_trial(tiny, seed))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killed_while_it_is_made_it_is_made_again(tmp_path):
    """The file appears whole or not at all: killed at any moment of its making, the next one opens it."""
    path = tmp_path / "ledger.sqlite"
    here, there = multiprocessing.Pipe()
    killer = copies.started(kill_makers, path, there)
    for milliseconds in (20, 60, 100, 150, 200, 300):
        here.send(milliseconds)
        assert here.recv() == "killed"
        if path.exists():
            Ledger(path, tiny_space(), "task")
        path.unlink(missing_ok=True)
    here.send(None)
    killer.join()
    assert Ledger(path, tiny_space(), "task").trials() == []


def kill_makers(path, told) -> None:
    """Processes that make a ledger, each killed after as many milliseconds as it is told."""
    for milliseconds in iter(told.recv, None):
        if not (maker := os.fork()):
            try:
                Ledger(path, tiny_space(), "task")
            finally:
                os._exit(0)
        time.sleep(milliseconds / 1000)
        os.kill(maker, signal.SIGKILL)
        os.waitpid(maker, 0)
        told.send("killed")


def slots_of(space, **changes):
    """The space with other options in the named slots; None takes a slot away."""
    slots = tuple((name, changes.get(name, options)) for name, options in space.slots)
    return Plain(space.name, tuple((name, options) for name, options in slots if options is not None))


@dataclass(frozen=True)
class Plain:
    """All that a ledger reads of a space."""

    name: str
    slots: tuple


def without_note(path):
    """As ledgers were when they noted no space."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes")


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage1.width": (4, 16)}, r"stage1\.width of .* was one of \[4, 8\] and is one of \[4, 16\] now"),
        ({"stage1.width": None}, r"has no slot stage1\.width now"),
    ],
)
def test_a_ledger_whose_space_has_changed_is_refused(tmp_path, tiny, changes, named, noted):
    path = tmp_path / "ledger.sqlite"
    Ledger(path, tiny, "task").record(some_trial(tiny, 0))
    if not noted:
        without_note(path)
    with pytest.raises(EdgemetaError, match=f"is of another space: .*{named}; give this search") as caught:
        Ledger(path, slots_of(tiny, **changes), "task")
    assert "\n" not in str(caught.value)
    assert len(Ledger(path, tiny, "task").trials()) == 1


def test_a_ledger_of_a_space_of_another_name_is_refused(tmp_path, tiny):
    path = tmp_path / "ledger.sqlite"
    Ledger(path, tiny, "task").record(some_trial(tiny, 0))
    with pytest.raises(EdgemetaError, match=f"its trials are of {tiny.name}, this search is of other"):
        Ledger(path, Plain("other", tiny.slots), "task")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_a_failure(tmp_path, tiny, score):
    ledger = Ledger(tmp_path / "ledger.sqlite", tiny, "task")
    ledger.record(some_trial(tiny, 0, score=score))
    ledger.record(replace(some_trial(tiny, 1), score_ci=math.nan))
    failed, unsure = ledger.trials()
    assert failed.score is None and failed.status == f"failed: score is {score}"
    assert unsure.score == 0.5 and unsure.score_ci is None
