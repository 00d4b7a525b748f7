"""Optuna's samplers as searchers: a study in memory that is asked and told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from edgemeta.errors import BadConfig, nearest
from edgemeta.search.feasible import violation
from edgemeta.space.moves import mutate
from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)

SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {"tpe": TPESampler, "nsga2": NSGAIISampler, "gp": GPSampler}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {"nsga2": {"population_size": 12}}  # of 50, for tens of trials
MEMORY: dict[str, int] = {"tpe": 1000, "nsga2": 1000, "gp": 150}  # trials, up to twice as many
NEW_TRIES = 100  # mutations in a row, looking for what was not proposed yet
_OVER = "over"  # user attribute: how far over its cap a trial is
_FARTHEST = 10.0  # bound of that: 22,000 times the cap, and no infinity to fit a surrogate to


class OptunaSearch:
    """TPE (Watanabe 2023, arXiv:2304.11127), NSGA-II (Deb 2002, doi:10.1109/4235.996017) or GP, slots as categories.

    NSGA-II has two objectives, score and predicted latency in ms; the others the score alone. How far a trial is over
    the cap it carries (`feasible.violation`, 0 where it fits) is Optuna's constraint. An infeasible trial has no
    score, and Optuna knows no constraint without one: it is told with the mean score so far, from which a surrogate
    learns nothing but the constraint. A failed trial stays failed.

    Departure: an architecture that was asked or told before gives way to a new one some mutations away, because in a
    table of categories a sampler that has made up its mind would go on proposing its best. And what Optuna samples from
    is bounded (`MEMORY`): the best trials and the last ones, half each, so that an `ask` takes as long after 10^5
    trials as after some hundreds. `settings` are those of the Optuna sampler.
    """

    def __init__(self, space: Space, *, sampler: str, seed: int, **settings: Any):
        if sampler not in SAMPLERS:
            raise BadConfig(f"no Optuna sampler {sampler!r} here; {nearest(sampler, SAMPLERS)}")
        self._space, self._rng = space, Random(seed)
        self._options: dict[str, BaseDistribution] = {
            f"{i}": CategoricalDistribution(tuple(space.options(i))) for i in range(len(space.slots))
        }
        self._both = sampler == "nsga2"
        settings = {**DEFAULTS.get(sampler, {}), **settings}
        with warnings.catch_warnings():  # Optuna 5 renames `constraints_func`, 4 calls it an experiment
            warnings.simplefilter("ignore")
            made = SAMPLERS[sampler](seed=seed, constraints_func=_constraints, **settings)
        directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 1 + self._both]
        self._study = optuna.create_study(sampler=made, directions=directions)
        self._most = MEMORY[sampler]
        self._running: dict[Arch, int] = {}  # what was asked and not told -> its number in the study
        self._seen: set[Arch] = set()
        self._ended = 0  # trials of the study
        self._scores: tuple[int, float] = (0, 0.0)  # count and sum

    def ask(self) -> Arch:
        """What the sampler suggests, or a new architecture near it; anything where all were proposed."""
        with np.errstate(invalid="ignore"):  # GP divides zero by zero, and knows it, where it is certain of its best
            trial = self._study.ask(self._options)
        arch = self._arch(trial.params)
        if arch not in self._seen:
            self._running[arch] = trial.number
            self._seen.add(arch)
            return arch
        self._end(trial.number, state=TrialState.FAIL)
        near = self._unseen(arch)
        if near not in self._seen:
            self._running[near] = self._started(near)
            self._seen.add(near)
        return near

    def tell(self, trial: Trial) -> None:
        number = self._running.pop(trial.arch, None)
        if number is None:
            number = self._started(trial.arch)
        self._seen.add(trial.arch)
        if trial.score is None and trial.status != "infeasible":
            self._end(number, state=TrialState.FAIL)
            return
        count, total = self._scores
        if trial.score is not None:
            self._scores = count, total = count + 1, total + trial.score
        score = total / max(count, 1) if trial.score is None else trial.score
        self._note_violation(number, trial)
        self._end(number, values=[score, trial.cost.latency_ms] if self._both else score)
        self._forget()

    def _end(self, number: int, **told: Any) -> None:
        self._study.tell(number, **told)
        self._ended += 1

    def _forget(self) -> None:
        """Go on in a study of the trials that are worth remembering, where there are twice as many as that."""
        if self._ended <= 2 * self._most:
            return
        rows = self._study.get_trials(deepcopy=False)
        ended = [row for row in rows if row.state.is_finished()]
        scored = [row for row in ended if row.state == TrialState.COMPLETE]
        best = sorted(scored, key=lambda row: row.values[0])[-self._most // 2 :]
        last = {row.number for row in (*best, *ended[-self._most // 2 :])}
        fresh = optuna.create_study(sampler=self._study.sampler, directions=self._study.directions)
        of_number = {number: arch for arch, number in self._running.items()}
        for row in (row for row in rows if row.number in last or row.number in of_number):
            if arch := of_number.get(row.number):
                self._running[arch] = len(fresh.get_trials(deepcopy=False))
            fresh.add_trial(row)
        self._study, self._ended = fresh, len(last)

    def _note_violation(self, number: int, trial: Trial) -> None:
        row = self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        over = min(violation(trial.cost, trial.cap), _FARTHEST)
        self._study._storage.set_trial_user_attr(row, _OVER, over if math.isfinite(over) else _FARTHEST)

    def _started(self, arch: Arch) -> int:
        """Number of a running trial of an architecture that the sampler did not suggest."""
        params = dict(zip(self._options, arch.picks, strict=True))
        if self._both:  # generations are counted in what was asked
            self._study.enqueue_trial(params)
            return self._study.ask(self._options).number
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=self._options))
        return len(self._study.get_trials(deepcopy=False)) - 1

    def _arch(self, params: Mapping[str, Any]) -> Arch:
        return Arch(self._space.name, tuple(params[name] for name in self._options))

    def _unseen(self, arch: Arch) -> Arch:
        """A walk from `arch` until it meets something new, or has taken `NEW_TRIES` steps."""
        for _ in range(NEW_TRIES if len(self._seen) < self._space.size else 0):
            arch = mutate(arch, self._space, rng=self._rng)
            if arch not in self._seen:
                break
        return arch


def _constraints(trial: FrozenTrial) -> tuple[float]:
    return (trial.user_attrs.get(_OVER, 0.0),)
