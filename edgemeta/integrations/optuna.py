"""Our searchers as a sampler of Optuna; its samplers as our searchers are rows of `search.SEARCHERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, final

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from edgemeta.contracts import Searcher
from edgemeta.errors import BadConfig, nearest
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Trial

Slots = dict[str, tuple[Any, ...]]


def suggest(trial: Any, space: Space) -> Arch:
    """The architecture that an Optuna trial suggests, slot by slot, for objectives that need it whole."""
    picks = (options.index(trial.suggest_categorical(name, options)) for name, options in space.slots)
    return Arch(space.name, tuple(picks))


@final
class EdgemetaSampler(BaseSampler):
    """A searcher behind `optuna.create_study(sampler=...)`.

    `make()` gives the searcher, with its space and seed. The objective suggests slots of the space by their names and
    options, as `suggest` does, in any order; one that it never suggests keeps the searcher's pick. Values are
    told as scores, with their sign turned where the study minimises, of which most searchers expect 0 to 1; pruned and
    failed trials as failed. One objective.

    >>> import optuna
    >>> from edgemeta.search.evolution import Evolution
    >>> from edgemeta.space.presets import tiny
    >>> sampler = EdgemetaSampler(lambda: Evolution(tiny(), seed=0), tiny())
    >>> study = optuna.create_study(direction="maximize", sampler=sampler)
    >>> study.optimize(lambda trial: sum(suggest(trial, tiny()).picks) / 14, n_trials=20)
    >>> study.best_value > 0.5
    True
    """

    def __init__(self, make: Callable[[], Searcher], space: Space):
        self._searcher, self._space = make(), space
        self._slots: Slots = dict(space.slots)
        self._asked: dict[int, Arch] = {}  # number of a running trial -> what the searcher wants of it
        self._lock = Lock()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        if len(study.directions) > 1:
            raise BadConfig(f"EdgemetaSampler knows one objective, not {len(study.directions)}; create_study with one")

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: the searcher's pick is looked up slot by slot."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        options = self._options(param_name, param_distribution)
        with self._lock:
            if trial.number not in self._asked:
                self._asked[trial.number] = self._searcher.ask()
        return options[self._asked[trial.number].picks[list(self._slots).index(param_name)]]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        with self._lock:
            asked = self._asked.pop(trial.number, None)
            arch = self._taken(trial, asked)
            if arch is not None:
                self._searcher.tell(_told(arch, state, values, study.direction, type(self._searcher).__name__))

    def _options(self, name: str, distribution: BaseDistribution) -> tuple[Any, ...]:
        if name not in self._slots:
            raise BadConfig(f"{name!r} is no slot of {self._space.name}; {nearest(name, self._slots)}")
        options = self._slots[name]
        if not isinstance(distribution, CategoricalDistribution) or tuple(distribution.choices) != tuple(options):
            raise BadConfig(f"{name} was suggested from {distribution}; suggest_categorical({name!r}, {options})")
        return options

    def _taken(self, trial: FrozenTrial, asked: Arch | None) -> Arch | None:
        """What was tried, where parameters were fixed from outside too; None where that is no architecture."""
        picks: list[int] = []
        for slot, (name, options) in enumerate(self._slots.items()):
            if name in trial.params and trial.params[name] in options:
                picks.append(options.index(trial.params[name]))
            elif asked is not None:
                picks.append(asked.picks[slot])
            else:
                return None
        return Arch(self._space.name, tuple(picks))


def _told(arch: Arch, state: TrialState, values: Sequence[float] | None, direction: StudyDirection, name: str) -> Trial:
    """A finished Optuna trial as ours; its cost is unknown to Optuna."""
    if state != TrialState.COMPLETE or not values:
        return Trial(arch, Cost(), None, None, 0, 0, 0.0, name, f"failed: {state.name.lower()} in the study")
    score = values[0] if direction == StudyDirection.MAXIMIZE else -values[0]
    return Trial(arch, Cost(), score, None, 0, 0, 0.0, name, "ok")
