"""The search loop: ask, cost, train what fits, tell; then successive halving over everything that was trained."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from random import Random

from tqdm import tqdm

from edgemeta.contracts import Searcher
from edgemeta.errors import Diverged
from edgemeta.search.feasible import repair, require_feasible
from edgemeta.search.jobs import Result, run_job
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem, rank
from edgemeta.types import Arch, Op, Trial

ETA = 3  # successive halving keeps one in three (Jamieson & Talwalkar 2016, arXiv:1502.07943)
NEW_TRIES = 300  # proposals in a row that bring nothing new before a search counts as exhausted


@dataclass
class Search:
    """One search in progress."""

    problem: Problem
    searcher: Searcher
    name: str  # the searcher's, for the ledger
    ledger: Ledger
    executor: Executor
    workers: int
    progress: bool = True
    infeasible: list[Trial] = field(default_factory=list)  # proposals that cost no training
    _known: dict[tuple[Op, ...], Trial] = field(default_factory=dict)
    _rng: Random = field(default_factory=lambda: Random(0))

    def run(self, *, trials: int, seconds: float, starts: Sequence[Arch] = ()) -> list[Trial]:
        """Until `trials` networks under the caps are trained, or for `seconds`; returns the ranking, best first.

        Finished trials in the ledger count and are replayed through `tell`, so a stopped search goes on and a search
        under another cap starts with all that is known. `starts` are proposals tried before the searcher's own.
        """
        problem, deadline = self.problem, time.monotonic() + seconds
        self._rng = Random(problem.seed)
        require_feasible(problem.space, problem.bound, problem.cap, rng=self._rng)
        for trial in self.trained():
            self._remember(trial)
        missing = trials - len(self._known)
        self._train(0, self._proposals(missing, deadline, starts), f"search ({self.name})", missing)
        for rung in range(1, len(problem.rungs)):
            keep = max(1, round(trials / ETA**rung))
            top = [trial.arch for trial in self._at_least(rung - 1)[:keep]]
            todo = [arch for arch in top if self._known[problem.space.ops(arch)].fidelity < problem.rungs[rung]]
            self._train(rung, iter(todo), f"top {len(top)} longer", len(todo))
        return rank(self.trained(), problem.space)

    def trained(self) -> list[Trial]:
        """Every trained trial under the caps whose weights are still there, with costs as this device has them."""
        problem = self.problem
        scored = (trial for trial in self.ledger.trials() if trial.score is not None)
        kept = (trial for trial in scored if problem.weights_of(trial.arch, trial.fidelity).exists())
        fitting = (trial for trial in kept if problem.bound(trial.arch).fits(problem.cap))
        return [replace(trial, cost=problem.cost(trial.arch)) for trial in fitting]

    def _remember(self, trial: Trial) -> None:
        self._known[self.problem.space.ops(trial.arch)] = trial
        self.searcher.tell(trial)

    def _at_least(self, rung: int) -> list[Trial]:
        reached = [trial for trial in self._known.values() if trial.fidelity >= self.problem.rungs[rung]]
        return rank(reached, self.problem.space)

    def _proposals(self, count: int, deadline: float, starts: Sequence[Arch]) -> Iterator[Arch]:
        """Up to `count` new feasible architectures."""
        queue, asked = deque(starts), set(self._known)
        for _ in range(count):
            for _ in range(NEW_TRIES):
                if time.monotonic() > deadline:
                    return
                arch = self._feasible(queue.popleft() if queue else self.searcher.ask())
                if arch and self.problem.space.ops(arch) not in asked:
                    break
            else:
                return
            asked.add(self.problem.space.ops(arch))
            yield arch

    def _feasible(self, arch: Arch) -> Arch | None:
        problem = self.problem
        if not problem.bound(arch).fits(problem.cap):
            cost = problem.cost(arch)
            refused = Trial(arch, cost, None, None, 0, problem.seed, 0.0, self.name, "infeasible")
            self.infeasible.append(refused)
            self.searcher.tell(refused)
        return repair(arch, problem.space, problem.bound, problem.cap, rng=self._rng)

    def _train(self, rung: int, archs: Iterator[Arch], title: str, total: int) -> None:
        """Keep every worker busy, but tell results in the order of asking: the outcome does not depend on timing."""
        running: deque[tuple[Arch, Future[Result]]] = deque()
        with tqdm(total=max(total, 0), desc=title, unit="net", disable=not self.progress) as bar:
            for arch in archs:
                running.append((arch, self.executor.submit(run_job, self.problem.job(arch, rung))))
                if len(running) >= self.workers:
                    self._finish(rung, *running.popleft(), bar)
            while running:
                self._finish(rung, *running.popleft(), bar)

    def _finish(self, rung: int, arch: Arch, future: Future[Result], bar: tqdm) -> None:
        problem = self.problem
        try:
            result = future.result()
        except Diverged as error:
            trial = Trial(arch, problem.cost(arch), None, None, 0, problem.seed, 0.0, self.name, f"failed: {error}")
        else:
            (mean, ci95, _), fidelity = result.score, problem.rungs[rung]
            cost = problem.cost(arch)
            trial = Trial(arch, cost, mean, ci95, fidelity, problem.seed, result.seconds, self.name, "ok")
        self.ledger.record(trial)
        bar.update()
        if trial.score is None:
            return self.searcher.tell(trial)
        self._remember(trial)
        best = max(self._at_least(rung), key=lambda trial: trial.score or 0.0)
        bar.set_postfix_str(f"best {100 * (best.score or 0):.1f} % at {best.cost.latency_ms:.3g} ms")
