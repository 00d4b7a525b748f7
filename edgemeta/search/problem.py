"""What a search is asked: a space, a device, a budget and a few-shot task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from edgemeta.contracts import Predictor
from edgemeta.latency.cost import cost, flash_kib, upper
from edgemeta.learners.settings import Training
from edgemeta.search.jobs import DataSpec, Job
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost, Op, Trial


@dataclass(frozen=True)
class Problem:
    """Candidates are scored by short meta-training of growing length (`rungs`, in episodes)."""

    space: Space
    predictor: Predictor
    cap: Cost
    learner: str
    data: DataSpec
    weights: Path
    device: str = ""
    fingerprint: str = ""  # of the data's content
    head_kib: Callable[[Sequence[Op]], float] = lambda ops: 0.0  # what the learner adds to a network on disk
    int8: bool = False  # a network may ship in int8, and is as large as that on disk
    way: int = 5
    shot: int = 1
    rungs: tuple[int, ...] = (100, 300, 900)
    eval_episodes: int = 300
    training: Training = field(default_factory=Training)
    seed: int = 0

    @cached_property
    def task(self) -> str:
        """What a score means. Scores of different tasks must not be compared, so ledgers are kept apart by it.

        Data that is known by its content may lie anywhere, on each machine elsewhere.
        """
        data = replace(self.data, root=None) if self.fingerprint else self.data
        recipe = hashlib.sha256(repr((self.training, self.fingerprint)).encode()).hexdigest()[:8]
        return f"{self.space.name} {self.learner} {self.way}w{self.shot}s seed{self.seed} {data} {recipe}"

    def cost(self, arch: Arch) -> Cost:
        """Predicted cost, for pictures and rankings."""
        return self._with_head(cost, arch)

    def bound(self, arch: Arch) -> Cost:
        """Cost with the upper end of the latency interval, which is what must fit the cap."""
        return self._with_head(upper, arch)

    def unscored(self, arch: Arch, searcher: str, status: str) -> Trial:
        """A trial of an architecture that nothing was learned of yet."""
        cost = self.cost(arch)
        return Trial(arch, cost, None, None, 0, self.seed, 0.0, searcher, status, self.device, self.cap)

    def _with_head(self, of: Callable[..., Cost], arch: Arch) -> Cost:
        ops = self.space.ops(arch)
        size_kib = flash_kib(ops, "int8" if self.int8 else "fp32") + self.head_kib(ops)
        return replace(of(ops, self.predictor), flash_kib=size_kib)

    def weights_of(self, arch: Arch, episodes: int) -> Path:
        """Where the parameters after so many episodes are kept; equal networks share them whatever their picks."""
        name = hashlib.sha256(repr((self.task, self.space.ops(arch))).encode()).hexdigest()[:16]
        return self.weights / f"{name}-{episodes}.safetensors"

    def job(self, arch: Arch, rung: int) -> Job:
        """Training from the rung below to this one, or from the start where the rung below left no weights."""
        warm = self.weights_of(arch, self.rungs[rung - 1]) if rung else None
        if warm and not warm.exists():
            warm = None
        below = self.rungs[rung - 1] if warm else 0
        return Job(
            ops=self.space.ops(arch),
            learner=self.learner,
            data=self.data,
            training=self.training.lasting(self.rungs[rung] - below),
            done=below,
            way=self.way,
            shot=self.shot,
            eval_episodes=self.eval_episodes,
            seed=self.seed,
            weights=str(self.weights_of(arch, self.rungs[rung])),
            warm=str(warm) if warm else None,
        )


def rank(trials: list[Trial], space: Space) -> list[Trial]:
    """The furthest-trained trial of each distinct network, the most promising first.

    Longer training comes first, because the scores of different fidelities do not compare.
    """
    furthest: dict[tuple[Op, ...], Trial] = {}
    for trial in trials:
        ops = space.ops(trial.arch)
        if trial.score is not None and (ops not in furthest or furthest[ops].fidelity <= trial.fidelity):
            furthest[ops] = trial
    return sorted(furthest.values(), key=lambda trial: (trial.fidelity, trial.score, trial.arch.picks), reverse=True)
