"""The memory of a search: every finished trial, in an Optuna study that outlives kills and new caps."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from edgemeta.errors import EdgemetaError
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Ledger:
    """Trials of one task, appended one transaction at a time.

    `task` names what a score means (data, learner, way, shot, seed): scores of different tasks are never compared,
    so each is a study of its own in the same SQLite file; that a file has trials of another task is said once, with the
    difference. A study of another space, or of one that has changed since, is refused: its picks would stand for other
    networks.
    """

    def __init__(self, path: Path, space: Space, task: str):
        self._space = space
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._readable("open"):
            if not path.exists():
                _lay_out(path)
            self._study = optuna.create_study(
                storage=f"sqlite:///{path}", study_name=task, load_if_exists=True, direction="maximize"
            )
            rows = self._study.get_trials(deepcopy=False)
            others = [] if rows else optuna.get_all_study_summaries(storage=f"sqlite:///{path}")
        self._require_same_space(rows)
        for other in others:
            if other.n_trials:
                what = f"{path.name} has {other.n_trials} trials of another task"
                apart = f"{_apart(other.study_name, task)}; they stay, and this search begins anew"
                warnings.warn(f"{what}: {apart}", stacklevel=3)

    def _require_same_space(self, rows: Sequence[FrozenTrial]) -> None:
        """Refuse a study whose trials are of other slots; the first that is asked for none notes them."""
        now = _noted(self._space)
        then = self._study.user_attrs.get("space") or (_noted_in(rows[0], now) if rows else None)
        if then is None:
            with self._readable("write"):
                self._study.set_user_attr("space", now)
        elif then != now:
            raise EdgemetaError(
                f"ledger {self._path} is of another space: {_difference(then, now)}; give this search a run folder "
                "of its own, or the space as it was"
            )

    @contextmanager
    def _readable(self, verb: str) -> Iterator[None]:
        """SQLAlchemy, Alembic and Optuna each have their own errors for a damaged file or a full disk."""
        try:
            yield
        except Exception as error:
            root: BaseException = error
            while root.__cause__:
                root = root.__cause__
            reason = str(root).splitlines()[0]
            advice = "free space, or move the file away to start a new one"
            raise EdgemetaError(f"cannot {verb} ledger {self._path}: {reason}; {advice}") from error

    def record(self, trial: Trial) -> None:
        """Append a trial; a score that is no number is kept as the failure it is."""
        trial = sound(trial)
        slots = [(name, options) for name, options in self._space.slots if len(options) > 1]
        picks = {name: options[pick] for (name, options), pick in zip(self._space.slots, trial.arch.picks, strict=True)}
        row = create_trial(
            params={name: picks[name] for name, _ in slots},
            distributions={name: CategoricalDistribution(options) for name, options in slots},
            value=trial.score,
            state=TrialState.FAIL if trial.score is None else TrialState.COMPLETE,
            user_attrs={"trial": json.dumps(_fields(trial), allow_nan=False)},
        )
        with self._readable("write"):
            self._study.add_trial(row)

    def mark(self, name: str, value: Any) -> None:
        """Keep JSON beside the trials: an attribute of the study, which Optuna's dashboard shows."""
        with self._readable("write"):
            self._study.set_user_attr(name, value)

    def marked(self, name: str) -> Any:
        with self._readable("read"):
            return self._study.user_attrs.get(name)

    def trials(self) -> list[Trial]:
        """Every recorded trial, oldest first."""
        with self._readable("read"):
            return [_trial(row) for row in self._study.get_trials(deepcopy=False)]


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


def _lay_out(path: Path) -> None:
    """Create the empty tables under another name first: killed while Optuna writes them, the file cannot be read."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as folder:
        fresh = Path(folder) / path.name
        storage = optuna.storages.RDBStorage(f"sqlite:///{fresh}")
        storage.remove_session()
        storage.engine.dispose()
        os.replace(fresh, path)


def _fields(trial: Trial) -> dict:
    return asdict(trial) | {"cost": trial.cost.to_json(), "cap": trial.cap.to_json()}


def _trial(row: FrozenTrial) -> Trial:
    fields = json.loads(row.user_attrs["trial"])
    arch = Arch(fields["arch"]["space"], tuple(fields["arch"]["picks"]))
    costs = {name: Cost.from_json(fields[name]) for name in ("cost", "cap")}
    return Trial(**{**fields, "arch": arch, **costs})
