"""Who trains which network, where several processes share a storage: claims, outcomes, weights and signs of life.

Three tables beside Optuna's. A process that trains a network has claimed it. Its sign of life is a counter, and who
watches it counts by a clock of its own: no clock is compared with another, so clocks may jump. A claim whose owner
has given no sign for `grace_s` is taken over, and counted in `handed`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    Update,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from edgemeta.errors import EdgemetaError
from edgemeta.files import write_bytes
from edgemeta.search.storage import Database

GRACE_S = 60.0
BEATS = 6  # signs of life in that time

_TABLES = MetaData()
_MEMBERS = Table(
    "edgemeta_members", _TABLES, Column("owner", String(32), primary_key=True), Column("beats", Integer, nullable=False)
)
_CLAIMS = Table(
    "edgemeta_claims",
    _TABLES,
    Column("job", String(64), primary_key=True),
    Column("owner", String(32), nullable=False),
    Column("handed", Integer, nullable=False),
    Column("outcome", Text),
)
_WEIGHTS = Table(
    "edgemeta_weights",
    _TABLES,
    Column("job", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
_NOTES = Table("edgemeta_notes", _TABLES, Column("name", String(200), primary_key=True), Column("value", Text))


class Claims:
    """One process's part in the work. A context: leaving it gives back what it has claimed and not finished.

    Jobs are named by their file of weights, which is a digest of the network, the task and the episodes.
    """

    def __init__(self, database: Database, *, grace_s: float | None = None):
        self.owner, self._database, self._grace_s = uuid.uuid4().hex, database, grace_s or GRACE_S
        self._seen: dict[str, tuple[int, float]] = {}  # owner -> beats, and when they were first seen
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        with database.alone():
            database.run("open", _TABLES.create_all)
        ended = select(_CLAIMS.c.job, _CLAIMS.c.owner).where(_CLAIMS.c.outcome.is_not(None))
        self._ended = dict(self._all(ended))  # before this process began

    def __enter__(self) -> Claims:
        self._one(insert(_MEMBERS).values(owner=self.owner, beats=0))
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._heart.join()

        def leave(connection: Connection) -> None:
            own = _CLAIMS.c.owner == self.owner
            connection.execute(delete(_CLAIMS).where(own, _CLAIMS.c.outcome.is_(None)))
            connection.execute(delete(_MEMBERS).where(_MEMBERS.c.owner == self.owner))

        with suppress(EdgemetaError):  # others take over in a minute
            self._database.run("leave", leave, patience_s=0.0)

    def _beat(self) -> None:
        more = update(_MEMBERS).where(_MEMBERS.c.owner == self.owner).values(beats=_MEMBERS.c.beats + 1)
        while not self._left.wait(self._grace_s / BEATS):
            with suppress(EdgemetaError):
                self._database.run("reach", lambda connection: connection.execute(more), patience_s=0.0)

    def claim(self, job: str) -> bool:
        """Whether this process is to do the job now: nobody has it, or who had it gives no sign of life.

        A job that had ended before this process began, and is asked for all the same, is to be done again: it crashed,
        or what it left is lost.
        """
        new = insert(_CLAIMS).values(job=job, owner=self.owner, handed=0)
        with suppress(_Known):
            self._database.run("write", partial(_insert, new))
            return True
        for owner, outcome in self._all(select(_CLAIMS.c.owner, _CLAIMS.c.outcome).where(_CLAIMS.c.job == job)):
            if outcome is not None and self._ended.get(job) != owner:
                return False
            if outcome is None and owner == self.owner:
                return True  # the answer to a first try was lost
            if outcome is None and self._alive(owner):
                return False
            same = _CLAIMS.c.outcome.is_(None) if outcome is None else _CLAIMS.c.outcome.is_not(None)
            taken = {"owner": self.owner, "handed": _CLAIMS.c.handed + 1, "outcome": None}
            return self._one(update(_CLAIMS).where(_CLAIMS.c.job == job, _CLAIMS.c.owner == owner, same).values(taken))
        return False  # given back this moment

    def _alive(self, owner: str) -> bool:
        for (beats,) in self._all(select(_MEMBERS.c.beats).where(_MEMBERS.c.owner == owner)):
            before = self._seen.get(owner)
            if before is None or before[0] != beats:
                self._seen[owner] = beats, time.monotonic()
            return time.monotonic() - self._seen[owner][1] < self._grace_s
        return False  # it has left

    def handed(self, job: str) -> int | None:
        """How many times a job has gone to another process; None where this one has lost it meanwhile."""
        own = select(_CLAIMS.c.handed).where(_CLAIMS.c.job == job, _CLAIMS.c.owner == self.owner)
        return next((count for (count,) in self._all(own)), None)

    def finish(self, job: str, outcome: str) -> None:
        """Tell the others; last, when everything that the outcome stands for is kept."""
        self._one(update(_CLAIMS).where(_CLAIMS.c.job == job, _CLAIMS.c.owner == self.owner).values(outcome=outcome))

    def outcomes(self, jobs: Collection[str]) -> dict[str, str]:
        """Of those that have ended since this process began."""
        asked = select(_CLAIMS.c.job, _CLAIMS.c.outcome, _CLAIMS.c.owner).where(_CLAIMS.c.job.in_(jobs))
        ended = self._all(asked.where(_CLAIMS.c.outcome.is_not(None))) if jobs else []
        return {job: outcome for job, outcome, owner in ended if self._ended.get(job) != owner}

    def note_once(self, name: str, value: str) -> str:
        """What was noted under a name first, by whichever process."""
        with suppress(_Known):
            self._database.run("write", partial(_insert, insert(_NOTES).values(name=name, value=value)))
        return self.noted(name) or value

    def noted(self, name: str) -> str | None:
        return next((value for (value,) in self._all(select(_NOTES.c.value).where(_NOTES.c.name == name))), None)

    def keep(self, weights: Path) -> None:
        """Weights for the others; the same job leaves the same ones, so the first stay."""
        with suppress(_Known):
            row = insert(_WEIGHTS).values(job=weights.stem, data=weights.read_bytes())
            self._database.run("write", partial(_insert, row))

    def bring(self, weights: Path) -> bool:
        """Whether the weights are here now: from before, or from the storage."""
        if weights.exists():
            return True
        for (data,) in self._all(select(_WEIGHTS.c.data).where(_WEIGHTS.c.job == weights.stem)):
            write_bytes(weights, data)
            return True
        return False

    def kept(self) -> set[str]:
        """Jobs whose weights are in the storage."""
        return {job for (job,) in self._all(select(_WEIGHTS.c.job))}

    def _all(self, asked: Select) -> Sequence[Row]:
        return self._database.run("read", lambda connection: connection.execute(asked).all())

    def _one(self, change: Update | Insert) -> bool:
        """Whether it changed a row."""
        return self._database.run("write", lambda connection: connection.execute(change).rowcount) == 1


class _Known(EdgemetaError):
    """A row with this key is there."""


def _insert(row: Insert, connection: Connection) -> None:
    try:
        connection.execute(row)
    except IntegrityError as error:
        raise _Known("known") from error
