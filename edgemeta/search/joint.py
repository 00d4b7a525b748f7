"""The joint search: an architecture and its weights are meta-learned together, and both adapt to a task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch

from edgemeta.contracts import Params, Support
from edgemeta.data.episode import Pool, draw
from edgemeta.errors import BadConfig, Diverged
from edgemeta.learners.adam import Adam
from edgemeta.learners.outer import Tasks, gradients
from edgemeta.learners.protonet import protonet
from edgemeta.learners.shards import gather
from edgemeta.nets.relaxed import Alpha, Relaxed
from edgemeta.search.adaptation import LOGITS, RATE, adapt, alpha_of, cooled, outer_gradient
from edgemeta.search.bilevel import BETAS, Guard, detached, leaves, task_loss
from edgemeta.search.by_gradient import ByGradient, Penalty
from edgemeta.search.problem import Problem
from edgemeta.space.space import Space
from edgemeta.types import Arch


@dataclass(frozen=True)
class Joint:
    """Settings of the joint search. Inner rates are where the learned ones start; see `adapt` and `outer_gradient`."""

    episodes: int = 400  # in all: an update takes `tasks` of them, one where class means warm the weights up
    warmup: float = 0.4  # share of the episodes in which weights alone learn, by class means and without inner steps
    warmup_way: int = 20
    way: int = 10
    shot: int = 1
    query: int = 3
    tasks: int = 1  # per update
    steps: int = 2  # of the inner loop in meta-training
    head_lr: float = 0.02  # inner rate of the head, multiplied by the number of ways as in `learners.inner.Rates`
    body_lr: float = 0.01
    logits_lr: float = 0.3
    second_order: bool = False  # without, the outer gradient takes inner steps for constants
    lr: float = 5e-3  # of the weights' Adam in the warm-up, falling to zero along a cosine
    meta_lr: float = 1e-3  # and after it, as well
    decay: float = 3e-4  # of the weights
    alpha_lr: float = 0.06  # of the meta-logits' Adam
    alpha_decay: float = 1e-3
    rate_lr: float = 0.02  # of the Adam of the inner rates' logarithms
    clip: float = 5.0  # norm of the weights' gradient
    coldest: float = 0.05  # temperature that the softmax ends at in a task that is drawn last; see `cooled`
    latency: float = 0.2  # weight of log(expected latency / cap) in the outer loss
    most_skips: int | None = 2  # the search stops when its first cell comes to hold more (Liang 2019); None: never
    settle: float = 0.5  # share of the logits' episodes before which they are not stopped
    check_every: int = 20  # episodes between two looks at the skips
    drawn: int = 16  # tasks that the trained relaxation adapts to at last, to rank architectures by
    last_steps: int = 5  # of the inner loop then
    width: int | None = None  # of the relaxation; None: as `nets.relaxed` has it
    depth: int | None = None
    stride: int | None = 4
    none: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 <= self.settle <= 1):
            raise BadConfig(f"warmup {self.warmup} and settle {self.settle} are shares; give 0 to 1")
        if not 0 < self.coldest <= 1:
            raise BadConfig(f"coldest = {self.coldest!r} is no temperature that a softmax at 1 cools to; give 0 to 1")
        if min(self.way, self.warmup_way) < 2:
            raise BadConfig(f"way {self.way}, warmup_way {self.warmup_way}: one class is told from no other; give 2 up")
        positive = ("episodes", "shot", "query", "tasks", "steps", "head_lr", "body_lr", "logits_lr", "lr", "meta_lr")
        for name in (*positive, "alpha_lr", "rate_lr", "clip", "check_every", "drawn", "last_steps"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadConfig(f"{name} = {getattr(self, name)!r} searches nothing; give more than 0")


@dataclass(frozen=True)
class MetaLearned:
    """What meta-learning came to.

    slow: kernels "<operator>.weight", `head.log_temperature` (), "logits.<cell>" (edges, operators), and the inner
    rates' logarithms `rate.head`, `rate.body`, `rate.logits` (steps,).
    """

    slow: Params = field(repr=False)
    episodes: int  # that it took
    stopped: str  # why it ended early; "" where it did not
    losses: tuple[float, ...] = field(repr=False)  # of the queries after adaptation, without the latency

    @property
    def alpha(self) -> Alpha:
        return alpha_of(self.slow)

    @property
    def rates(self) -> dict[str, tuple[float, ...]]:
        """The learned inner rates of head, body and logits, step by step."""
        logs = {name: value for name, value in self.slow.items() if name.startswith(RATE)}
        return {name.removeprefix(RATE): tuple(value.exp().tolist()) for name, value in logs.items()}


def meta_learn(
    relaxed: Relaxed, pool: Pool, settings: Joint, *, seed: int, penalty: Penalty | None = None
) -> MetaLearned:
    """A warm-up of the weights, then weights, logits and inner rates together; deterministic given its arguments."""
    rng, start = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    slow = protonet(relaxed.net({})).init(rng=start)
    slow |= {LOGITS + cell: logits for cell, logits in relaxed.alpha(rng=start).items()}
    begin = {"head": settings.head_lr, "body": settings.body_lr, "logits": settings.logits_lr}
    slow |= {RATE + group: torch.full((settings.steps,), math.log(rate)) for group, rate in begin.items()}
    return _Run(relaxed, settings, pool, rng, slow).learned(penalty)


def drawn_tasks(pool: Pool, settings: Joint, count: int, way: int, query: int, *, rng: np.random.Generator) -> Tasks:
    """Tasks of `way` classes, or of as many as can be drawn."""
    usable = sum(len(own) >= settings.shot + query for own in pool.by_class)
    way = max(2, min(way, usable))
    return gather([pool], [(0, draw(pool, way, settings.shot, query, rng=rng)) for _ in range(count)])


class _Run:
    """Meta-learning in progress."""

    def __init__(self, relaxed: Relaxed, settings: Joint, pool: Pool, rng: np.random.Generator, slow: Params):
        self._relaxed, self._settings, self._pool, self._rng = relaxed, settings, pool, rng
        self._slow = leaves(slow)
        logits = [value for name, value in self._slow.items() if name.startswith(LOGITS)]
        rates = [value for name, value in self._slow.items() if name.startswith(RATE)]
        self._weights = {name: value for name, value in self._slow.items() if not name.startswith((LOGITS, RATE))}
        self._adams = (
            Adam(self._weights.values(), 0.0, decay=settings.decay),
            Adam(logits, settings.alpha_lr, betas=BETAS, decay=settings.alpha_decay),
            Adam(rates, settings.rate_lr),
        )
        self._warm = round(settings.warmup * settings.episodes)
        self._losses: list[float] = []

    def learned(self, penalty: Penalty | None) -> MetaLearned:
        settings, done, stopped = self._settings, 0, ""
        guard = Guard(self._relaxed, settings.most_skips)
        settled = self._warm + settings.settle * (settings.episodes - self._warm)
        checked = 0
        while done < settings.episodes and not stopped:
            done += self._warm_up(done) if done < self._warm else self._meta_update(done, penalty)
            if done >= settled and done - checked >= settings.check_every:
                checked, stopped = done, guard.check(alpha_of(self._slow))
        slow = detached(self._slow)
        if stopped and guard.kept:
            slow |= {LOGITS + cell: logits for cell, logits in guard.kept.items()}
        return MetaLearned(slow, done, stopped, tuple(self._losses))

    def _warm_up(self, done: int) -> int:
        """Episodes taken: one, in which class means teach the weights (`learners.protonet`)."""
        alpha = cooled(self._relaxed, {cell: logits.detach() for cell, logits in alpha_of(self._slow).items()}, 1.0)
        loss = task_loss(self._relaxed, self._weights, alpha, self._tasks(1, self._settings.warmup_way, 1))
        self._require(float(loss.detach()), done)
        self._move(gradients(loss, self._weights), self._settings.lr, done / self._warm)
        return 1

    def _meta_update(self, done: int, penalty: Penalty | None) -> int:
        """Episodes taken. From the first to the last of them the end of a task's cooling falls to `coldest`."""
        settings = self._settings
        progress = (done - self._warm) / (settings.episodes - self._warm)
        tasks = self._tasks(settings.tasks, settings.way, settings.query)
        cold, order = settings.coldest**progress, settings.second_order
        meta = outer_gradient(self._relaxed, self._slow, tasks, coldest=cold, second_order=order, penalty=penalty)
        self._require(float(meta.loss), done)
        self._losses.append(float(meta.loss))
        self._move(meta.gradient, settings.meta_lr, progress)
        return settings.tasks

    def _tasks(self, count: int, way: int, query: int) -> Tasks:
        return drawn_tasks(self._pool, self._settings, count, way, query, rng=self._rng)

    def _move(self, gradient: Params, lr: float, progress: float) -> None:
        self._adams[0].lr = lr * 0.5 * (1 + math.cos(math.pi * progress))
        for name, value in self._slow.items():
            value.grad = gradient.get(name)
        torch.nn.utils.clip_grad_norm_(self._weights.values(), self._settings.clip)
        for adam in self._adams:
            slopes = [value.grad for value in adam.params]
            if any(slope is not None for slope in slopes):  # the warm-up teaches weights alone
                adam.step(slopes)

    def _require(self, loss: float, done: int) -> None:
        if not math.isfinite(loss):
            settings = self._settings
            rates = f"lr (now {settings.lr:g}), meta_lr ({settings.meta_lr:g}) or the inner rates"
            raise Diverged(f"joint: loss is {loss:.4g} after {done} of {settings.episodes} episodes; lower {rates}")


class JointSearch(ByGradient[MetaLearned]):
    """T-NAS (Lian 2020) with the soft pruning of MetaNAS (Elsken 2020, arXiv:1911.11090), for `nets.relaxed`'s spaces.

    The relaxation is meta-learned on tasks of the training classes: a task's support adapts head, weights and
    architecture logits, the softmax cooling meanwhile; the loss of its queries then teaches weights, logits and the
    rates of adaptation. The relaxation then adapts to tasks that are drawn anew, and architectures rank by the
    log-probability of their operators, mean over those tasks.
    """

    def __init__(self, space: Space, *, seed: int, problem: Problem, settings: Joint | None = None):
        self._settings = settings or Joint()
        super().__init__(space, seed=seed, problem=problem, shape=self._settings)

    def adapted(self, support: Support) -> Arch:
        """The architecture for one task, given images (n, C, H, W) and labels, under the caps: what T-NAS is for.

        Meta-learns first, where nothing was asked yet. `search.adaptation.adapt` gives the adapted weights, too.
        """
        if self.found is None:
            self.found, self._proposals = self._search()
        alpha = self._task_alpha(self.found.learned, support)
        return self._ranked(alpha).repaired(self._relaxed.derive(alpha), rng=Random(self._seed))

    def _learned(self, pool: Pool, penalty: Penalty | None) -> tuple[MetaLearned, Alpha]:
        learned = meta_learn(self._relaxed, pool, self._settings, seed=self._seed, penalty=penalty)
        return learned, self._typical(learned, pool)

    def _typical(self, learned: MetaLearned, pool: Pool) -> Alpha:
        """Log-probabilities of the operators after adaptation, mean over drawn tasks."""
        rng = np.random.default_rng([self._seed, 1])  # other tasks than those of the training
        drawn = drawn_tasks(pool, self._settings, self._settings.drawn, self._settings.way, 0, rng=rng)
        each = [self._task_alpha(learned, Support(x, onehot)) for x, onehot, *_ in zip(*drawn, strict=True)]
        return {
            cell: torch.stack([torch.log_softmax(alpha[cell], 1) for alpha in each]).mean(0) for cell in learned.alpha
        }

    def _task_alpha(self, learned: MetaLearned, support: Support) -> Alpha:
        settings = self._settings
        fast = adapt(self._relaxed, learned.slow, support, coldest=settings.coldest, steps=settings.last_steps)
        return {cell: logits.detach() for cell, logits in alpha_of(fast).items()}
