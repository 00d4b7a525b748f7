"""The memory of a search: every finished trial, in an Optuna study that outlives kills and new caps."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

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
    so each is a study of its own in the same SQLite file.
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
            self._study.get_trials(deepcopy=False)

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

    def trials(self) -> list[Trial]:
        """Every recorded trial, oldest first."""
        with self._readable("read"):
            return [_trial(row) for row in self._study.get_trials(deepcopy=False)]


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
