"""Our searchers as a tuner of NNI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, final

import nni
from nni.tuner import Tuner

from edgemeta.contracts import Searcher
from edgemeta.integrations.nni.processes import end_with_manager
from edgemeta.integrations.nni.spaces import arch_of, parameters, require_same
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Op, Trial

if TYPE_CHECKING:
    from edgemeta.search.problem import Problem  # seconds to import; NNI waits ten for a tuner to connect

NEW_TRIES = 300  # proposals in a row that bring nothing new before a search counts as exhausted
Asked = tuple[Searcher, Space, "Problem | None", list[Trial]]


@final
class EdgemetaTuner(Tuner):
    """A searcher behind NNI's `Tuner`.

    `make()` gives the searcher, its space, the problem whose caps hold (None: all fits) and trials of the past; it is
    called when NNI tells its search space, which must be that of `spaces.search_space`. What is proposed is new and
    under the caps. Scores are better when higher; a metric that echoes `picks` is believed before the parameters that
    NNI pairs it with.

    >>> from edgemeta.integrations.nni.spaces import search_space
    >>> from edgemeta.search.evolution import Evolution
    >>> from edgemeta.space.presets import tiny
    >>> tuner = EdgemetaTuner(lambda: (Evolution(tiny(), seed=0), tiny(), None, []))
    >>> tuner.update_search_space(search_space(tiny()))
    >>> proposed = tuner.generate_parameters(0)
    >>> tuner.receive_trial_result(0, proposed, 0.75)
    >>> tuner.trial_end(0, True)
    """

    def __init__(self, make: Callable[[], Asked]):
        self._make = make
        self._searcher: Searcher | None = None
        self._running: dict[int, Arch] = {}
        self._proposed: set[tuple[Op, ...]] = set()

    def update_search_space(self, search_space: Mapping[str, Any]) -> None:
        """Take up the search, once; later calls only check that the space has stayed."""
        if self._searcher is None:
            self._searcher, self._space, self._problem, past = self._make()
            self._rng = Random(self._problem.seed if self._problem else 0)
            for trial in past:
                self._proposed.add(self._space.ops(trial.arch))
                self._searcher.tell(trial)
        require_same(search_space, self._space)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        if self._searcher is None:
            raise RuntimeError("a tuner proposes after update_search_space")
        for _ in range(NEW_TRIES):
            arch = self._feasible(self._searcher.ask())
            if arch and self._space.ops(arch) not in self._proposed:
                self._proposed.add(self._space.ops(arch))
                self._running[parameter_id] = arch
                return parameters(arch, self._space)
        raise nni.NoMoreTrialError(f"{NEW_TRIES} proposals brought nothing new under the caps")

    def receive_trial_result(self, parameter_id: int, parameters: Mapping[str, Any], value: Any, **kwargs: Any) -> None:
        told = value if isinstance(value, Mapping) else {"default": value}
        picks = told.get("picks")
        arch = Arch(self._space.name, tuple(picks)) if picks else arch_of(parameters, self._space)
        self._running.pop(parameter_id, None)
        self._tell(self._trial(arch, told))

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """A trial that ends without a result has failed."""
        arch = self._running.pop(parameter_id, None)
        if arch is not None:
            self._tell(self._trial(arch, {"status": "failed: no result from its trial"}))

    def _tell(self, trial: Trial) -> None:
        if self._searcher is not None:
            self._searcher.tell(trial)

    def _feasible(self, arch: Arch) -> Arch | None:
        if self._problem is None:
            return arch
        from edgemeta.search.feasible import repair  # as above

        return repair(arch, self._space, self._problem.bound, self._problem.cap, rng=self._rng)

    def _trial(self, arch: Arch, told: Mapping[str, Any]) -> Trial:
        if self._problem is None:
            score, status = told.get("default"), told.get("status", "ok")
            return Trial(arch, Cost(), score, None, 0, 0, 0.0, type(self._searcher).__name__, status)
        return trial_of(arch, told, self._problem, type(self._searcher).__name__)


def trial_of(arch: Arch, told: Mapping[str, Any], problem: Problem, searcher: str) -> Trial:
    """What a trial reported, as a trial of ours; costs are what this machine's problem predicts."""
    return Trial(
        arch=arch,
        cost=problem.cost(arch),
        score=told.get("default"),
        score_ci=told.get("score_ci"),
        fidelity=int(told.get("fidelity", 0)),
        seed=problem.seed,
        seconds=float(told.get("seconds", 0.0)),
        searcher=searcher,
        status=told.get("status", "ok"),
        device=problem.device,
        cap=problem.cap,
    )


def of_task(folder: str, ledger: str, searcher: str, trials: int) -> EdgemetaTuner:
    """What an experiment names as its tuner: a searcher by name, for the problem that `task.write` put there."""
    end_with_manager()
    return EdgemetaTuner(partial(_open, Path(folder), Path(ledger), searcher, trials))


def _open(folder: Path, ledger: Path, name: str, trials: int) -> Asked:
    from edgemeta.integrations.nni import task  # as above
    from edgemeta.search import searcher
    from edgemeta.search.ledger import Ledger

    problem = task.read(folder)
    with closing(Ledger(ledger, problem.space, problem.task)) as known:
        past = [trial for trial in known.trials() if _counts(trial, problem)]
    return searcher(name, problem, seed=problem.seed, trials=trials), problem.space, problem, past


def _counts(trial: Trial, problem: Problem) -> bool:
    """Whether a trial of the ledger is trained as far as those of the experiment, and under its caps."""
    kept = trial.score is not None and problem.weights_of(trial.arch, trial.fidelity).exists()
    return kept and trial.fidelity >= problem.rungs[0] and problem.bound(trial.arch).fits(problem.cap)
