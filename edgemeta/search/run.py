"""The search loop: ask, cost, train what fits, tell; then successive halving over everything that was trained."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from edgemeta import terminal
from edgemeta.contracts import Searcher
from edgemeta.errors import Diverged, EdgemetaError
from edgemeta.search.claims import Claims
from edgemeta.search.feasible import repair, require_feasible
from edgemeta.search.jobs import Job, Result, run_job
from edgemeta.search.ledger import Ledger, from_json, sound, to_json
from edgemeta.search.limits import within
from edgemeta.search.problem import Problem, rank
from edgemeta.search.workers import worker_pool
from edgemeta.types import Arch, Op, Trial

ETA = 3  # successive halving keeps one in three (Jamieson & Talwalkar 2016, arXiv:1502.07943)
LOOKAHEAD = 4  # proposals under way before the oldest is told, whatever the number of workers
POLL_S = (0.25, 1.0)  # between two looks at what other processes have done: at first, and at most
NEW_TRIES = 300  # proposals in a row that bring nothing new before a search counts as exhausted
FAILED = "failed: "  # what the status of a failed trial begins with ...
CRASHED = f"{FAILED}crashed, "  # ... where its network is not to blame ...
TOO_LONG = "took more than"  # ... and what it says where a training was too long
CRASHES = 5  # trainings in a row that break: more of them would teach nothing

Ops = tuple[Op, ...]


@dataclass
class _Asked:
    """A network that was asked for: trained already, in training here, or waiting for someone to take it."""

    arch: Arch
    rung: int
    weights: Path
    trial: Trial | None
    job: Job | None = None
    future: Future[Result] | None = None


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
    trial_seconds: float = math.inf  # a training that takes longer has failed
    claims: Claims | None = None  # where other processes work on the same search
    lookahead: int = LOOKAHEAD  # with claims the same for all of them
    infeasible: list[Trial] = field(default_factory=list)  # proposals that cost no training
    _known: dict[Ops, dict[int, Trial]] = field(default_factory=dict)  # network -> fidelity -> trial
    _leaders: dict[int, Trial] = field(default_factory=dict)  # rung -> the best that was told
    _failed: dict[Ops, Trial] = field(default_factory=dict)  # for good
    _rng: Random = field(default_factory=lambda: Random(0))
    _fresh: Executor | None = None  # what stands in for `executor` once a worker process was killed
    _pauses: Iterator[float] = field(default_factory=lambda: _pauses())
    _pools: ExitStack = field(default_factory=ExitStack)
    _crashes: int = 0  # in a row
    _running: deque[_Asked] = field(default_factory=deque)

    def run(self, *, trials: int, seconds: float, starts: Sequence[Arch] = ()) -> list[Trial]:
        """Until `trials` networks under the caps are trained, or for `seconds`; returns the ranking, best first.

        Proposing ends when what is left of `seconds` is just what the rest, halving above all, is expected to take.

        Trained networks of the ledger that fit are told to the searcher first. They count as this search's own where
        they were proposed for another device, or under caps at least as loose: those of a tighter search say nothing
        of what the looser caps allow. Each round of halving is as wide as this search's own networks make it, and open
        to all. `starts` are proposals tried before the searcher's.

        A stopped search proposes the same networks again and finds those it trained in the ledger, so where it was
        stopped makes no difference to where it ends; nor does the number of workers, up to `lookahead`, nor that of the
        processes which share them through `claims`: each proposes the same networks, trains those that it can claim
        and waits for the others' scores.

        A training that crashes, diverges, takes longer than `trial_seconds` or scores no number is a failed trial of
        the ledger, and the search goes on; after `CRASHES` in a row, which no network can be blamed for, it ends. A
        search that goes on tries what crashed again; what else failed has failed for good.
        """
        with self._pools:
            try:
                return self._run(trials, seconds, starts)
            finally:
                self._fresh = None

    def _run(self, trials: int, seconds: float, starts: Sequence[Arch]) -> list[Trial]:
        problem, deadline = self.problem, time.monotonic() + seconds
        self._rng = Random(problem.seed)
        require_feasible(problem.space, problem.bound, problem.cap, rng=self._rng)
        counted: set[Ops] = set()
        own: set[Ops] = set()
        told: list[Trial] = []
        self._failed = self._failures()
        own.update(self._failed)
        for trial in self.trained():
            if not self._remember(trial) or trial.fidelity < problem.rungs[0]:
                continue  # its network is in one of the sets already, or it was too short for these rungs
            ops = problem.space.ops(trial.arch)
            if self._is_own(trial):
                own.add(ops)
                continue
            if trial.device != problem.device or problem.cap.fits(trial.cap):
                counted.add(ops)
            told.append(replace(trial, cap=problem.cap))
        for trial in sorted(told, key=_worst_first):
            self.searcher.tell(trial)
        missing, tried = trials - len(counted), len(own)
        if len(own) < missing:
            old = {ops for ops, of in self._known.items() if max(of) >= problem.rungs[0]} - own
            proposals = self._proposals(missing, old, deadline, starts)
            tried = max(tried, self._train(0, proposals, f"search ({self.name})", missing))
        for rung in range(1, len(problem.rungs)):
            top = self._best_at(rung - 1)[: _kept(tried, rung)]
            todo = [trial.arch for trial in top if self._at(trial.arch, rung) is None]
            self._train(rung, iter(todo), f"top {len(top)} longer", len(todo))
        return rank(self.trained(), problem.space)

    def trained(self) -> list[Trial]:
        """Every trained trial under the caps whose weights are still there, with costs as this device has them."""
        problem = self.problem
        elsewhere = self.claims.kept() if self.claims else ()
        scored = (trial for trial in self.ledger.trials() if trial.score is not None)
        with_weights = ((trial, problem.weights_of(trial.arch, trial.fidelity)) for trial in scored)
        kept = (trial for trial, weights in with_weights if weights.stem in elsewhere or weights.exists())
        fitting = (trial for trial in kept if problem.bound(trial.arch).fits(problem.cap))
        return [replace(trial, cost=problem.cost(trial.arch)) for trial in fitting]

    def _failures(self) -> dict[Ops, Trial]:
        """What failed for good in this very search; a training that was too long may be given more time now."""
        ours = (trial for trial in self.ledger.trials() if trial.status.startswith(FAILED) and self._is_own(trial))
        final = (trial for trial in ours if not trial.status.startswith(CRASHED))
        return {
            self.problem.space.ops(trial.arch): trial
            for trial in final
            if TOO_LONG not in trial.status or trial.seconds >= self.trial_seconds
        }

    def _is_own(self, trial: Trial) -> bool:
        return (trial.device, trial.cap, trial.searcher) == (self.problem.device, self.problem.cap, self.name)

    def _remember(self, trial: Trial) -> bool:
        """Keep a trial; whether it is the first of its network that is as long as the first rung."""
        of_network, first = self._known.setdefault(self.problem.space.ops(trial.arch), {}), self.problem.rungs[0]
        known = any(fidelity >= first for fidelity in of_network)
        of_network[trial.fidelity] = trial
        return not known

    def _at(self, arch: Arch, rung: int) -> Trial | None:
        """The trial of a network at a rung, or past it where the rungs were others then."""
        of_network = self._known.get(self.problem.space.ops(arch), {})
        reached = [fidelity for fidelity in of_network if fidelity >= self.problem.rungs[rung]]
        return of_network[min(reached)] if reached else None

    def _best_at(self, rung: int) -> list[Trial]:
        """Trials at a rung, best score first: those trained further are judged by what they were here."""
        every = [self._at(next(iter(trials.values())).arch, rung) for trials in self._known.values()]
        return sorted(filter(None, every), key=_worst_first, reverse=True)

    def _proposals(self, count: int, old: set[Ops], deadline: float, starts: Sequence[Arch]) -> Iterator[Arch]:
        """Up to `count` feasible architectures that are not `old`; fewer where the space has no more."""
        queue, asked = deque(starts), set(old)
        proposed: set[Arch] = set()
        for tried in range(count):
            ahead_s = self._ahead_s(tried + 1) if deadline < math.inf else 0.0
            for _ in range(NEW_TRIES):
                if time.monotonic() + ahead_s > deadline or len(proposed) >= self.problem.space.size:
                    return
                raw = queue.popleft() if queue else self.searcher.ask()
                proposed.add(raw)
                arch = self._feasible(raw)
                if arch and self.problem.space.ops(arch) not in asked:
                    break
            else:
                return
            asked.add(self.problem.space.ops(arch))
            yield arch

    def _ahead_s(self, tried: int) -> float:
        """Seconds that a search of so many networks is expected to need still: for the last of them, those under way,
        and halving; 0 where nothing was trained yet to tell from."""
        first = self._best_at(0)
        if not first:
            return 0.0
        waiting = 1 + sum(asked.trial is None for asked in self._running)
        ahead_s = waiting * sum(trial.seconds for trial in first) / len(first) / self.workers
        for rung in range(1, len(self.problem.rungs)):
            todo = [trial for trial in first[: _kept(tried, rung)] if self._at(trial.arch, rung) is None]
            each_s = [self._longer(rung) * trial.seconds for trial in todo]
            ahead_s += max(sum(each_s) / self.workers, *each_s, 0.0)
        return ahead_s

    def _longer(self, rung: int) -> float:
        """Times as long as at the first rung a network trains at another: by those that did, else by the episodes."""
        rungs, both = self.problem.rungs, (self.problem.rungs[0], self.problem.rungs[rung])
        known = [[of[at].seconds for at in both] for of in self._known.values() if all(at in of for at in both)]
        first_s, further_s = (sum(of) for of in zip(*known, strict=True)) if known else (0.0, 0.0)
        return further_s / first_s if first_s > 0 else (rungs[rung] - rungs[rung - 1]) / rungs[0]

    def _feasible(self, arch: Arch) -> Arch | None:
        problem = self.problem
        if not problem.bound(arch).fits(problem.cap):
            refused = replace(self._unscored(arch, "infeasible"), cost=problem.bound(arch))  # what it was refused for
            self.infeasible.append(refused)
            self.searcher.tell(refused)
        return repair(arch, problem.space, problem.bound, problem.cap, rng=self._rng)

    def _unscored(self, arch: Arch, status: str) -> Trial:
        problem = self.problem
        cost = problem.cost(arch)
        return Trial(arch, cost, None, None, 0, problem.seed, 0.0, self.name, status, problem.device, problem.cap)

    def _train(self, rung: int, archs: Iterator[Arch], title: str, total: int) -> int:
        """Keep every worker busy, but tell results in the order of asking: the outcome does not depend on timing.

        Returns how many networks there were, those included that are trained already.
        """
        count, running = 0, self._running
        running.clear()
        with terminal.bar(total=max(total, 0), desc=title, unit="net", progress=self.progress) as bar:
            for arch in archs:
                count += 1
                known = self._at(arch, rung) or self._failed.get(self.problem.space.ops(arch))
                running.append(_Asked(arch, rung, self.problem.weights_of(arch, self.problem.rungs[rung]), known))
                self._start()
                if len(running) >= (self.lookahead if self.claims else max(self.lookahead, self.workers)):
                    self._finish(bar)
            while running:
                self._finish(bar)
        return count

    def _start(self) -> None:
        """Train what waits: all of it, or as much as there are workers for where other processes can take the rest."""
        waiting = [asked for asked in self._running if asked.trial is None and asked.future is None]
        if self.claims:
            done = self.claims.outcomes([asked.weights.stem for asked in waiting])
            for asked in waiting:
                if text := done.get(asked.weights.stem):
                    self._learn(asked, replace(from_json(text), arch=asked.arch, cost=self.problem.cost(asked.arch)))
        for asked in waiting:
            busy = sum(other.future is not None and other.trial is None for other in self._running)
            if self.claims and (busy >= self.workers or asked.trial or not self.claims.claim(asked.weights.stem)):
                continue
            if self.claims and asked.rung:
                self.claims.bring(self.problem.weights_of(asked.arch, self.problem.rungs[asked.rung - 1]))
            asked.job = self.problem.job(asked.arch, asked.rung)
            asked.future = self._submit(asked.job)

    def _advance(self) -> None:
        """Wait until a training ends, here or elsewhere; record those that have ended here."""
        under_way = [asked for asked in self._running if asked.future and asked.trial is None]
        pause_s = next(self._pauses) if self.claims else None
        if under_way:
            wait([asked.future for asked in under_way if asked.future], pause_s, FIRST_COMPLETED)
        elif pause_s:
            time.sleep(pause_s)
        for asked in under_way:
            if asked.future and asked.future.done():
                self._record(asked, asked.future)
        self._start()

    def _submit(self, job: Job) -> Future[Result]:
        """To the workers, or to new ones where one of them was killed: a pool does not outlive that."""
        try:
            return (self._fresh or self.executor).submit(within, self.trial_seconds, run_job, job)
        except BrokenExecutor:
            self._fresh = self._pools.enter_context(worker_pool(self.workers))
            return self._fresh.submit(within, self.trial_seconds, run_job, job)

    def _finish(self, bar: terminal.Bar) -> None:
        """Tell the searcher of the oldest network's first score, when it is known."""
        oldest = self._running[0]
        self._pauses = _pauses()
        while oldest.trial is None:
            self._advance()
        self._running.popleft()
        bar.update()
        if oldest.future or self.claims:
            self._count(oldest.trial.status)
        if oldest.rung == 0:
            self.searcher.tell(oldest.trial)
        best = max(self._leaders.get(oldest.rung, oldest.trial), oldest.trial, key=_worst_first)
        self._leaders[oldest.rung] = best
        if best.score is not None:
            bar.set_postfix_str(f"best {100 * best.score:.1f} % at {best.cost.latency_ms:.3g} ms")

    def _record(self, asked: _Asked, future: Future[Result]) -> None:
        """Keep what a training gave, first of all; then others may know it."""
        assert asked.job is not None
        trial = self._outcome(asked, asked.job, future)
        if not self.claims:
            self.ledger.record(trial)
        elif self.claims.mine(job := asked.weights.stem):
            handed = self.claims.handed(job)
            if trial.score is not None:
                self.claims.keep(asked.weights)
            self.ledger.record(trial, **{"handed over": handed} if handed else {})
            self.claims.finish(job, to_json(trial))
        else:  # others gave this process up, and one of them trains it again
            asked.future = None
            return
        self._learn(asked, trial)

    def _learn(self, asked: _Asked, trial: Trial) -> None:
        asked.trial = trial
        if trial.score is not None:
            self._remember(trial)

    def _outcome(self, asked: _Asked, job: Job, future: Future[Result]) -> Trial:
        trial, rung = self._unscored(asked.arch, "ok"), asked.rung
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


def _worst_first(trial: Trial) -> tuple[float, tuple[int, ...]]:
    """The order of trials by what they scored; nothing in it depends on which of them ended first."""
    return trial.score or 0.0, trial.arch.picks


def _pauses() -> Iterator[float]:
    pause_s, longest_s = POLL_S
    while True:
        yield pause_s
        pause_s = min(1.5 * pause_s, longest_s)


def _kept(tried: int, rung: int) -> int:
    """How many of so many networks are trained at a rung."""
    return max(1, round(tried / ETA**rung))


def _reason(error: Exception) -> str:
    """Kind and first line of an error, in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
