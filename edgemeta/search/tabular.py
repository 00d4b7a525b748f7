"""Search where every answer stands in a table: accuracies of all networks of a space, and latencies of devices.

What a searcher learns, it pays for: a timing, an accuracy query, or part of one for an accuracy after short training.
Because all answers are known, so is the best network under a cap, and what a searcher missed by not finding it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from edgemeta.contracts import Searcher
from edgemeta.data.archive import DAMAGED, read_arrays
from edgemeta.errors import BadData, Infeasible, nearest
from edgemeta.latency import fewshot, public
from edgemeta.search.surrogate import improvement, posterior
from edgemeta.types import Arch, Cost, Trial

NB201_CHEAP = 12 / 200  # of an accuracy query: epochs of the short training over those of the long
NB201_TASKS = ("cifar10", "cifar100", "imagenet16_120")
NINETY = 1.6449  # standard deviations from the middle to either end of a normal's central 90 %
JUDGED = 300  # candidates whose chance to fit is worked out
# Chosen on source tasks and devices alone (tools/bench/constrained_search.py); in units of the better half's spread.
STRUCTURE = 0.3  # standard deviation of what the other task does not tell and like networks share
NOISE = 0.45  # and of what no network tells of another: training noise
LEVEL = 100.0  # points: standard deviation of how far all of a task's accuracies are from what is expected
REACH = 1.0  # slots in which networks differ until they share 1 / e of it
_SHORT = {"imagenet16_120": "imagenet"}


@dataclass(frozen=True)
class Table:
    """All networks of a space, in the order of `archs`. Accuracies are in points (0..100)."""

    archs: tuple[Arch, ...]
    accuracy: Mapping[str, np.ndarray]  # task -> (networks,)
    cheap: Mapping[str, np.ndarray]  # task -> (networks,) after short training; {} where there is none
    cheap_cost: float  # accuracy queries
    latency_ms: Mapping[str, np.ndarray]  # device -> (networks,)

    @cached_property
    def row(self) -> Mapping[Arch, int]:
        return {arch: row for row, arch in enumerate(self.archs)}

    @cached_property
    def picks(self) -> np.ndarray:
        """(networks, slots)"""
        return np.array([arch.picks for arch in self.archs])


class Spent(NamedTuple):
    timings: int
    queries: float  # full accuracy queries; a short training counts as part of one


class Tabular:
    """One search: a task, a device and a cap, and meters of what was asked. An answer once paid is remembered."""

    def __init__(self, table: Table, task: str, device: str, cap_ms: float):
        for name, known in ((task, table.accuracy), (device, table.latency_ms)):
            if name not in known:
                raise BadData(f"the table has no {name!r}; {nearest(name, known)}")
        self.table, self.task, self.device, self.cap_ms = table, task, device, cap_ms
        self._ms: dict[Arch, float] = {}
        self._points: dict[Arch, float] = {}
        self._cheap: dict[Arch, float] = {}

    @property
    def spent(self) -> Spent:
        return Spent(len(self._ms), len(self._points) + self.table.cheap_cost * len(self._cheap))

    @property
    def timed(self) -> Mapping[Arch, float]:
        return dict(self._ms)

    @property
    def queried(self) -> Mapping[Arch, float]:
        """Points of the networks that were asked for after full training."""
        return dict(self._points)

    def time_ms(self, arch: Arch) -> float:
        """One timing."""
        return self._ms.setdefault(arch, float(self._look(self.table.latency_ms[self.device], arch)))

    def query(self, arch: Arch) -> float:
        """One accuracy query: points after full training."""
        return self._points.setdefault(arch, float(self._look(self.table.accuracy[self.task], arch)))

    def cheap(self, arch: Arch) -> float:
        """Points after short training, for part of a query."""
        if self.task not in self.table.cheap:
            raise BadData(f"the table has no short training on {self.task}; {nearest(self.task, self.table.cheap)}")
        return self._cheap.setdefault(arch, float(self._look(self.table.cheap[self.task], arch)))

    def fits(self, arch: Arch) -> bool:
        """Whether a timed network is under the cap; what was not timed is not known to be."""
        return self._ms.get(arch, math.inf) <= self.cap_ms

    @cached_property
    def oracle(self) -> float:
        """The best accuracy under the cap, in points."""
        ms = self.table.latency_ms[self.device]
        if not (ms <= self.cap_ms).any():
            raise Infeasible(f"no network of the table takes {self.cap_ms:g} ms on {self.device}; the fastest "
                             f"{ms.min():.3g} ms; raise the cap")  # fmt: skip
        return float(self.table.accuracy[self.task][ms <= self.cap_ms].max())

    def regret(self, arch: Arch) -> float:
        """Points below the oracle. It judges, and is in no searcher's reach: nothing is metered."""
        return self.oracle - float(self._look(self.table.accuracy[self.task], arch))

    def broken(self, arch: Arch) -> bool:
        """Whether a returned network is over the cap."""
        return bool(self._look(self.table.latency_ms[self.device], arch) > self.cap_ms)

    def best(self) -> Arch | None:
        """The most accurate of the networks that were queried and timed and fit."""
        fitting = [arch for arch in self._points if self.fits(arch)]
        return max(fitting, key=self._points.__getitem__) if fitting else None

    def _look(self, column: np.ndarray, arch: Arch) -> float:
        if arch not in self.table.row:
            raise BadData(f"{arch} is not in the table of {self.table.archs[0].space}; ask for networks of that space")
        return column[self.table.row[arch]]


def run(searcher: Searcher, problem: Tabular, *, queries: int, name: str = "", asks: int = 50) -> list[float]:
    """Regret after 1, 2, ... accuracy queries of any ask/tell searcher, at most `queries` of them.

    Every proposal is timed; what is over the cap is told as infeasible and not queried, so it costs no query. A network
    that was asked for before costs nothing. It ends after `asks` proposals per query: a searcher may be exhausted.
    """
    regrets: list[float] = []
    best = math.inf
    for _ in range(asks * queries):
        if len(regrets) >= queries:
            break
        arch = searcher.ask()
        cost = Cost(latency_ms=problem.time_ms(arch))
        before = problem.spent.queries
        points = problem.query(arch) if problem.fits(arch) else None
        status = "infeasible" if points is None else "ok"
        score = None if points is None else points / 100
        searcher.tell(Trial(arch, cost, score, None, 1, 0, 0.0, name, status, problem.device, Cost(problem.cap_ms)))
        if problem.spent.queries > before:
            best = min(best, problem.regret(arch))
            regrets.append(best)
    return regrets


def queries_until(curves: Sequence[Sequence[float]], regret: float) -> float:
    """Accuracy queries until the mean of regret curves is as low as `regret`; inf where it never is.

    A curve that ended early stays where it ended.

    >>> queries_until([[3.0, 2.0, 1.0], [1.0]], 1.5)
    2.0
    """
    longest = max(map(len, curves))
    if not min(map(len, curves)):
        return math.inf
    padded = np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves])
    reached = np.flatnonzero(padded.mean(0) <= regret)
    return float(reached[0] + 1) if len(reached) else math.inf


def nb201(root: Path) -> Table:
    """NAS-Bench-201: test accuracy after 200 epochs (NATS-Bench, Dong 2021, arXiv:2009.00437), validation accuracy
    after 12, and the latencies collected by HELP (Lee 2021, arXiv:2106.08630). `root` holds help/ and nb201_accuracy/.
    """
    picks, latency_ms = public.table(root / "help" / "nasbench201_latency.npz", "nb201")
    path = root / "nb201_accuracy" / "nb201_accuracy.npz"
    full = [f"test200_{task}" for task in NB201_TASKS]
    short = [f"ep12_{_SHORT.get(task, task)}_val" for task in NB201_TASKS]
    try:
        (_, timed), (known, *columns) = (
            read_arrays(root / "help" / "nasbench201_latency.npz", "latency_ms", "arch_str"),
            read_arrays(path, "arch_str", *full, *short),
        )
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise BadData(f"cannot read {path}: {reason}; give the folder that holds nb201_accuracy/") from error
    if not np.array_equal(timed, known):
        raise BadData(f"{path} lists other networks than the latencies do; give both from the same folder")
    points = [column.astype(float) for column in columns]
    archs = tuple(Arch("nb201", row) for row in picks)
    accuracy, cheap = (dict(zip(NB201_TASKS, half, strict=True)) for half in (points[:3], points[3:]))
    return Table(archs, accuracy, cheap, NB201_CHEAP, latency_ms)


class Belief:
    """What is believed of a device's latencies: the posterior of `latency.fewshot` after its timings."""

    def __init__(self, prior: fewshot.Prior, features: Callable[[Sequence[Arch]], np.ndarray]):
        """`features` gives the prior's features (networks, features) of architectures."""
        self._prior, self._features = prior, features
        self._posterior: fewshot.Posterior | None = None

    def see(self, timed: Mapping[Arch, float]) -> None:
        """Condition on all timings so far, in ms."""
        self._posterior = fewshot.fit(self._prior, self._features(list(timed)), np.array(list(timed.values())))

    def log_ms(self, archs: Sequence[Arch]) -> np.ndarray:
        """(networks,) posterior means."""
        return fewshot.mean(self._known(), self._features(archs))

    def chance(self, archs: Sequence[Arch], cap_ms: float) -> np.ndarray:
        """(networks,) probabilities to be under the cap, from the posterior's central 90 % taken as a normal's."""
        low, high = fewshot.interval(self._known(), self._features(archs))
        return ndtr((np.log(cap_ms) - (low + high) / 2) * 2 * NINETY / (high - low))

    def _known(self) -> fewshot.Posterior:
        if self._posterior is None:
            raise BadData("nothing is believed of a device that was never timed; pass its first timings to `see`")
        return self._posterior


class Guess:
    """Accuracy of candidates: what is expected, corrected by what was queried. The first query tells the level."""

    def __init__(self, picks: np.ndarray, expected: np.ndarray, unit: float):
        """picks (n, slots); expected (n,) points; unit: points that the better half of the space spreads."""
        self._picks, self._expected, self._unit = picks, expected, unit
        self._rows: list[int] = []
        self._points: list[float] = []

    def see(self, row: int, points: float) -> None:
        self._rows.append(row)
        self._points.append(points)

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) means and standard deviations, in points, of what a query would answer."""
        above = np.array(self._points) - self._expected[self._rows]
        spread = {"structure": STRUCTURE * self._unit, "noise": NOISE * self._unit, "level": LEVEL, "reach": REACH}
        mean, sd = posterior(self._picks[self._rows], above, self._picks, **spread)
        return self._expected + mean, sd


def decide(
    problem: Tabular,
    candidates: Sequence[Arch],
    expected: np.ndarray,
    belief: Belief,
    *,
    unit: float,
    timings: int,
    queries: int,
    at_once: int = 2,
) -> Arch | None:
    """Among candidates with `expected` (n,) points, the one to return: timed, under the cap, and queried if one may.

    Before each query, an equal share of the timings that are left goes to the candidates that may gain most (chance to
    fit times points above the best that fits), `at_once` per update of the belief; the query to the largest expected
    improvement (Mockus 1978). All in all `timings` and `queries` of the problem are spent at most, those before
    included. None: nothing timed fits.
    """
    guess = Guess(np.array([arch.picks for arch in candidates]), expected, unit)
    row = {arch: row for row, arch in enumerate(candidates)}
    asked: dict[Arch, float] = {}
    for left in range(max(1, queries), 0, -1):
        until = problem.spent.timings + (timings - problem.spent.timings) // left
        _verify(problem, candidates, guess()[0], set(asked), belief, until, at_once)
        open_to = [arch for arch in candidates if problem.fits(arch) and arch not in asked]
        if queries and open_to:
            mean, sd = guess()
            best = max(asked.values(), default=-math.inf)
            worth = improvement(mean, sd, best)
            arch = max(open_to, key=lambda arch: worth[row[arch]])
            asked[arch] = problem.query(arch)
            guess.see(row[arch], asked[arch])
    fitting = [arch for arch in candidates if problem.fits(arch)]
    return problem.best() if queries and asked else max(fitting, key=lambda arch: expected[row[arch]], default=None)


def _verify(
    problem: Tabular,
    candidates: Sequence[Arch],
    mean: np.ndarray,
    asked: Collection[Arch],
    belief: Belief,
    until: int,
    at_once: int,
) -> None:
    """Time candidates until `until` timings are spent, or none is left that may beat the best that fits."""
    while (left := until - problem.spent.timings) > 0:
        fitting = [mean[row] for row, arch in enumerate(candidates) if problem.fits(arch) and arch not in asked]
        gain = np.maximum(mean - (max(fitting) if fitting else mean.min() - 1.0), 0.0)
        gain[[row for row, arch in enumerate(candidates) if arch in problem.timed]] = 0.0
        some = np.argsort(-gain, kind="stable")[:JUDGED]
        some = some[gain[some] > 0]
        if not len(some):
            return
        worth = gain[some] * belief.chance([candidates[row] for row in some], problem.cap_ms)
        for row in some[np.argsort(-worth, kind="stable")[: min(at_once, left)]]:
            problem.time_ms(candidates[row])
        belief.see(problem.timed)
