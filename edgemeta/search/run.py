"""The search loop: ask, cost, train what fits, tell; then successive halving over everything that was trained."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from random import Random

from edgemeta import terminal
from edgemeta.contracts import Searcher
from edgemeta.search.claims import Claims
from edgemeta.search.feasible import repair, require_feasible
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem, rank
from edgemeta.search.under_way import CRASHED, FAILED, TOO_LONG, UnderWay
from edgemeta.types import Arch, Op, Trial

ETA = 3  # successive halving keeps one in three (Jamieson & Talwalkar 2016, arXiv:1502.07943)
LOOKAHEAD = 4  # proposals under way before the oldest is told, whatever the number of workers
NEW_TRIES = 300  # proposals in a row that bring nothing new before a search counts as exhausted

Ops = tuple[Op, ...]


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
    _under_way: UnderWay = field(init=False, repr=False)  # of the run in progress

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
        the ledger, and the search goes on; after some in a row (`under_way.CRASHES`), which no network can be blamed
        for, it ends. A search that goes on tries what crashed again; what else failed has failed for good.
        """
        by = (self.problem, self.name, self.ledger, self.executor, self.workers, self.trial_seconds, self.claims)
        with UnderWay(*by, remember=self._remember) as self._under_way:
            return self._run(trials, seconds, starts)

    def _run(self, trials: int, seconds: float, starts: Sequence[Arch]) -> list[Trial]:
        problem, deadline = self.problem, time.monotonic() + seconds
        self._rng = Random(problem.seed)
        require_feasible(problem.space, problem.bound, problem.cap, rng=self._rng)
        own, counted = self._taken_in()
        missing, tried = trials - counted, len(own)
        if len(own) < missing:
            old = {ops for ops, of in self._known.items() if max(of) >= problem.rungs[0]} - own
            proposals = self._proposals(missing, old, deadline, starts)
            tried = max(tried, self._train(0, proposals, f"search ({self.name})", missing))
        for rung in range(1, len(problem.rungs)):
            top = self._best_at(rung - 1)[: _kept(tried, rung)]
            todo = [trial.arch for trial in top if self._at(trial.arch, rung) is None]
            self._train(rung, iter(todo), f"top {len(top)} longer", len(todo))
        return rank(self.trained(), problem.space)

    def _taken_in(self) -> tuple[set[Ops], int]:
        """Tell the searcher what others trained; the networks of this very search, and how many of the others count."""
        problem, counted, told = self.problem, set[Ops](), list[Trial]()
        self._failed = self._failures()
        own = set(self._failed)
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
        return own, len(counted)

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
        waiting = 1 + sum(asked.trial is None for asked in self._under_way.asked)
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
            refused = problem.unscored(arch, self.name, "infeasible")
            refused = replace(refused, cost=problem.bound(arch))  # what it was refused for
            self.infeasible.append(refused)
            self.searcher.tell(refused)
        return repair(arch, problem.space, problem.bound, problem.cap, rng=self._rng)

    def _train(self, rung: int, archs: Iterator[Arch], title: str, total: int) -> int:
        """Keep every worker busy, but tell results in the order of asking: the outcome does not depend on timing.

        Returns how many networks there were, those included that are trained already.
        """
        count, asked = 0, self._under_way.asked
        asked.clear()
        with terminal.bar(total=max(total, 0), desc=title, unit="net", progress=self.progress) as bar:
            for arch in archs:
                count += 1
                known = self._at(arch, rung) or self._failed.get(self.problem.space.ops(arch))
                self._under_way.ask(arch, rung, known)
                if len(asked) >= (self.lookahead if self.claims else max(self.lookahead, self.workers)):
                    self._finish(bar)
            while asked:
                self._finish(bar)
        return count

    def _finish(self, bar: terminal.Bar) -> None:
        """Tell the searcher of the oldest network's first score, when it is known."""
        rung, trial = self._under_way.oldest()
        bar.update()
        if rung == 0:
            self.searcher.tell(trial)
        best = max(self._leaders.get(rung, trial), trial, key=_worst_first)
        self._leaders[rung] = best
        if best.score is not None:
            bar.set_postfix_str(f"best {100 * best.score:.1f} % at {best.cost.latency_ms:.3g} ms")


def _worst_first(trial: Trial) -> tuple[float, tuple[int, ...]]:
    """The order of trials by what they scored; nothing in it depends on which of them ended first."""
    return trial.score or 0.0, trial.arch.picks


def _kept(tried: int, rung: int) -> int:
    """How many of so many networks are trained at a rung."""
    return max(1, round(tried / ETA**rung))
