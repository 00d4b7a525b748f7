"""The memory of a search: every finished trial, in an Optuna study that outlives kills and new caps."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL, Connection, text

from edgemeta.errors import EdgemetaError
from edgemeta.search.storage import PATIENCE_S, Database, address, options, patiently, plain, shown
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)
T = TypeVar("T")
_EVERY = """
SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id)
WHERE study_id = :study AND key = 'trial' ORDER BY number
"""
_FIRST = f"{_EVERY} LIMIT 1"
OPENING_S = 10.0  # of patience: two machines may lay out the tables at the same moment


class Ledger:
    """Trials of one task, appended one transaction at a time.

    `where` is a file, or the address of a database that several machines share. `task` names what a score means (data,
    learner, way, shot, seed): scores of different tasks are never compared, so each is a study of its own in the same
    database; that it has trials of another task is said once, with the difference. A study of another space, or of one
    that has changed since, is refused: its picks would stand for other networks.
    """

    def __init__(self, where: Path | URL, space: Space, task: str):
        self._space = space
        self._where = where
        url = where if isinstance(where, URL) else address(f"sqlite:///{where}")
        self._database = Database(url)
        self._storage, self._study = self._patiently("open", lambda: self._opened(url, task), patience_s=OPENING_S)
        try:
            self._require_same_space()
        except EdgemetaError:
            self.close()
            raise
        if isinstance(where, Path):  # many searches share a server
            self._tell_others(task)

    def _opened(self, url: URL, task: str) -> tuple[RDBStorage, Study]:
        with self._database.alone():
            storage = RDBStorage(plain(url), engine_kwargs=options(url))
            study = optuna.create_study(storage=storage, study_name=task, load_if_exists=True, direction="maximize")
        return storage, study

    def _tell_others(self, task: str) -> None:
        """That a file has trials of other tasks, and this one none yet."""
        if self._read(_FIRST):
            return
        summaries = self._patiently("read", lambda: optuna.get_all_study_summaries(storage=self._storage))
        for other in (summary for summary in summaries if summary.n_trials):
            what = f"{Path(self._place).name} has {other.n_trials} trials of another task"
            apart = f"{_apart(other.study_name, task)}; they stay, and this search begins anew"
            warnings.warn(f"{what}: {apart}", stacklevel=4)

    def _read(self, query: str) -> list[str]:
        """What was recorded, oldest first. Read from Optuna's tables: its own objects take 30 times as long and as
        much memory."""
        asked = {"study": self._study._study_id}

        def work(connection: Connection) -> list[str]:
            return [json.loads(row) for row in connection.execute(text(query), asked).scalars()]

        return self._patiently("read", lambda: self._database.once(work))

    def _require_same_space(self) -> None:
        """Refuse a study whose trials are of other slots; the first that is asked for none notes them."""
        now, then = _noted(self._space), self._study.user_attrs.get("space")
        if then is None and (rows := self._study.get_trials(deepcopy=False)):
            then = _noted_in(rows[0], now)
        if then is None:
            self._patiently("write", lambda: self._study.set_user_attr("space", now))
        elif then != now:
            raise EdgemetaError(
                f"ledger {self._place} is of another space: {_difference(then, now)}; give this search a run folder "
                "of its own, or the space as it was"
            )

    @property
    def _place(self) -> str:
        return str(self._where) if isinstance(self._where, Path) else shown(self._where)

    def _patiently(self, verb: str, work: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
        """Damaged files, full disks and lost servers are told in one line each."""
        advice = "free space, or move the file away to start a new one" if isinstance(self._where, Path) else ""
        return patiently(work, verb, f"ledger {self._place}", patience_s=patience_s, advice=advice)

    def record(self, trial: Trial, **beside: Any) -> None:
        """Append a trial; a score that is no number is kept as the failure it is.

        `beside` are attributes of Optuna's trial, for readers.
        """
        trial = sound(trial)
        slots = [(name, options) for name, options in self._space.slots if len(options) > 1]
        picks = {name: options[pick] for (name, options), pick in zip(self._space.slots, trial.arch.picks, strict=True)}
        row = create_trial(
            params={name: picks[name] for name, _ in slots},
            distributions={name: CategoricalDistribution(options) for name, options in slots},
            value=trial.score,
            state=TrialState.FAIL if trial.score is None else TrialState.COMPLETE,
            user_attrs={"trial": to_json(trial), **beside},
        )
        self._patiently("write", lambda: self._study.add_trial(row))

    def mark(self, name: str, value: Any) -> None:
        """Keep JSON beside the trials: an attribute of the study, which Optuna's dashboard shows."""
        self._patiently("write", lambda: self._study.set_user_attr(name, value))

    def marked(self, name: str) -> Any:
        return self._patiently("read", lambda: self._study.user_attrs.get(name))

    def trials(self) -> list[Trial]:
        """Every recorded trial, oldest first."""
        return [from_json(row) for row in self._read(_EVERY)]

    def copied_to(self, path: Path) -> None:
        """What is here and not there yet, into a file of its own: for reports where the storage is out of reach."""
        with closing(Ledger(path, self._space, self._study.study_name)) as copy:
            there = set(copy.trials())
            for trial in self.trials():
                if trial not in there:
                    copy.record(trial)
            for name, value in self._study.user_attrs.items():
                copy.mark(name, value)

    def close(self) -> None:
        """Let go of the connections to a server; a ledger that is used again opens new ones."""
        self._database.close()
        self._storage.remove_session()
        self._storage.engine.dispose()


def sound(trial: Trial) -> Trial:
    """The trial, or a failed one where its score is no finite number; an unknown interval becomes None."""
    if trial.score is not None and not math.isfinite(trial.score):
        return replace(trial, score=None, score_ci=None, fidelity=0, status=f"failed: score is {trial.score}")
    known = trial.score_ci is None or math.isfinite(trial.score_ci)
    return trial if known else replace(trial, score_ci=None)


def _noted(space: Space) -> dict[str, Any]:
    """What makes picks comparable, as JSON gives it back."""
    return json.loads(json.dumps({"name": space.name, "slots": space.slots}, default=str))


def _noted_in(row: FrozenTrial, now: dict[str, Any]) -> dict[str, Any]:
    """The same of a study that notes no space, from a trial; slots of one option are not in it, so taken as now."""
    arch = json.loads(row.user_attrs["trial"])["arch"]
    known = {
        name: list(of.choices) for name, of in row.distributions.items() if isinstance(of, CategoricalDistribution)
    }
    fixed = {name: options for name, options in now["slots"] if len(options) == 1 and name not in known}
    order = [name for name, _ in now["slots"] if name in known or name in fixed]
    names = [*order, *(name for name in known if name not in order)]
    return {"name": arch["space"], "slots": [[name, known.get(name, fixed.get(name))] for name in names]}


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first difference of two noted spaces, in words."""
    if then["name"] != now["name"]:
        return f"its trials are of {then['name']}, this search is of {now['name']}"
    old, new = dict(then["slots"]), dict(now["slots"])
    for name in (*old, *new):
        if name not in old or name not in new:
            return f"{now['name']} has {'no' if name in old else 'a'} slot {name} now"
        if old[name] != new[name]:
            return f"{name} of {now['name']} was one of {old[name]} and is one of {new[name]} now"
    return f"the slots of {now['name']} were in the order {', '.join(old)}"


def _apart(then: str, now: str) -> str:
    """The words by which two tasks differ."""
    old, new = then.split(), now.split()
    return f"theirs is {' '.join(w for w in old if w not in new)}, this is {' '.join(w for w in new if w not in old)}"


def to_json(trial: Trial) -> str:
    fields = asdict(trial) | {"cost": trial.cost.to_json(), "cap": trial.cap.to_json()}
    return json.dumps(fields, allow_nan=False)


def from_json(kept: str) -> Trial:
    fields = json.loads(kept)
    arch = Arch(fields["arch"]["space"], tuple(fields["arch"]["picks"]))
    costs = {name: Cost.from_json(fields[name]) for name in ("cost", "cap")}
    return Trial(**{**fields, "arch": arch, **costs})
