"""Networks under way: trained by workers here, or through claims elsewhere, and given back in the order of asking."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgemeta.errors import Diverged, EdgemetaError
from edgemeta.search.claims import Claims
from edgemeta.search.jobs import Job, Result, run_job
from edgemeta.search.ledger import Ledger, from_json, sound, to_json
from edgemeta.search.limits import within
from edgemeta.search.problem import Problem
from edgemeta.search.workers import worker_pool
from edgemeta.types import Arch, Trial

POLL_S = (0.25, 1.0)  # between two looks at what other processes have done: at first, and at most
FAILED = "failed: "  # what the status of a failed trial begins with ...
CRASHED = f"{FAILED}crashed, "  # ... where its network is not to blame ...
TOO_LONG = "took more than"  # ... and what it says where a training was too long
CRASHES = 5  # trainings in a row that break: more of them would teach nothing


@dataclass
class Asked:
    """A network that was asked for: trained already, in training here, or waiting for someone to take it."""

    arch: Arch
    rung: int
    weights: Path
    trial: Trial | None
    job: Job | None = None
    future: Future[Result] | None = None


@dataclass
class UnderWay:
    """Networks that were asked for, the oldest first. A context: leaving it ends workers that stood in for killed ones.

    `remember` hears of every score as soon as it is there, whatever stands before it.
    """

    problem: Problem
    searcher: str  # its name, for the ledger
    ledger: Ledger
    executor: Executor
    workers: int
    trial_seconds: float  # a training that takes longer has failed
    claims: Claims | None  # where other processes work on the same search
    remember: Callable[[Trial], object]
    asked: deque[Asked] = field(default_factory=deque)
    _fresh: Executor | None = None  # what stands in for `executor` once a worker process was killed
    _pauses: Iterator[float] = field(default_factory=lambda: _pauses())
    _pools: ExitStack = field(default_factory=ExitStack)
    _crashes: int = 0  # in a row

    def __enter__(self) -> UnderWay:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._fresh = None
        return self._pools.__exit__(*error)

    def ask(self, arch: Arch, rung: int, known: Trial | None) -> None:
        """Train a network, unless it is known what comes of it."""
        self.asked.append(Asked(arch, rung, self.problem.weights_of(arch, self.problem.rungs[rung]), known))
        self.start()

    def oldest(self) -> tuple[int, Trial]:
        """Rung and trial of the oldest network, once it is known."""
        oldest = self.asked[0]
        self._pauses = _pauses()
        while oldest.trial is None:
            self._advance()
        self.asked.popleft()
        if oldest.future or self.claims:
            self._count(oldest.trial.status)
        return oldest.rung, oldest.trial

    def start(self) -> None:
        """Train what waits: all of it, or as much as there are workers for where other processes can take the rest."""
        waiting = [asked for asked in self.asked if asked.trial is None and asked.future is None]
        if self.claims:
            done = self.claims.outcomes([asked.weights.stem for asked in waiting])
            for asked in waiting:
                if text := done.get(asked.weights.stem):
                    self._learn(asked, replace(from_json(text), arch=asked.arch, cost=self.problem.cost(asked.arch)))
        for asked in waiting:
            busy = sum(other.future is not None and other.trial is None for other in self.asked)
            if self.claims and (busy >= self.workers or asked.trial or not self.claims.claim(asked.weights.stem)):
                continue
            if self.claims and asked.rung:
                self.claims.bring(self.problem.weights_of(asked.arch, self.problem.rungs[asked.rung - 1]))
            asked.job = self.problem.job(asked.arch, asked.rung)
            asked.future = self._submit(asked.job)

    def _advance(self) -> None:
        """Wait until a training ends, here or elsewhere; record those that have ended here."""
        under_way = [asked for asked in self.asked if asked.future and asked.trial is None]
        pause_s = next(self._pauses) if self.claims else None
        if under_way:
            wait([asked.future for asked in under_way if asked.future], pause_s, FIRST_COMPLETED)
        elif pause_s:
            time.sleep(pause_s)
        for asked in under_way:
            if asked.future and asked.future.done():
                self._record(asked, asked.future)
        self.start()

    def _submit(self, job: Job) -> Future[Result]:
        """To the workers, or to new ones where one of them was killed: a pool does not outlive that."""
        try:
            return (self._fresh or self.executor).submit(within, self.trial_seconds, run_job, job)
        except BrokenExecutor:
            self._fresh = self._pools.enter_context(worker_pool(self.workers))
            return self._fresh.submit(within, self.trial_seconds, run_job, job)

    def _record(self, asked: Asked, future: Future[Result]) -> None:
        """Keep what a training gave, first of all; then others may know it."""
        assert asked.job is not None
        trial = self._outcome(asked, asked.job, future)
        if not self.claims:
            self.ledger.record(trial)
        elif (handed := self.claims.handed(job := asked.weights.stem)) is not None:
            if trial.score is not None:
                self.claims.keep(asked.weights)
            self.ledger.record(trial, **{"handed over": handed} if handed else {})
            self.claims.finish(job, to_json(trial))
        else:  # others gave this process up, and one of them trains it again
            asked.future = None
            return
        self._learn(asked, trial)

    def _learn(self, asked: Asked, trial: Trial) -> None:
        asked.trial = trial
        if trial.score is not None:
            self.remember(trial)

    def _outcome(self, asked: Asked, job: Job, future: Future[Result]) -> Trial:
        trial, rung = self.problem.unscored(asked.arch, self.searcher, "ok"), asked.rung
        try:
            result = self._result(job, future)
        except Diverged as error:
            trial = replace(trial, status=f"{FAILED}{error}")
        except EdgemetaError:  # the user's to mend, and the same for every network
            raise
        except TimeoutError:
            status = f"{FAILED}{TOO_LONG} {self.trial_seconds:g} s"
            trial = replace(trial, status=status, seconds=self.trial_seconds)
        except Exception as error:
            trial = replace(trial, status=f"{CRASHED}{_reason(error)}")
        else:
            score, fidelity = result.score, self.problem.rungs[rung]
            trial = replace(trial, score=score.mean, score_ci=score.ci95, fidelity=fidelity, seconds=result.seconds)
        return sound(trial)

    def _result(self, job: Job, future: Future[Result]) -> Result:
        """What a job gave. One under way when a worker was killed, by whichever of them, has another go alone."""
        try:
            return future.result()
        except BrokenExecutor:
            with worker_pool(1) as alone:
                try:
                    return alone.submit(within, self.trial_seconds, run_job, job).result()
                except BrokenExecutor:
                    raise RuntimeError("its worker process was killed twice, the second time working alone") from None

    def _count(self, status: str) -> None:
        crashed = status.removeprefix(CRASHED) if status.startswith(CRASHED) else ""
        self._crashes = self._crashes + 1 if crashed else 0
        if self._crashes >= CRASHES:
            raise EdgemetaError(
                f"{CRASHES} trainings in a row broke, the last with {crashed}; all others are in the ledger: mend that "
                "and run the same again to go on, with fewer workers if memory was short "
                "(a script of your own must start below `if __name__ == '__main__':`)"
            )


def _pauses() -> Iterator[float]:
    pause_s, longest_s = POLL_S
    while True:
        yield pause_s
        pause_s = min(1.5 * pause_s, longest_s)


def _reason(error: Exception) -> str:
    """Kind and first line of an error, in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
